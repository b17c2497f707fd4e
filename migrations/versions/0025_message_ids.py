"""Nobody looks for a message by its id, which follows from its run's: no index for it."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table agentflow.message drop constraint message_id_uq")


def downgrade() -> None:
    op.execute("alter table agentflow.message add constraint message_id_uq unique (id)")
