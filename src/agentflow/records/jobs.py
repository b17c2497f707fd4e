"""Jobs in the background: named, kept in Postgres until they are done, tried again when they fail.

Runs are not jobs: their order per thread and their fencing are the ledger's. docs/decisions has the choice.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import procrastinate
import psycopg
import structlog
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from psycopg_pool import PoolTimeout

from agentflow.errors import AgentflowError, DatabaseDown
from agentflow.records.connections import returned
from agentflow.records.job_tables import SCHEMA
from agentflow.turn import Json

log = structlog.get_logger(__name__)
OPTIONS = f"-c search_path={SCHEMA} -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s"
TRIES = 8
GROWTH = 2
"""Seconds before the second try; every later one waits so many times longer."""
AT_ONCE = 32
OURS = 10
"""The priority of what is done here; calls to the world, which may hang, come after it with 0."""
GRACE = 3.0
"""Seconds that a stop waits for jobs; what is cut off is done again by whoever is next."""
SILENCE = 30
"""Seconds without a heartbeat after which a worker counts as dead."""
KEPT_HOURS = 30 * 24
"""For so long a job that was given up can be looked at, with its reason."""
Handler = Callable[[Json], Awaitable[None]]

# The library keeps no reasons: they are noted in the payload, which the handler gets again.
NOTE = "update procrastinate_jobs set args = args || %(noted)s where id = %(id)s"
AWAITED = "select from procrastinate_jobs where queueing_lock = %(lock)s and status = 'todo'"
TROUBLED = """
select args, status, attempts, scheduled_at from procrastinate_jobs
where task_name = %(name)s and args ->> %(key)s = %(value)s and args ? 'reason' order by id desc limit 1
"""
GIVEN_UP = """
select task_name, coalesce(args ->> 'reason', 'no reason was noted') as reason, count(*) as jobs, max(id) as newest
from procrastinate_jobs
where status = 'failed' group by 1, 2 order by newest desc limit %(limit)s
"""
COUNTED = """
select task_name, case status when 'failed' then 'failed' when 'doing' then 'running' else 'waiting' end as status,
       count(*) as jobs
