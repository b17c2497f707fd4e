"""What stateless clients send beside their message, and how their transcripts find a turn again."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("given", JSONB(none_as_null=True)), schema="agentflow")
    op.add_column("run", sa.Column("exchange", sa.LargeBinary()), schema="agentflow")
    op.create_index(
        "run_exchange_ix",
        "run",
        ["tenant", "exchange"],
        schema="agentflow",
        postgresql_where=sa.text("exchange IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("run_exchange_ix", "run", schema="agentflow")
    op.drop_column("run", "exchange", schema="agentflow")
    op.drop_column("run", "given", schema="agentflow")
