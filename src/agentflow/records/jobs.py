"""Jobs in the background: named, kept in Postgres until they are done, tried again when they fail.

Runs are not jobs: their order per thread and their fencing are the ledger's. docs/decisions has the choice.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any

import procrastinate
import psycopg
import structlog
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from psycopg_pool import PoolTimeout

from agentflow.errors import DatabaseDown
from agentflow.records.connections import returned
from agentflow.turn import Json

log = structlog.get_logger(__name__)
SCHEMA = "jobs"
OPTIONS = f"-c search_path={SCHEMA} -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s"
TRIES = 8
GROWTH = 2
"""Seconds before the second try; every later one waits so many times longer."""
AT_ONCE = 8
GRACE = 10.0
Handler = Callable[[Json], Awaitable[None]]


@dataclass
class Jobs:
    """`on` names what is done; `defer` asks for it, from any process; `run` does it.

    A handler gets the payload: ids, never texts or secrets. It may be called twice for one job, and raises to be
    tried again.
    """

    dsn: str
    app: procrastinate.App = field(init=False)

    def __post_init__(self) -> None:
        connector = procrastinate.PsycopgConnector(
            conninfo=self.dsn,
            min_size=1,
            max_size=4,
            kwargs={"options": OPTIONS, "connect_timeout": 5},
            reset=returned,
        )
        self.app = procrastinate.App(connector=connector)

    def on(self, name: str, handler: Handler, *, tries: int = TRIES) -> None:
        """Do jobs of this name so; before `run`."""

        async def work(**payload: Any) -> None:
            await handler(payload)

        retry = procrastinate.RetryStrategy(max_attempts=tries, exponential_wait=GROWTH)
        self.app.task(name=name, retry=retry)(work)

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
            name, allow_unknown=True, schedule_at=at, queueing_lock=f"{name} {once}", lock=f"{name} {once}"
        )
        try:
            await wanted.defer_async(**payload)
        except AlreadyEnqueued:
            return False
        except (ConnectorException, PoolTimeout) as error:
            raise DatabaseDown(f"The job cannot be kept: {error}.", retry_after=2) from error
        return True

    async def run(self) -> None:
        """Do jobs for ever; woken by Postgres, so that none waits for a look."""
        await self.app.run_worker_async(
            concurrency=AT_ONCE,
            install_signal_handlers=False,
            delete_jobs="successful",
            shutdown_graceful_timeout=GRACE,
        )

    async def revive(self) -> int:
        """Give back jobs whose worker has died; how many."""
        stalled = list(await self.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=60))
        for job in stalled:
            await self.app.job_manager.retry_job(job)
        return len(stalled)


def prepare(connection: psycopg.Connection[Any]) -> None:
    """The tables of the library, in a schema of their own, at the version that is installed."""
    row = connection.execute(
        "select obj_description(oid, 'pg_namespace') as at from pg_namespace where nspname = %s", (SCHEMA,)
    ).fetchone()
    at = None if row is None else (row["at"] if isinstance(row, dict) else row[0])
    if at == procrastinate.__version__:
        return
    with connection.transaction():
        connection.execute(f"create schema if not exists {SCHEMA}".encode())
        connection.execute(f"set local search_path to {SCHEMA}".encode())
        for script in _scripts(at):
            connection.execute(script.encode(), prepare=False)
        connection.execute(f"comment on schema {SCHEMA} is '{procrastinate.__version__}'".encode())


def _scripts(at: str | None) -> list[str]:
    sql = resources.files("procrastinate.sql")
    if at is None:
        return [(sql / "schema.sql").read_text(encoding="utf-8")]
    known = _version(at)
    files = sorted((one for one in (sql / "migrations").iterdir() if one.name.endswith(".sql")), key=_name)
    return [one.read_text(encoding="utf-8") for one in files if _version(one.name.split("_")[0]) > known]


def _name(file: Any) -> str:
    return str(file.name)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