from procrastinate_jobs group by 1, 2
"""


class Later(AgentflowError):
    """Raised by a handler to be called again after `pause` seconds, however often that was; with `noted`."""

    def __init__(self, message: str, *, pause: float, noted: Json | None = None) -> None:
        super().__init__(message)
        self.pause = pause
        self.noted = noted or {}


class GivenUp(AgentflowError):
    """Raised by a handler whose job can never be done; it stays visible, with the message as its reason."""

    def __init__(self, message: str, *, noted: Json | None = None) -> None:
        super().__init__(message)
        self.noted = noted or {}


@dataclass(frozen=True)
class Patience(procrastinate.BaseRetryStrategy):
    """When a job that failed is tried again: as its handler says, else after pauses that grow."""

    tries: int = TRIES

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision | None:
        """See the library."""
        if isinstance(exception, Later):
            return _after(exception.pause)
        if isinstance(exception, GivenUp) or (
            isinstance(exception, Exception) and job.attempts >= self.tries
        ):
            return None
        return _after(GROWTH ** min(job.attempts + 1, self.tries))


@dataclass
class Jobs:
    """`on` and `every` name what is done; `defer` asks for it, from any process; `run` does it.

    A handler gets the payload: ids, never texts or secrets. It may be called twice for one job, and raises to be
    tried again.
    """

    dsn: str
    app: procrastinate.App = field(init=False)
    worker: int | None = None
    at_work: set[int] = field(default_factory=set)
    orphans: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        connector = procrastinate.PsycopgConnector(
            conninfo=self.dsn,
            min_size=1,
            max_size=4,
            kwargs={"options": OPTIONS, "connect_timeout": 5},
            reset=returned,
        )
        self.app = procrastinate.App(connector=connector)

    def on(self, name: str, handler: Handler) -> None:
        """Do jobs of this name so; before `run`."""

        async def work(context: procrastinate.JobContext, /, **payload: Any) -> None:
            async with self._at_work(context.job):
                await handler(payload)

        self.app.task(name=name, pass_context=True, retry=Patience())(work)

    def every(self, cron: str, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do this at the times of a cron line, in one of all processes; before `run`. A failure waits for the next."""

        async def again(context: procrastinate.JobContext, timestamp: int) -> None:  # noqa: ARG001 - the library's
            async with self._at_work(context.job):
                await work()

        task = self.app.task(name=name, pass_context=True, queueing_lock=name, lock=name, priority=OURS)(
            again
        )
        self.app.periodic(cron=cron)(task)

    async def open(self) -> None:
        """Connect. Raises DatabaseDown."""
        try:
            await self.app.open_async()
        except (ConnectorException, PoolTimeout, psycopg.Error) as error:
            raise DatabaseDown(f"Jobs cannot be kept: {error}.", retry_after=2) from error

    async def close(self) -> None:
        await self.app.close_async()

    async def defer(self, name: str, payload: Json, *, once: str, at: datetime | None = None) -> bool:
        """Ask for a job, at a time or at once; False while one with the same `once` still waits.

        Raises DatabaseDown.
        """
        wanted = self.app.configure_task(
            name,
            allow_unknown=True,
            schedule_at=at,
            queueing_lock=f"{name} {once}",
            lock=f"{name} {once}",
            priority=OURS,
        )
        try:
            async with _lost_is_down():
                await wanted.defer_async(**payload)
        except AlreadyEnqueued:
            return False
        return True

    async def run(self) -> None:
        """Do jobs for ever; woken by Postgres, so that none waits for a look."""
        await self.app.run_worker_async(
            concurrency=AT_ONCE,
            install_signal_handlers=False,
            delete_jobs="successful",
            shutdown_graceful_timeout=GRACE,
            stalled_worker_timeout=SILENCE,
        )

    async def revive(self, *, alone: bool = False) -> int:
        """Give back jobs whose worker has died, and those whose end could not be written; how many.

        `alone`: nobody else works here, so whatever is begun has no worker. Raises DatabaseDown.
        """
        async with _lost_is_down():
            stalled = await self.app.job_manager.get_stalled_jobs(
                seconds_since_heartbeat=0 if alone else SILENCE
            )
            found = {job.id: job for job in [*stalled, *await self._orphaned()]}
            for job in found.values():
                await self._given_back(job)
        return len(found)

    async def tidy(self) -> None:
        """Remove what was given up long ago. Raises DatabaseDown."""
        async with _lost_is_down():
            await self.app.job_manager.delete_old_jobs(nb_hours=KEPT_HOURS, include_failed=True)

    async def trouble(self, name: str, key: str, value: str) -> Json | None:
        """The newest job with this in its payload, if it has failed: `status`, `tries`, `reason` and `next` time."""
        rows = await self._rows(TROUBLED, name=name, key=key, value=value)
        for row in rows:
            status = "given up" if row["status"] == "failed" else "waiting"
            at = row["scheduled_at"] if status == "waiting" else None
            tries = row["args"].get("tries", row["attempts"])
            return {
                "status": status,
                "tries": tries,
                "reason": row["args"]["reason"],
                "next": at and at.isoformat(),
            }
        return None

    async def counted(self) -> dict[tuple[str, ...], float]:
        """How many there are by name and status: waiting, running, failed."""
        return {(row["task_name"], row["status"]): row["jobs"] for row in await self._rows(COUNTED)}

    async def _rows(self, statement: Any, **parameters: Any) -> list[dict[str, Any]]:
        async with _lost_is_down():
            return await self.app.connector.execute_query_all_async(statement, **parameters)

    @asynccontextmanager
    async def _at_work(self, job: Job) -> AsyncIterator[None]:
        """What a handler raises is logged here and noted in the job; a sweep's failure ends there."""
        number, self.worker = job.id or 0, job.worker_id
        self.at_work.add(number)
        try:
            yield
        except Exception as error:
            known = isinstance(error, AgentflowError)
            reason = str(error) if known else type(error).__name__
            (log.info if isinstance(error, Later) else log.warning)(
                "job failed", job=job.task_name, id=number, reason=reason, exc_info=None if known else error
            )
            if "timestamp" in job.task_kwargs:
                return
            noted = {**getattr(error, "noted", {}), "reason": reason}
            await self.app.connector.execute_query_async(NOTE, noted=noted, id=number)
            if not await self._awaited(job):
                raise
        finally:
            self.at_work.discard(number)

    async def _awaited(self, job: Job) -> bool:
        """Whether another of its kind waits, of which the library allows one: that will do what this one has not."""
        found = await self.app.connector.execute_query_all_async(AWAITED, lock=job.queueing_lock)
        return job.queueing_lock is not None and bool(found)

    async def _given_back(self, job: Job) -> None:
        try:
            await self.app.job_manager.retry_job(job)
        except UniqueViolation:
            await self.app.job_manager.finish_job_by_id_async(job.id or 0, Status.FAILED, delete_job=True)

    async def _orphaned(self) -> list[Job]:
        """Jobs of this process that nobody works on: at two looks, so that none is just ending."""
        if self.worker is None:
            return []
        mine = await self.app.job_manager.list_jobs_async(status="doing", worker_id=self.worker)
        idle = {job.id or 0: job for job in mine if job.id not in self.at_work}
        found = [job for number, job in idle.items() if number in self.orphans]
        self.orphans = set(idle)
        return found


@asynccontextmanager
async def _lost_is_down() -> AsyncIterator[None]:
    try:
        yield
    except AlreadyEnqueued:
        raise
    except (ConnectorException, PoolTimeout) as error:
        raise DatabaseDown(f"Jobs cannot be reached: {error}.", retry_after=2) from error


def _after(seconds: float) -> procrastinate.RetryDecision:
    return procrastinate.RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=seconds))
