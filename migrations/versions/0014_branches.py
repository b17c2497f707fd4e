"""A turn may go on from an earlier place of its thread: its question was edited, or its answer asked for again."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("follows", sa.Integer()), schema="agentflow")
    op.create_index(
        "run_branch_ix",
        "run",
        ["thread_id", "seq"],
        schema="agentflow",
        postgresql_where=sa.text("follows IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("run_branch_ix", "run", schema="agentflow")
    op.drop_column("run", "follows", schema="agentflow")
