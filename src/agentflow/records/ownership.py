"""Whose row is it: row-level security, the roles it is written for, and the statements that protect a table.

Two roles of the database do the work, neither an owner of a table nor able to pass by its policies: `agentflow_app`
sees the rows of one owner, named anew by every statement (connections.py), and without a name none at all;
`agentflow_background` is for work across tenants: recovery, the relay, the sweeps. Every table is protected by force,
so that not even its owner passes by accident.
"""

from collections.abc import Callable
from typing import Literal

APP, BACKGROUND = "agentflow_app", "agentflow_background"
ROLES = (APP, BACKGROUND)
OWNED = "select set_config('agentflow.tenant', %s, true), set_config('agentflow.user', %s, true)"
"""Until the transaction's end; the user is "=name", or "*" for everybody of the tenant."""
OWNED_FIXED = f"{OWNED}, set_config('plan_cache_mode', 'force_generic_plan', true)"
"""The same for a statement that is planned once per connection: planning it costs more than it can gain."""

FUNCTIONS = (
    """
create function agentflow.tenant() returns int language sql stable parallel safe
  return nullif(current_setting('agentflow.tenant', true), '')::int
""",
    """
create function agentflow.user_ref() returns text language sql stable parallel safe
  return case when left(current_setting('agentflow.user', true), 1) = '='
              then substr(current_setting('agentflow.user', true), 2) end
""",
    """
create function agentflow.everybody() returns boolean language sql stable parallel safe
  return coalesce(current_setting('agentflow.user', true) = '*', false)
""",
    """
create function agentflow.scopes() returns int[] language plpgsql stable parallel safe as $$
begin
  if agentflow.everybody() then
    return array(select id from agentflow.scope where tenant = agentflow.tenant());
  end if;
  return array(select id from agentflow.scope where tenant = agentflow.tenant() and user_ref is null
               union all
               select id from agentflow.scope where tenant = agentflow.tenant() and user_ref = agentflow.user_ref());
end $$
""",
)
FUNCTION_NAMES = ("scopes", "everybody", "user_ref", "tenant")

_TENANT = "tenant = (select agentflow.tenant())"
_USER = "(user_ref = (select agentflow.user_ref()) or (select agentflow.everybody()))"
_SHARED = "(user_ref is null or user_ref = (select agentflow.user_ref()) or (select agentflow.everybody()))"
# "is true" keeps the planner from probing an index once per scope: statements name theirs.
_SCOPE = "(scope_id = any ((select agentflow.scopes())::int[])) is true"

Kind = Literal["tenant", "user", "shared", "scope"]
VISIBLE: dict[Kind, str] = {
    "tenant": _TENANT,
    "user": f"{_TENANT} and {_USER}",
    "shared": f"{_TENANT} and {_SHARED}",
    "scope": _SCOPE,
}


def protect(execute: Callable[[str], object], table: str, kind: Kind, *, schema: str = "agentflow") -> None:
    """Give the table to the two roles, each row to whom it belongs. A revision calls it once per new table.

    `tenant`: column tenant, every user of the tenant sees it. `user`: tenant and user_ref. `shared`: the same, but a
    row without user_ref is everybody's of the tenant. `scope`: by the scope that the column scope_id names.
    """
    name = f"{schema}.{table}"
    execute(f"alter table {name} enable row level security")
    execute(f"alter table {name} force row level security")
    for role, rule in ((APP, VISIBLE[kind]), (BACKGROUND, "true")):
        execute(f"drop policy if exists {role} on {name}")
        execute(f"create policy {role} on {name} to {role} using ({rule}) with check ({rule})")
    execute(f"grant select, insert, update, delete on {name} to {APP}, {BACKGROUND}")
    execute(f"grant usage, select on all sequences in schema {schema} to {APP}, {BACKGROUND}")


def lock_away(execute: Callable[[str], object], table: str, *, schema: str = "agentflow") -> None:
    """For partitions: they are reached through their parent, whose policies decide, and never by name."""
    execute(f"alter table {schema}.{table} enable row level security")
    execute(f"alter table {schema}.{table} force row level security")


def expose(execute: Callable[[str], object], table: str, *, schema: str = "agentflow") -> None:
    """Take the protection back, for `downgrade`."""
    for role in ROLES:
        execute(f"drop policy if exists {role} on {schema}.{table}")
    execute(f"alter table {schema}.{table} no force row level security")
    execute(f"alter table {schema}.{table} disable row level security")
    execute(f"revoke all on {schema}.{table} from {APP}, {BACKGROUND}")
