"""A memory's digest was only needed by receipts, which make it from the text."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("memory", "content_hash", schema="agentflow")


def downgrade() -> None:
    op.add_column("memory", sa.Column("content_hash", sa.LargeBinary()), schema="agentflow")
    op.execute("alter table agentflow.memory no force row level security")
    op.execute("update agentflow.memory set content_hash = sha256(convert_to(content, 'UTF8'))")
    op.execute("alter table agentflow.memory force row level security")
    op.alter_column("memory", "content_hash", nullable=False, schema="agentflow")
