"""What is forgotten is in no sample of the planner's and in no job.

Postgres notes frequent and typical values of every column. These columns are never compared with anything that such
samples would help to plan; what was noted of them goes, where this role may see to that. A job that tells of a run
names its user and its address, and goes with the run.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COLUMNS = {
    "thread": ("client_ref", "title", "meta", "state", "interrupts", "error"),
    "run": ("idem_key", "given", "webhook", "details", "error", "work", "meta"),
    "message": ("content", "meta"),
    "memory": ("speaker", "content", "meta", "history"),
    "document": ("name",),
    "word": ("word",),
    "outbox": ("payload", "last_error"),
    "feedback": ("content",),
    "run_event": ("data",),
    "cron": ("work", "meta"),
}
CLEAN = """
do $$ begin
  delete from pg_statistic s using pg_attribute a
  where s.starelid = a.attrelid and s.staattnum = a.attnum and a.attstattarget = 0
    and a.attrelid in (select oid from pg_class where relnamespace = 'agentflow'::regnamespace);
exception when insufficient_privilege then
  raise notice 'samples of texts stay in pg_statistic: only a superuser removes them';
end $$
"""

# As the owner of the schema, as the jobs were asked for. One that is being done ends by itself: its run is gone.
GONE = """
create function agentflow.drop_jobs() returns trigger
language plpgsql security definer set search_path = jobs, pg_temp as $$
begin
  delete from procrastinate_jobs
  where task_name in ('callback', 'webhook') and status <> 'doing'
    and old.id::text in (args ->> 'run', args ->> 'run_id');
  update procrastinate_jobs
  set args = (args - 'reason') || case when args ? 'user' then '{"user": ""}'::jsonb else '{}'::jsonb end
  where task_name in ('callback', 'webhook') and old.id::text in (args ->> 'run', args ->> 'run_id');
  return null;
end $$
"""
WITH_THE_RUN = """
create trigger run_jobs after delete on agentflow.run for each row
when (old.webhook is not null or old.work ? 'webhook') execute function agentflow.drop_jobs()
"""


def upgrade() -> None:
    op.execute(GONE)
    op.execute(WITH_THE_RUN)
    for table, columns in COLUMNS.items():
        changes = ", ".join(f"alter {column} set statistics 0" for column in columns)
        op.execute(f"alter table agentflow.{table} {changes}")
    op.execute(CLEAN)


def downgrade() -> None:
    op.execute("drop trigger run_jobs on agentflow.run")
    op.execute("drop function agentflow.drop_jobs")
    for table, columns in COLUMNS.items():
        changes = ", ".join(f"alter {column} set statistics -1" for column in columns)
        op.execute(f"alter table agentflow.{table} {changes}")
