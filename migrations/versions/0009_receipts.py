"""A receipt knows its transaction, so that places of vectors can be asked whether they have heard of it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("receipt", "pending", schema="agentflow")
    op.drop_column("receipt", "done_at", schema="agentflow")
    op.add_column(
        "receipt",
        sa.Column(
            "written",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        schema="agentflow",
    )


def downgrade() -> None:
    op.drop_column("receipt", "written", schema="agentflow")
    pending = sa.Column("pending", sa.Integer(), server_default=sa.text("0"), nullable=False)
    op.add_column("receipt", pending, schema="agentflow")
    op.add_column(
        "receipt", sa.Column("done_at", sa.DateTime(timezone=True), nullable=True), schema="agentflow"
    )
