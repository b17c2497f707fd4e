"""When a thread was last changed is no part of an index: a turn rewrites its row within its page, and no index."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("drop index agentflow.thread_user_ix")
    op.execute("create index thread_user_ix on agentflow.thread (tenant, user_ref)")


def downgrade() -> None:
    op.execute("drop index agentflow.thread_user_ix")
    op.execute("create index thread_user_ix on agentflow.thread (tenant, user_ref, updated_at)")
