"""Crons: at its time each begins a run, and asks to be woken at the next."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from agentflow.errors import AgentflowError, DatabaseDown
from agentflow.records.jobs import Jobs
from agentflow.records.protocol.crons import Crons
from agentflow.runs.schedule import next_time
from agentflow.turn import Json

log = structlog.get_logger(__name__)
JOB = "cron"
Begin = Callable[[Json], Awaitable[None]]
"""Begins the run of a cron's row. Raises AgentflowError."""


@dataclass(frozen=True)
class Clock:
    """One job waits for each cron's next time; `sweep` asks again for those that were lost."""

    crons: Crons
    jobs: Jobs
    begin: Begin
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def wake(self, cron: Json) -> None:
        """Ask to be woken at the cron's next time. Raises DatabaseDown."""
        if cron["enabled"] and cron["next_run_date"] is not None:
            at = datetime.fromisoformat(cron["next_run_date"]).astimezone(UTC)
            await self.jobs.defer(JOB, {"cron_id": cron["cron_id"]}, once=f"{cron['cron_id']} {at}", at=at)

    async def strike(self, payload: Json) -> None:
        """Begin the run, if the cron is still there and due, and wait for the next; a lost database is tried again.

        Raises DatabaseDown.
        """
        for cron in await self.crons.due(cron_id=payload["cron_id"]):
            following = next_time(cron["schedule"], cron["timezone"], self.now())
            try:
                await self.begin(cron)
            except DatabaseDown:
                raise
            except AgentflowError as error:
                log.warning("cron could not begin its run", cron_id=cron["cron_id"], reason=error.message)
            if await self.crons.fired(cron["cron_id"], was=cron["due"], next_at=following):
                await self.wake({**cron, "next_run_date": following.isoformat()})

    async def sweep(self) -> None:
        """Wake what is due and was forgotten: its job was lost with a database restored, or never kept.

        Where that job is still there, or at work, it is the same one: a cron begins once at a time.
        """
        for cron in await self.crons.due(cron_id=None):
            await self.wake(cron)
