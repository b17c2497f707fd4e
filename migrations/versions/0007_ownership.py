"""Row-level security, forced, on every table; runs and messages know their user."""

import sqlalchemy as sa
from alembic import op

from agentflow.records.ownership import FUNCTION_NAMES, FUNCTIONS, Kind, expose, lock_away, protect

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES: dict[str, Kind] = {
    "thread": "user",
    "run": "user",
    "message": "user",
    "feedback": "user",
    "scope": "shared",
    "memory": "scope",
    "posting": "scope",
    "term_stat": "scope",
    "collection": "tenant",
    "word": "tenant",
    "related": "tenant",
    "outbox": "tenant",
    "document": "shared",
    "link": "tenant",
    "receipt": "tenant",
}
SAID = {"postgresql_where": sa.text("idem_key IS NOT NULL"), "schema": "agentflow", "unique": True}


def upgrade() -> None:
    for function in FUNCTIONS:
        op.execute(function)
    for table in ("run", "message"):
        op.execute(f"alter table agentflow.{table} add user_ref text default agentflow.user_ref()")
        op.execute(
            f"update agentflow.{table} x set user_ref = t.user_ref from agentflow.thread t where t.id = x.thread_id"
        )
        op.execute(f"alter table agentflow.{table} alter user_ref set not null")
    op.drop_index("run_idem_uq", "run", schema="agentflow")
    op.create_index("run_idem_uq", "run", ["tenant", "user_ref", "idem_key"], **SAID)
    op.create_index("scope_user_ix", "scope", ["tenant", "user_ref"], schema="agentflow")
    for table, kind in TABLES.items():
        protect(op.execute, table, kind)
    for (partition,) in op.get_bind().execute(
        sa.text("select relid::regclass::text from pg_partition_tree('agentflow.memory') where level > 0")
    ):
        lock_away(op.execute, partition.removeprefix("agentflow."))
    op.execute("grant select on agentflow.alembic_version to agentflow_app, agentflow_background")


def downgrade() -> None:
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        expose(op.execute, table, schema="langgraph")
        op.execute(f"alter table langgraph.{table} drop column tenant, drop column user_ref")
    for table in TABLES:
        expose(op.execute, table)
    for (partition,) in op.get_bind().execute(
        sa.text("select relid::regclass::text from pg_partition_tree('agentflow.memory') where level > 0")
    ):
        expose(op.execute, partition.removeprefix("agentflow."))
    op.drop_index("scope_user_ix", "scope", schema="agentflow")
    op.drop_index("run_idem_uq", "run", schema="agentflow")
    for table in ("run", "message"):
        op.drop_column(table, "user_ref", schema="agentflow")
    op.create_index("run_idem_uq", "run", ["tenant", "idem_key"], **SAID)
    for name in FUNCTION_NAMES:
        op.execute(f"drop function agentflow.{name}()")
