"""A memory's vector is kept as a code of six bits a dimension; pgvector's halfvec only where a scope has postings.

A scope without postings is read whole and compared by the codes. Indexes stay: they follow their column's new name.
"""

from collections.abc import Iterator
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
COLLECTIONS = "select id, dim from agentflow.collection order by id"
VECTORS = """
select id, vector::real[] from agentflow.memory
where collection_id = :collection and id > :after and vector is not null order by id limit :batch
"""
CODES = """
select id, embedding from agentflow.memory
where collection_id = :collection and id > :after and vector is null and embedding is not null order by id limit :batch
"""
CODE = """
update agentflow.memory m set embedding = u.code, vector = case when s.posted then vector end
from unnest(cast(:ids as bigint[]), cast(:given as bytea[])) u(id, code) cross join agentflow.scope s
where m.collection_id = :collection and m.id = u.id and s.id = m.scope_id
"""
DECODE = """
update agentflow.memory m set vector = cast(u.vector as halfvec)
from unnest(cast(:ids as bigint[]), cast(:given as text[])) u(id, vector)
where m.collection_id = :collection and m.id = u.id
"""


def upgrade() -> None:
    op.execute("alter table agentflow.memory rename embedding to vector")
    op.execute("alter table agentflow.memory add embedding bytea")
    op.execute("alter table agentflow.memory alter column embedding set storage plain")
    _rows_for_owner("no force")
    for collection, _, rows in _batches(VECTORS):
        codes = coded(np.array([vector for _, vector in rows], np.float32))
        _change(CODE, collection, rows, codes)
    _rows_for_owner("force")


def downgrade() -> None:
    _rows_for_owner("no force")
    for collection, dim, rows in _batches(CODES):
        vectors = decoded([code for _, code in rows], dim)
        _change(DECODE, collection, rows, [_text(vector) for vector in vectors])
    _rows_for_owner("force")
    op.execute("alter table agentflow.memory drop embedding")
    op.execute("alter table agentflow.memory rename vector to embedding")


def _batches(statement: str) -> Iterator[tuple[int, int, list[Any]]]:
    """Collection, its dimensions, and rows of it that are left."""
    for collection, dim in op.get_bind().execute(sa.text(COLLECTIONS)).all():
        after = 0
        while (
            rows := op.get_bind()
            .execute(sa.text(statement), {"collection": collection, "after": after, "batch": BATCH})
            .all()
        ):
            yield collection, dim, list(rows)
            after = rows[-1][0]


def _change(statement: str, collection: int, rows: list[Any], given: list[Any]) -> None:
    ids = [item for item, _ in rows]
    op.get_bind().execute(sa.text(statement), {"collection": collection, "ids": ids, "given": given})


def _rows_for_owner(how: str) -> None:
    """Tables' owner who is no superuser sees their rows only without force."""
    for table in ("collection", "memory", "scope"):
        op.execute(f"alter table agentflow.{table} {how} row level security")


def _text(vector: Any) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"
