"""Callbacks that are owed: rows of the outbox, written with the end of their turn by the trigger run_callback."""

from dataclasses import dataclass
from typing import Any

from agentflow.records import details
from agentflow.records.connections import Connections
from agentflow.records.details import TOLD
from agentflow.turn import Json

# Taken for a while: if this process dies meanwhile, another one tries again.
DUE = f"""
with due as (
  select o.id, (o.payload ->> 'run')::uuid as run from outbox o where o.kind = 'callback' and o.not_before <= now()
  order by o.not_before for update skip locked limit %(limit)s)
update outbox o set attempts = o.attempts + 1, not_before = now() + %(hold)s * interval '1 second'
from due left join run r on r.id = due.run
where o.id = due.id
returning o.id, o.attempts, r.webhook, r.id, r.thread_id, r.status, r.error, {TOLD}
"""  # noqa: S608 - constants
LATER = """
update outbox set last_error = %(reason)s, not_before = now() + %(pause)s * interval '1 second' where id = %(id)s
"""
DEAD = "update outbox set kind = 'callback:dead', last_error = %(reason)s where id = %(id)s"
TAKEN = "delete from outbox where id = %(id)s"
STATUS = {2: "done", 3: "failed", 4: "cancelled"}


@dataclass(frozen=True)
class Due:
    """A callback to be posted now, for the `tries`-th time. `url` is secret: it may carry a signature."""

    id: int
    tries: int
    url: str
    run_id: str
    told: Json


@dataclass(frozen=True)
class CallbackRecords:
    """Each method is one statement. Raises DatabaseDown."""

    connections: Connections

    async def due(self, *, limit: int, hold: float) -> list[Due]:
        """What is due, held back from others for `hold` seconds. Of a turn forgotten meanwhile nobody is told."""
        async with self.connections.background() as connection:
            cursor = await connection.execute(DUE.encode(), {"limit": limit, "hold": hold})
            rows = await cursor.fetchall()
        for number, *rest in rows:
            if rest[2] is None:
                await self.taken(number)
        return [_due(row) for row in rows if row[3] is not None]

    async def later(self, number: int, reason: str, pause: float) -> None:
        """Again after `pause` seconds."""
        await self._run(LATER, {"id": number, "reason": reason, "pause": pause})

    async def give_up(self, number: int, reason: str) -> None:
        """Never again; the row stays, with its reason."""
        await self._run(DEAD, {"id": number, "reason": reason})

    async def taken(self, number: int) -> None:
        """Delivered."""
        await self._run(TAKEN, {"id": number})

    async def _run(self, statement: str, parameters: Json) -> None:
        async with self.connections.background() as connection:
            await connection.execute(statement.encode(), parameters)


def _due(row: tuple[Any, ...]) -> Due:
    number, tries, url, run, thread, status, error, *columns = row
    result = details.told(run, thread, columns)
    known = told(str(run), str(thread), STATUS[status], result, error)
    return Due(number, tries, url, str(run), known)


def told(run_id: str, thread_id: str, status: str, result: Json | None, error: Json | None) -> Json:
    """What a caller learns of a turn, by callback or by asking: the answer once done, the reason once failed."""
    known: Json = {"run_id": run_id, "thread_id": thread_id, "status": status}
    if result is not None and status == "done":
        return {**result, **known}
    return known if error is None else {**known, "error": error}
