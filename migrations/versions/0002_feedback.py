"""Feedback: which role a turn should have had."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("user_ref", sa.Text(), nullable=False),
        sa.Column("said_role", sa.Text(), nullable=True),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("feedback_pk")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["agentflow.run.id"], name=op.f("feedback_run_id_fk"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("run_id", name=op.f("feedback_run_id_uq")),
        schema="agentflow",
    )
    op.create_index("feedback_status_ix", "feedback", ["status", "updated_at"], schema="agentflow")


def downgrade() -> None:
    op.drop_table("feedback", schema="agentflow")
