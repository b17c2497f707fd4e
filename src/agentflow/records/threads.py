"""Threads beside their turns: what a next message would find, and the role pinned to them."""

from dataclasses import dataclass

from agentflow.errors import NotFound
from agentflow.protocols import Owner
from agentflow.records.branches import PARTS as PARTS_OF
from agentflow.records.connections import Connections
from agentflow.records.details import offered
from agentflow.turn import Context

PARTS = PARTS_OF.format(thread="t.id", top="top.seq")
# What a message would find in the thread if it came now.
CONTEXT = f"""
select t.role_name, t.pinned_role, coalesce(extract(epoch from now() - last.ended_at), 0)::float8, last.details,
       coalesce((select jsonb_agg(h.content order by h.seq)
                 from (select r.seq, m.content
                       from (select max(seq) as seq from run where thread_id = t.id) top
                       cross join {PARTS}
                       join run r on r.thread_id = t.id and r.seq between part.low and part.high
                       join message m on m.run_id = r.id
                       where m.role = 2 and r.status = 2 and r.kind in (1, 5)
                       order by r.seq desc limit %(messages)s) h), '[]'::jsonb)
from thread t
left join lateral (
  select ended_at, details from run r where r.thread_id = t.id and r.status = 2
  order by r.seq desc limit 1) last on true
where t.id = %(thread)s and t.tenant = %(tenant)s and t.user_ref = %(user)s
"""  # noqa: S608 - constants
PIN = """
update thread set pinned_role = %(role)s, updated_at = now()
where id = %(thread)s and tenant = %(tenant)s and user_ref = %(user)s
"""


@dataclass(frozen=True)
class Threads:
    """The thread table, for doors."""

    connections: Connections

    async def context(self, thread_id: str, text: str, *, tenant: int, user: str, messages: int) -> Context:
        """What `text` would be seen with, as the thread's next message. Raises NotFound."""
        parameters = {"thread": thread_id, "tenant": tenant, "user": user, "messages": messages}
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(CONTEXT.encode(), parameters)
            row = await cursor.fetchone()
        if row is None:
            raise _unknown(thread_id)
        role, pinned, idle, details, said = row
        return {
            "text": text,
            "history": [{"role": "user", "content": one} for one in said],
            "role": role,
            "pinned_role": pinned,
            "idle": idle,
            "offered": offered(details),
        }

    async def pin(self, thread_id: str, role: str | None, *, tenant: int, user: str) -> None:
        """Every later turn gets this role, until another is asked for; None takes the pin away.

        Raises NotFound.
        """
        parameters = {"thread": thread_id, "role": role, "tenant": tenant, "user": user}
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(PIN, parameters)
        if cursor.rowcount != 1:
            raise _unknown(thread_id)


def _unknown(thread_id: str) -> NotFound:
    return NotFound(f"There is no thread {thread_id} for this user.", field="thread_id", value=thread_id)
