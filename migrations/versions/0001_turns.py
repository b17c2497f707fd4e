"""Threads, messages, the ledger of runs, collections with their memories, and the outbox."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("session_seq", schema="agentflow")))
    op.execute(sa.schema.CreateSequence(sa.Sequence("memory_id_seq", schema="agentflow")))
    op.create_table(
        "collection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("embed_model", sa.Text(), nullable=False),
        sa.Column(
            "meta", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("collection_pk")),
        sa.UniqueConstraint("tenant", "name", name=op.f("collection_tenant_name_uq")),
        schema="agentflow",
    )
    op.create_table(
        "memory",
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column(
            "id",
            sa.BigInteger(),
            server_default=sa.text("nextval('agentflow.memory_id_seq')"),
            nullable=False,
        ),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("trust", sa.SmallInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("embedding", HALFVEC(), nullable=True),
        sa.Column("thread_id", sa.Uuid(), nullable=True),
        sa.Column("source_message", sa.Uuid(), nullable=True),
        sa.Column("chunk_no", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.Column("adapter", sa.Text(), nullable=True),
        sa.Column("hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "meta", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "id", name=op.f("memory_pk")),
        schema="agentflow",
        postgresql_partition_by="LIST (collection_id)",
    )
    op.execute("alter table agentflow.memory alter column embedding set storage plain")
    op.execute("create table agentflow.memory_default partition of agentflow.memory default")
    op.create_index(
        "memory_position_ix",
        "memory",
        ["collection_id", "scope_id", "session_id", "seq"],
        unique=False,
        schema="agentflow",
    )
    op.create_index(
        "memory_source_uq",
        "memory",
        ["collection_id", "source_message", "chunk_no"],
        unique=True,
        schema="agentflow",
        postgresql_where=sa.text("source_message IS NOT NULL"),
    )
    op.create_index(
        "memory_thread_ix",
        "memory",
        ["thread_id"],
        unique=False,
        schema="agentflow",
        postgresql_where=sa.text("thread_id IS NOT NULL"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=True),
        sa.Column("collection_id", sa.Integer(), nullable=True),
        sa.Column(
            "payload", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pk")),
        schema="agentflow",
    )
    op.create_index("outbox_due_ix", "outbox", ["kind", "not_before", "id"], unique=False, schema="agentflow")
    op.create_table(
        "thread",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("user_ref", sa.Text(), nullable=False),
        sa.Column("client_ref", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.Column("pinned_role", sa.Text(), nullable=True),
        sa.Column("last_seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "session_id",
            sa.BigInteger(),
            server_default=sa.text("nextval('agentflow.session_seq')"),
            nullable=False,
        ),
        sa.Column(
            "meta", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("thread_pk")),
        schema="agentflow",
    )
    op.create_index(
        "thread_client_uq",
        "thread",
        ["tenant", "client_ref"],
        unique=True,
        schema="agentflow",
        postgresql_where=sa.text("client_ref IS NOT NULL"),
    )
    op.create_index(
        "thread_user_ix", "thread", ["tenant", "user_ref", "updated_at"], unique=False, schema="agentflow"
    )
    op.create_table(
        "message",
        sa.Column("thread_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.Column("adapter", sa.Text(), nullable=True),
        sa.Column("tokens_in", sa.Integer(), nullable=True),
        sa.Column("tokens_out", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column(
            "meta", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["agentflow.thread.id"], name=op.f("message_thread_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("thread_id", "seq", name=op.f("message_pk")),
        sa.UniqueConstraint("id", name=op.f("message_id_uq")),
        schema="agentflow",
    )
    op.create_index("message_run_ix", "message", ["run_id"], unique=False, schema="agentflow")
    op.create_table(
        "run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("thread_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("graph", sa.Text(), server_default=sa.text("'agent'"), nullable=False),
        sa.Column("kind", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("status", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("wanted_role", sa.Text(), nullable=True),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.Column("adapter", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["agentflow.thread.id"], name=op.f("run_thread_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("run_pk")),
        sa.UniqueConstraint("thread_id", "seq", name=op.f("run_thread_id_seq_uq")),
        schema="agentflow",
    )
    op.create_index(
        "run_idem_uq",
        "run",
        ["tenant", "idem_key"],
        unique=True,
        schema="agentflow",
        postgresql_where=sa.text("idem_key IS NOT NULL"),
    )
    op.create_index(
        "run_live_ix",
        "run",
        ["lease_until"],
        unique=False,
        schema="agentflow",
        postgresql_where=sa.text("status IN (0, 1)"),
    )
    op.create_index(
        "run_open_ix",
        "run",
        ["thread_id", "seq"],
        unique=False,
        schema="agentflow",
        postgresql_where=sa.text("status IN (0, 1)"),
    )
    op.create_table(
        "scope",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("user_ref", sa.Text(), nullable=True),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["agentflow.collection.id"],
            name=op.f("scope_collection_id_fk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("scope_pk")),
        sa.UniqueConstraint(
            "collection_id",
            "user_ref",
            "role_name",
            name=op.f("scope_collection_id_user_ref_role_name_uq"),
            postgresql_nulls_not_distinct=True,
        ),
        schema="agentflow",
    )


def downgrade() -> None:
    op.drop_table("scope", schema="agentflow")
    op.drop_index(
        "run_open_ix", table_name="run", schema="agentflow", postgresql_where=sa.text("status IN (0, 1)")
    )
    op.drop_index(
        "run_live_ix", table_name="run", schema="agentflow", postgresql_where=sa.text("status IN (0, 1)")
    )
    op.drop_index(
        "run_idem_uq", table_name="run", schema="agentflow", postgresql_where=sa.text("idem_key IS NOT NULL")
    )
    op.drop_table("run", schema="agentflow")
    op.drop_index("message_run_ix", table_name="message", schema="agentflow")
    op.drop_table("message", schema="agentflow")
    op.drop_index("thread_user_ix", table_name="thread", schema="agentflow")
    op.drop_index(
        "thread_client_uq",
        table_name="thread",
        schema="agentflow",
        postgresql_where=sa.text("client_ref IS NOT NULL"),
    )
    op.drop_table("thread", schema="agentflow")
    op.drop_index("outbox_due_ix", table_name="outbox", schema="agentflow")
    op.drop_table("outbox", schema="agentflow")
    op.drop_index(
        "memory_thread_ix",
        table_name="memory",
        schema="agentflow",
        postgresql_where=sa.text("thread_id IS NOT NULL"),
    )
    op.drop_index(
        "memory_source_uq",
        table_name="memory",
        schema="agentflow",
        postgresql_where=sa.text("source_message IS NOT NULL"),
    )
    op.drop_index("memory_position_ix", table_name="memory", schema="agentflow")
    op.drop_table("memory", schema="agentflow")
    op.drop_table("collection", schema="agentflow")
    op.execute(sa.schema.DropSequence(sa.Sequence("memory_id_seq", schema="agentflow")))
    op.execute(sa.schema.DropSequence(sa.Sequence("session_seq", schema="agentflow")))
