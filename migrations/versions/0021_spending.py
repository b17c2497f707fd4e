"""What each caller has used up of its limits, counted by all processes together."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.records.ownership import BACKGROUND

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# One row per caller, whose lock is the order of its requests. A window slides: of the last one counts the part that
# it still covers. Requests at once are told by each process for itself, and what a dead one told is forgotten.
SPEND = """
create function agentflow.spend(
  _caller bytea, _process text, _open int, _requests int, _hits int, _seconds int, _silence float8,
  out refusal text, out wait float8)
language plpgsql as $$
declare
  at float8 := extract(epoch from clock_timestamp());
  _slot bigint := floor(at / coalesce(_seconds, 1));
  part float8 := at / coalesce(_seconds, 1) - _slot;
  mine agentflow.spending;
  elsewhere int;
begin
  insert into agentflow.spending (caller) values (_caller) on conflict do nothing;
  select * into strict mine from agentflow.spending where caller = _caller for update;
  if mine.slot <> _slot then
    mine.before := case when mine.slot = _slot - 1 then mine.hits else 0 end;
    mine.hits := 0;
  end if;
  select coalesce(jsonb_object_agg(key, value), '{}'), coalesce(sum((value ->> 0)::int), 0) into mine.open, elsewhere
  from jsonb_each(mine.open) where key <> _process and (value ->> 1)::float8 > at - _silence;
  if elsewhere + _open > _requests then
    refusal := 'requests';
    wait := 1;
  elsif mine.hits >= _hits then
    refusal := 'rate';
    wait := (1 - part) * _seconds;
  elsif floor(mine.before * (1 - part)) + mine.hits >= _hits then
    refusal := 'rate';
    wait := (1 - part - (_hits - mine.hits)::float8 / mine.before) * _seconds;
  else
    mine.hits := mine.hits + 1;
  end if;
  update agentflow.spending
  set slot = _slot, hits = mine.hits, before = mine.before, seen = now(),
      open = mine.open || jsonb_build_object(_process, jsonb_build_array(_open - (refusal is not null)::int, at))
  where caller = _caller;
end $$
"""


def upgrade() -> None:
    op.create_table(
        "spending",
        sa.Column("caller", sa.LargeBinary(), nullable=False),
        sa.Column("slot", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("hits", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("before", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("caller", name=op.f("spending_pk")),
        schema="agentflow",
        prefixes=["unlogged"],
        postgresql_with={"fillfactor": 50},
    )
    op.execute("alter table agentflow.spending enable row level security")
    op.execute("alter table agentflow.spending force row level security")
    op.execute(
        f"create policy {BACKGROUND} on agentflow.spending to {BACKGROUND} using (true) with check (true)"
    )
    op.execute(f"grant select, insert, update, delete on agentflow.spending to {BACKGROUND}")
    op.execute(SPEND)


def downgrade() -> None:
    op.execute("drop function agentflow.spend(bytea, text, int, int, int, int, float8)")
    op.drop_table("spending", schema="agentflow")
