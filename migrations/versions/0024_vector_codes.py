"""A memory's vector takes six bits a dimension, and an index over a large collection's vectors reads four of them.

Indexes of halfvec go with the column; the background builds them again.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op

from agentflow.retrieval.codes import coded, decoded

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

BATCH = 1000
AT_ONCE = 64
# Loops are slow in Postgres, and a search decodes what it finds by an index: 64 bytes are one expression.
BYTES = [f"get_byte(bytes, at + {place})" for place in range(AT_ONCE)]
DECODED = f"""
create function agentflow.decoded(code bytea, dim int) returns int[]
language plpgsql immutable strict parallel safe as $$
declare
  half int := (dim + 1) / 2;
  bytes bytea := code || decode(repeat('00', {AT_ONCE}), 'hex');
  first int[] := '{{}}';
  second int[] := '{{}}';
begin
  if octet_length(code) <> half + (dim + 3) / 4 then
    raise data_exception using
      message = format('expected a code of %s dimensions, not %s bytes', dim, octet_length(code));
  end if;
  for at in 0 .. half - 1 by {AT_ONCE} loop
    first := first || array[{", ".join(f"({byte} >> 4) * 2 - 15" for byte in BYTES)}];
    second := second || array[{", ".join(f"({byte} & 15) * 2 - 15" for byte in BYTES)}];
  end loop;
  return first[1:half] || second[1:dim - half];
end $$
"""
COLLECTIONS = "select id, dim from agentflow.collection order by id"
NEXT = """
select id, {former} from agentflow.memory
where collection_id = :collection and id > :after and former is not null order by id limit :batch
"""
FILL = """
update agentflow.memory m set embedding = cast(u.vector as {kind})
from unnest(cast(:ids as bigint[]), cast(:vectors as {kind}[])) u(id, vector)
where m.collection_id = :collection and m.id = u.id
"""
Vectors = list[Any]


def upgrade() -> None:
    op.execute(DECODED)
    _changed("bytea", "former::real[]", lambda rows, _dim: coded(np.array(rows, np.float32)))


def downgrade() -> None:
    _changed("halfvec", "former", lambda rows, dim: list(map(_text, decoded(rows, dim))))
    op.execute("drop function agentflow.decoded")


def _changed(kind: str, former: str, change: Callable[[Vectors, int], Vectors]) -> None:
    op.execute("alter table agentflow.memory rename embedding to former")
    op.execute(f"alter table agentflow.memory add embedding {kind}")
    op.execute("alter table agentflow.memory alter column embedding set storage plain")
    _rows_for_owner("no force")
    fill = sa.text(FILL.format(kind=kind))
    for collection, dim in op.get_bind().execute(sa.text(COLLECTIONS)).all():
        for rows in _batches(collection, former):
            vectors = change([vector for _, vector in rows], dim)
            given = {"collection": collection, "ids": [item for item, _ in rows], "vectors": vectors}
            op.get_bind().execute(fill, given)
    _rows_for_owner("force")
    op.execute("alter table agentflow.memory drop former")


def _batches(collection: int, former: str) -> Iterator[list[Any]]:
    found, after = sa.text(NEXT.format(former=former)), 0
    while (
        rows := op.get_bind().execute(found, {"collection": collection, "after": after, "batch": BATCH}).all()
    ):
        yield list(rows)
        after = rows[-1][0]


def _rows_for_owner(how: str) -> None:
    """Tables' owner who is no superuser sees their rows only without force."""
    for table in ("collection", "memory"):
        op.execute(f"alter table agentflow.{table} {how} row level security")


def _text(vector: Any) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"
