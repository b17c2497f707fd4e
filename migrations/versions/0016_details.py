"""A turn's result without the words that messages and memories hold, packed; they are put together again on reading."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.records.details import TOLD, packed, told
from agentflow.turn import Json

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BATCH = 1000
_NEXT = "and (cast(:after as uuid) is null or r.id > :after) order by r.id limit :batch"
RESULTS = f"select r.id, r.result from agentflow.run r where r.result is not null {_NEXT}"
DETAILS = f"select r.id, r.thread_id, {TOLD} from agentflow.run r where r.details is not null {_NEXT}"
PACK = sa.text(
    "update agentflow.run set details = :details, recalled = :recalled where id = :run"
).bindparams(sa.bindparam("recalled", type_=sa.ARRAY(sa.BigInteger())))
TELL = sa.text("update agentflow.run set result = :result where id = :run").bindparams(
    sa.bindparam("result", type_=JSONB())
)
# Words were forgotten in the stored answer, and stayed in its message.
FORGOTTEN = """
update agentflow.message a set content = r.result ->> 'output' from agentflow.run r
where a.run_id = r.id and a.role = 3 and a.status = 1 and a.content <> r.result ->> 'output'
  and (length(r.result ->> 'output') < length(a.content) or position('(forgotten)' in r.result ->> 'output') > 0)
"""
READ = ("run", "message", "memory", "collection")


def upgrade() -> None:
    op.add_column("run", sa.Column("details", sa.LargeBinary()), schema="agentflow")
    op.add_column("run", sa.Column("recalled", sa.ARRAY(sa.BigInteger())), schema="agentflow")
    _rows_for_owner("no force")
    op.execute(FORGOTTEN)
    _each(RESULTS, PACK, _packed)
    _rows_for_owner("force")
    op.drop_column("run", "result", schema="agentflow")


def downgrade() -> None:
    op.add_column("run", sa.Column("result", JSONB()), schema="agentflow")
    op.execute("set local search_path = agentflow, public")
    _rows_for_owner("no force")
    _each(DETAILS, TELL, _told)
    _rows_for_owner("force")
    op.drop_column("run", "recalled", schema="agentflow")
    op.drop_column("run", "details", schema="agentflow")


def _rows_for_owner(how: str) -> None:
    """Tables' owner who is no superuser sees their rows only without force."""
    for table in READ:
        op.execute(f"alter table agentflow.{table} {how} row level security")


def _each(found: str, change: sa.TextClause, changed: Callable[..., Json]) -> None:
    connection, after = op.get_bind(), None
    while rows := connection.execute(sa.text(found), {"after": after, "batch": BATCH}).all():
        connection.execute(change, [{"run": row[0], **changed(*row)} for row in rows])
        after = rows[-1][0]


def _packed(_run: Any, result: Json) -> Json:
    details, recalled = packed(result)
    return {"details": details, "recalled": recalled}


def _told(run: Any, thread: Any, *columns: Any) -> Json:
    return {"result": told(run, thread, columns)}
