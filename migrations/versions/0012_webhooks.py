"""Which ended runs have not been told to their webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("told", sa.Boolean(), nullable=True), schema="agentflow")
    op.create_index(
        "run_untold_ix",
        "run",
        ["ended_at"],
        schema="agentflow",
        postgresql_where=sa.text("work ? 'webhook' AND told IS NULL AND ended_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("run_untold_ix", "run", schema="agentflow")
    op.drop_column("run", "told", schema="agentflow")
