"""API keys: what of them may be known, which is never the key."""

import sqlalchemy as sa
from alembic import op

from agentflow.records.ownership import protect

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("user_ref", sa.Text(), server_default=sa.text("agentflow.user_ref()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pk")),
        sa.UniqueConstraint("digest", name=op.f("api_key_digest_uq")),
        schema="agentflow",
    )
    op.create_index("api_key_name_ix", "api_key", ["tenant", "name"], schema="agentflow")
    protect(op.execute, "api_key", "tenant")


def downgrade() -> None:
    op.drop_table("api_key", schema="agentflow")
