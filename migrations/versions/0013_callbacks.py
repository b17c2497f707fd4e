"""A turn may owe a callback: the row is written with the turn's end, whatever ends it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

OWED = """
create function agentflow.owe_callback() returns trigger language plpgsql as $$
begin
  insert into agentflow.outbox (tenant, kind, payload)
  values (new.tenant, 'callback', jsonb_build_object('run', new.id));
  return null;
end $$
"""
WITH_THE_END = """
create trigger run_callback after update of status on agentflow.run for each row
when (new.webhook is not null and new.status in (2, 3, 4) and old.status is distinct from new.status)
execute function agentflow.owe_callback()
"""


def upgrade() -> None:
    op.add_column("run", sa.Column("webhook", sa.Text()), schema="agentflow")
    op.execute(OWED)
    op.execute(WITH_THE_END)


def downgrade() -> None:
    op.execute("drop trigger run_callback on agentflow.run")
    op.execute("drop function agentflow.owe_callback()")
    op.drop_column("run", "webhook", schema="agentflow")
