"""Every look, one after the other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import structlog

from agentflow.errors import AgentflowError, DatabaseDown
from agentflow.wiring.checkup import database, host, model
from agentflow.wiring.checkup.row import Row
from agentflow.wiring.place import Place

log = structlog.get_logger(__name__)
WAYS: Mapping[type[AgentflowError], str] = {
    DatabaseDown: "start Postgres, or mend postgres.url (or DATABASE_URL)"
}
WITHIN = 30.0
"""Seconds that one look may take."""


async def checkup(place: Place) -> AsyncIterator[Row]:
    """Look at everything, each for some seconds at most; what breaks is a row too."""
    looks: Sequence[tuple[str, Callable[[Place], Awaitable[Sequence[Row]]]]] = (
        ("versions", host.versions),
        ("machine", host.machine),
        ("address", host.address),
        ("access", host.access),
        ("database", database.database),
        ("engine", model.engine),
        ("embedder", model.embedder),
        ("adapters", model.adapters),
        ("plan", model.plan),
    )
    for what, look in looks:
        try:
            async with asyncio.timeout(WITHIN):
                rows = await look(place)
        except TimeoutError:
            rows = [Row(what, "mistake", f"no answer within {WITHIN:g} s")]
        except AgentflowError as error:
            rows = [Row(what, "mistake", error.message, WAYS.get(type(error), ""))]
        except Exception as error:  # noqa: BLE001 - one look that breaks must not hide the others
            log.warning("a look of doctor broke", what=what, reason=repr(error))
            rows = [Row(what, "mistake", f"could not be looked at: {error!r}", "tell us: this is our fault")]
        for row in rows:
            yield row
