"""What was asked for under an idempotency key, where no run stands for it, and how it was answered."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.records.ownership import expose, protect

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

TELLING = ("idem_key", "headers", "body")


def upgrade() -> None:
    op.create_table(
        "claim",
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("user_ref", sa.Text(), server_default=sa.text("agentflow.user_ref()"), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("status", sa.SmallInteger()),
        sa.Column("headers", JSONB()),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "user_ref", "idem_key", name=op.f("claim_pk")),
        schema="agentflow",
    )
    # Nothing of it is to stand in the planner's samples once it is gone.
    changes = ", ".join(f"alter {column} set statistics 0" for column in TELLING)
    op.execute(f"alter table agentflow.claim {changes}")
    protect(op.execute, "claim", "user")


def downgrade() -> None:
    expose(op.execute, "claim")
    op.drop_table("claim", schema="agentflow")
