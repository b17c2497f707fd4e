"""Turns whose end is told to an address: which, and what is told."""

from dataclasses import dataclass

from agentflow.protocols import Owner
from agentflow.records import details
from agentflow.records.connections import Connections
from agentflow.records.details import TOLD
from agentflow.turn import Json

ENDED = f"""
select r.webhook, r.thread_id, r.status, r.error, {TOLD} from run r
where r.id = %(run)s and r.webhook is not null and r.status in (2, 3, 4)
"""  # noqa: S608 - constants
ASKED = "select webhook is not null from run where id = %(run)s and tenant = %(tenant)s"
STATUS = {2: "done", 3: "failed", 4: "cancelled"}


@dataclass(frozen=True)
class Due:
    """What is to be posted. `url` is secret: it may carry a signature."""

    url: str
    run_id: str
    told: Json


@dataclass(frozen=True)
class CallbackRecords:
    """Each method is one statement. Raises DatabaseDown."""

    connections: Connections

    async def due(self, run_id: str) -> Due | None:
        """The ended turn; of one that was forgotten or goes on again nobody is told."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(ENDED, {"run": run_id})).fetchone()
        if row is None:
            return None
        url, thread, status, error, *columns = row
        result = details.told(run_id, thread, columns)
        return Due(url, run_id, told(run_id, str(thread), STATUS[status], result, error))

    async def asked(self, run_id: str, *, tenant: int) -> bool:
        """Whether somebody wants to be called back."""
        async with self.connections.use(Owner(tenant)) as connection:
            row = await (await connection.execute(ASKED, {"run": run_id, "tenant": tenant})).fetchone()
        return bool(row and row[0])


def told(run_id: str, thread_id: str, status: str, result: Json | None, error: Json | None) -> Json:
    """What a caller learns of a turn, by callback or by asking: the answer once done, the reason once failed."""
    known: Json = {"run_id": run_id, "thread_id": thread_id, "status": status}
    if result is not None and status == "done":
        return {**result, **known}
    return known if error is None else {**known, "error": error}
