"""Callbacks are jobs of the library, asked for by the statement that ends the turn or run."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# As the owner of the schema: those who end runs know nothing of jobs. Its notification wakes a worker at the commit.
OWED = """
create or replace function agentflow.owe_callback() returns trigger
language plpgsql security definer set search_path = jobs, pg_temp as $$
begin
  perform procrastinate_defer_jobs_v1(array[row(
    'default', case when new.webhook is null then 'webhook' else 'callback' end, 0, null, null,
    case when new.webhook is null then jsonb_build_object('run_id', new.id, 'tenant', new.tenant, 'user', new.user_ref)
         else jsonb_build_object('run', new.id) end,
    null)::procrastinate_job_to_defer_v1]);
  return null;
end $$
"""
WITH_THE_END = """
create trigger run_callback after update of status on agentflow.run for each row
when (new.status in (2, 3, 4) and old.status is distinct from new.status
      and (new.webhook is not null or new.work ? 'webhook'))
execute function agentflow.owe_callback()
"""
# What is owed already, read across tenants.
OWING = """
select 'callback', o.payload, 'todo' from agentflow.outbox o where o.kind = 'callback'
union all
select 'webhook', jsonb_build_object('run_id', r.id, 'tenant', r.tenant, 'user', r.user_ref), 'todo'
from agentflow.run r where r.work ? 'webhook' and r.told is null and r.ended_at is not null
union all
select 'callback', o.payload || jsonb_build_object('reason', coalesce(o.last_error, '')), 'failed'
from agentflow.outbox o where o.kind = 'callback:dead'
"""
PAID = "delete from agentflow.outbox where kind in ('callback', 'callback:dead')"
HAND_OVER = """
insert into jobs.procrastinate_jobs (queue_name, task_name, args, status)
values ('default', :name, :payload, cast(:status as jobs.procrastinate_job_status))
"""
OWED_BEFORE = """
create or replace function agentflow.owe_callback() returns trigger
language plpgsql security invoker as $$
begin
  insert into agentflow.outbox (tenant, kind, payload)
  values (new.tenant, 'callback', jsonb_build_object('run', new.id));
  return null;
end $$
"""
WITH_THE_END_BEFORE = """
create trigger run_callback after update of status on agentflow.run for each row
when (new.webhook is not null and new.status in (2, 3, 4) and old.status is distinct from new.status)
execute function agentflow.owe_callback()
"""
UNTOLD = "work ? 'webhook' and told is null and ended_at is not null"


def upgrade() -> None:
    op.execute(OWED)
    op.execute("drop trigger run_callback on agentflow.run")
    op.execute(WITH_THE_END)
    connection = op.get_bind()
    op.execute("set local role agentflow_background")
    owing = connection.execute(sa.text(OWING)).fetchall()
    op.execute(PAID)
    op.execute("reset role")
    jobs = sa.text(HAND_OVER).bindparams(
        sa.bindparam("payload", type_=JSONB), sa.bindparam("name", type_=sa.Text)
    )
    # The library's triggers name its tables without their schema; these are there wherever anything can be owed.
    op.execute("set local search_path to jobs, public")
    for name, payload, status in owing:
        connection.execute(jobs, {"name": name, "payload": payload, "status": status})
    op.execute("reset search_path")
    op.drop_column("run", "told", schema="agentflow")


def downgrade() -> None:
    op.add_column("run", sa.Column("told", sa.Boolean()), schema="agentflow")
    op.create_index(
        "run_untold_ix", "run", ["ended_at"], schema="agentflow", postgresql_where=sa.text(UNTOLD)
    )
    op.execute("drop trigger run_callback on agentflow.run")
    op.execute(OWED_BEFORE)
    op.execute("alter function agentflow.owe_callback() reset all")
    op.execute(WITH_THE_END_BEFORE)
