"""What belongs to the owner's rights: documents, links of derived memories, receipts, pins, earlier wordings."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FORMER = "scope_collection_id_user_ref_role_name_uq"


def tenant() -> sa.Column:
    return sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False)


def at(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    op.add_column("scope", sa.Column("thread_id", sa.Uuid(), nullable=True), schema="agentflow")
    op.drop_constraint(op.f(FORMER), "scope", schema="agentflow", type_="unique")
    op.create_unique_constraint(
        op.f("scope_collection_id_user_ref_role_name_thread_id_uq"),
        "scope",
        ["collection_id", "user_ref", "role_name", "thread_id"],
        schema="agentflow",
        postgresql_nulls_not_distinct=True,
    )
    for column in (
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=True),
        sa.Column("history", JSONB(), server_default=sa.text("'[]'"), nullable=False),
    ):
        op.add_column("memory", column, schema="agentflow")
    op.create_index(
        "memory_document_ix", "memory", ["document_id"], schema="agentflow",
        postgresql_where=sa.text("document_id IS NOT NULL"),
    )  # fmt: skip
    op.create_index(
        "memory_pinned_ix", "memory", ["scope_id"], schema="agentflow", postgresql_where=sa.text("pinned")
    )
    op.create_index(
        "memory_expires_ix", "memory", ["expires_at"], schema="agentflow",
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )  # fmt: skip
    _documents()
    op.create_table(
        "link",
        tenant(),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "source_id", name=op.f("link_pk")),
        schema="agentflow",
    )
    op.create_index("link_source_ix", "link", ["source_id"], schema="agentflow")
    _receipts()


def _documents() -> None:
    op.create_table(
        "document",
        sa.Column("id", sa.BigInteger(), nullable=False),
        tenant(),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("user_ref", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "session_id",
            sa.BigInteger(),
            server_default=sa.text("nextval('agentflow.session_seq')"),
            nullable=False,
        ),
        at("created_at"),
        at("updated_at"),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["agentflow.collection.id"],
            name=op.f("document_collection_id_fk"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["scope_id"], ["agentflow.scope.id"], name=op.f("document_scope_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("document_pk")),
        sa.UniqueConstraint("scope_id", "name", name=op.f("document_scope_id_name_uq")),
        schema="agentflow",
    )


def _receipts() -> None:
    op.create_table(
        "receipt",
        sa.Column("id", sa.Uuid(), nullable=False),
        tenant(),
        sa.Column("owner", sa.LargeBinary(), nullable=False),
        sa.Column("selected_by", sa.Text(), nullable=False),
        sa.Column("selector", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("counts", JSONB(), nullable=False),
        sa.Column("pending", sa.Integer(), server_default=sa.text("0"), nullable=False),
        at("created_at"),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("receipt_pk")),
        schema="agentflow",
    )
    op.create_index("receipt_owner_ix", "receipt", ["tenant", "owner", "created_at"], schema="agentflow")


def downgrade() -> None:
    for table in ("receipt", "link", "document"):
        op.drop_table(table, schema="agentflow")
    for name in ("memory_expires_ix", "memory_pinned_ix", "memory_document_ix"):
        op.drop_index(name, "memory", schema="agentflow")
    for column in ("history", "document_id", "pinned"):
        op.drop_column("memory", column, schema="agentflow")
    op.drop_constraint(
        op.f("scope_collection_id_user_ref_role_name_thread_id_uq"),
        "scope",
        schema="agentflow",
        type_="unique",
    )
    op.execute("delete from agentflow.scope where thread_id is not null")
    op.drop_column("scope", "thread_id", schema="agentflow")
    op.create_unique_constraint(
        op.f(FORMER),
        "scope",
        ["collection_id", "user_ref", "role_name"],
        schema="agentflow",
        postgresql_nulls_not_distinct=True,
    )
