"""A word's count is no part of an index: counting it once more rewrites its row within its page, and no index."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

KEY = """
alter table agentflow.term_stat drop constraint term_stat_pk, add constraint term_stat_pk primary key (scope_id, term)
"""


def upgrade() -> None:
    op.execute(KEY)


def downgrade() -> None:
    op.execute(KEY + " include (df)")
