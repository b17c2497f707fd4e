"""The words of a collection with their vectors, and which are near which."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "word",
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("embedding", HALFVEC(), nullable=True),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["agentflow.collection.id"],
            name=op.f("word_collection_id_fk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "term", name=op.f("word_pk")),
        schema="agentflow",
    )
    op.execute("alter table agentflow.word alter column embedding set storage plain")
    op.create_index(
        "word_owed_ix",
        "word",
        ["collection_id"],
        unique=False,
        schema="agentflow",
        postgresql_where=sa.text("embedding IS NULL"),
    )
    op.create_table(
        "related",
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("near", sa.Integer(), nullable=False),
        sa.Column("nearness", sa.REAL(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["agentflow.collection.id"],
            name=op.f("related_collection_id_fk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "collection_id", "term", "near", name=op.f("related_pk"), postgresql_include=["nearness"]
        ),
        schema="agentflow",
    )


def downgrade() -> None:
    op.drop_table("related", schema="agentflow")
    op.drop_table("word", schema="agentflow")
