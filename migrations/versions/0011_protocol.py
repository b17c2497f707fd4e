"""What the LangGraph protocol keeps: runs of any graph, their events, thread states, assistants, crons."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from agentflow.records.ownership import expose, protect

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

JSONB = postgresql.JSONB(astext_type=sa.Text())
EMPTY = sa.text("'{}'")
NOW = sa.text("now()")


def _tenant() -> sa.Column[int]:
    return sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, JSONB, server_default=EMPTY, nullable=False)


def _at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=NOW, nullable=False)


def _maybe_at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)


THREAD = (
    sa.Column("status", sa.Text(), server_default=sa.text("'idle'"), nullable=False),
    sa.Column("state", JSONB, nullable=True),
    _json("interrupts"),
    sa.Column("error", JSONB, nullable=True),
    _maybe_at("state_at"),
    _maybe_at("expires_at"),
    sa.Column("on_expiry", sa.Text(), nullable=True),
    _maybe_at("watched_until"),
)
RUN = (
    sa.Column("assistant_id", sa.Uuid(), nullable=True),
    sa.Column("work", JSONB, nullable=True),
    _json("meta"),
    sa.Column("multitask", sa.Text(), server_default=sa.text("'enqueue'"), nullable=False),
    _maybe_at("start_after"),
    sa.Column("stop", sa.Text(), nullable=True),
    sa.Column("watched", sa.Boolean(), server_default=sa.text("false"), nullable=False),
)


def upgrade() -> None:
    for column in THREAD:
        op.add_column("thread", column, schema="agentflow")
    for column in RUN:
        op.add_column("run", column, schema="agentflow")
    op.create_index(
        "thread_expires_ix",
        "thread",
        ["expires_at"],
        schema="agentflow",
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(
        "thread_meta_ix",
        "thread",
        ["meta"],
        schema="agentflow",
        postgresql_using="gin",
        postgresql_ops={"meta": "jsonb_path_ops"},
    )
    _run_event()
    _assistant()
    _cron()
    protect(op.execute, "run_event", "user")
    protect(op.execute, "assistant", "tenant")
    protect(op.execute, "assistant_version", "tenant")
    protect(op.execute, "cron", "user")


def _run_event() -> None:
    op.create_table(
        "run_event",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        _tenant(),
        sa.Column("user_ref", sa.Text(), server_default=sa.text("agentflow.user_ref()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _at("at"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["agentflow.run.id"], name=op.f("run_event_run_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "seq", name=op.f("run_event_pk")),
        schema="agentflow",
    )
    op.create_index("run_event_at_ix", "run_event", ["at"], schema="agentflow")


def _assistant() -> None:
    op.create_table(
        "assistant",
        _tenant(),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("graph", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        _json("config"),
        _json("context"),
        _json("meta"),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        _at("created_at"),
        _at("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("assistant_pk")),
        schema="agentflow",
    )
    op.create_table(
        "assistant_version",
        _tenant(),
        sa.Column("assistant_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("graph", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        _json("config"),
        _json("context"),
        _json("meta"),
        _at("created_at"),
        sa.ForeignKeyConstraint(
            ["tenant", "assistant_id"],
            ["agentflow.assistant.tenant", "agentflow.assistant.id"],
            name=op.f("assistant_version_tenant_assistant_id_fk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "assistant_id", "version", name=op.f("assistant_version_pk")),
        schema="agentflow",
    )


def _cron() -> None:
    op.create_table(
        "cron",
        sa.Column("id", sa.Uuid(), nullable=False),
        _tenant(),
        sa.Column("user_ref", sa.Text(), nullable=False),
        sa.Column("assistant_id", sa.Uuid(), nullable=False),
        sa.Column("thread_id", sa.Uuid(), nullable=True),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), server_default=sa.text("'UTC'"), nullable=False),
        _json("work"),
        _json("meta"),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        _maybe_at("end_at"),
        _maybe_at("next_at"),
        _at("created_at"),
        _at("updated_at"),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["agentflow.thread.id"], name=op.f("cron_thread_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("cron_pk")),
        schema="agentflow",
    )
    op.create_index("cron_user_ix", "cron", ["tenant", "user_ref", "created_at"], schema="agentflow")


def downgrade() -> None:
    if op.get_bind().execute(sa.text("select to_regclass('langgraph.store')")).scalar() is not None:
        expose(op.execute, "store", schema="langgraph")
        op.execute("alter table langgraph.store drop column if exists tenant, drop column if exists user_ref")
    for table in ("cron", "assistant_version", "assistant", "run_event"):
        op.drop_table(table, schema="agentflow")
    op.drop_index("thread_meta_ix", "thread", schema="agentflow")
    op.drop_index("thread_expires_ix", "thread", schema="agentflow")
    for column in RUN:
        op.drop_column("run", str(column.name), schema="agentflow")
    for column in THREAD:
        op.drop_column("thread", str(column.name), schema="agentflow")
