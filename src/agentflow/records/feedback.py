"""Feedback: which role a turn should have had. Once accepted it is a lesson for the router."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentflow.errors import NotFound
from agentflow.protocols import Owner
from agentflow.records.connections import Connections
from agentflow.records.signals import LESSONS
from agentflow.routing.roles import Lesson
from agentflow.turn import Json

STATUS: tuple[Literal["waiting", "accepted", "rejected"], ...] = ("waiting", "accepted", "rejected")

# The turn's message with the role it should have had; said again, the later word counts.
GIVE = """
insert into feedback (tenant, run_id, user_ref, said_role, role_name, content, status)
select r.tenant, r.id, t.user_ref, r.role_name, %(role)s, left(m.content, %(chars)s), %(status)s
from run r join thread t on t.id = r.thread_id join message m on m.thread_id = r.thread_id and m.seq = r.seq
where r.id = %(run)s and r.tenant = %(tenant)s
on conflict (run_id) do update set role_name = excluded.role_name, status = excluded.status, updated_at = now()
returning id, run_id, said_role, role_name, content, status
"""
TELL = "select pg_notify('agentflow', %(told)s)"
LISTED = """
select id, run_id, said_role, role_name, content, status from feedback
where tenant = %(tenant)s and status = %(status)s order by updated_at, id limit %(limit)s
"""
REVIEW = """
update feedback set status = %(status)s, updated_at = now() where id = %(id)s and tenant = %(tenant)s
returning id, run_id, said_role, role_name, content, status
"""
ACCEPTED = "select role_name, content from feedback where status = 1 order by updated_at, id"


@dataclass(frozen=True)
class Feedback:
    """The feedback table. Other processes than this one, which is called `process`, are told of every change."""

    connections: Connections
    process: str = ""

    async def give(self, run_id: str, role: str | None, *, owner: Owner, accepted: bool, chars: int) -> Json:
        """Store which role (None: no role at all) the turn's message is for. Raises NotFound."""
        parameters = {
            "run": run_id,
            "role": role,
            "tenant": owner.tenant,
            "status": int(accepted),
            "chars": chars,
        }
        rows = await self._changed(owner, GIVE, parameters)
        if not rows:
            raise NotFound(f"There is no turn {run_id}.", field="run_id", value=run_id)
        return rows[0]

    async def listed(self, status: str, *, tenant: int, limit: int = 1000) -> list[Json]:
        """What waits, was accepted or was rejected, oldest first."""
        parameters = {"tenant": tenant, "status": STATUS.index(status), "limit": limit}
        return await self._rows(Owner(tenant), LISTED, parameters)

    async def review(self, number: int, *, accept: bool, tenant: int) -> Json:
        """Accept or reject. Raises NotFound."""
        parameters = {"id": number, "status": 1 if accept else 2, "tenant": tenant}
        rows = await self._changed(Owner(tenant), REVIEW, parameters)
        if not rows:
            raise NotFound(f"There is no feedback {number}.", field="id", value=number)
        return rows[0]

    async def lessons(self) -> Sequence[Lesson]:
        """Everything accepted, oldest first."""
        async with self.connections.background() as connection:
            cursor = await connection.execute(ACCEPTED)
            return [Lesson(role, text) for role, text in await cursor.fetchall()]

    async def _changed(self, owner: Owner, statement: str, parameters: Json) -> list[Json]:
        async with self.connections.use(owner) as connection, connection.transaction():
            rows = await (await connection.execute(statement.encode(), parameters)).fetchall()
            await connection.execute(TELL, {"told": f"{LESSONS} given {self.process}"})
        return [_shown(row) for row in rows]

    async def _rows(self, owner: Owner, statement: str, parameters: Json) -> list[Json]:
        async with self.connections.use(owner) as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return [_shown(row) for row in await cursor.fetchall()]


def _shown(row: Any) -> Json:
    number, run, said, role, text, status = row
    return {
        "id": number,
        "run_id": str(run),
        "said_role": said,
        "role": role,
        "text": text,
        "status": STATUS[status],
    }
