"""Connection pools: for one owner at a time, or across tenants; and what a lost database looks like to the rest."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from agentflow.errors import DatabaseDown
from agentflow.protocols import Owner
from agentflow.records.ownership import APP, BACKGROUND, OWNED, OWNED_FIXED


class Connection(psycopg.AsyncConnection[TupleRow]):
    """Knows when it was last seen alive, so that not every use pays for a check, and whose statements it runs."""

    seen: float = 0.0
    owner: tuple[str, str] | None = None
    owned: str = OWNED
    named: bool = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.naming = psycopg.AsyncCursor(self)
        set_json_dumps(_json, self)

    @asynccontextmanager
    async def together(self, *, turn: str | None = None) -> AsyncIterator[None]:
        """One round trip and one transaction for the statements inside, all of the owner who is named before them.

        With `turn` they begin when nobody else is in turn for the same name. Not for a `transaction()` inside: it
        would end the one for which the owner is named.
        """
        async with self.pipeline():
            if self.owner is not None and turn is not None:
                await self.naming.execute(f"{self.owned}, {TURN}".encode(), (*self.owner, turn))
            elif self.owner is not None:
                await self.naming.execute(self.owned, self.owner)
            elif turn is not None:
                await self.naming.execute(IN_TURN, (turn,))
            self.named = self.owner is not None
            try:
                yield
            finally:
                self.named = False


class OwnedCursor(psycopg.AsyncCursor[Any]):
    """Names the owner before every statement, in the same round trip and for that transaction only.

    Outside of a transaction block, statements sent together are one transaction: when the answer is here, the
    connection has no owner any more, whatever happened to the statement.
    """

    async def execute(self, *statement: Any, **options: Any) -> Self:
        """As psycopg does."""
        await self._owned(super().execute, *statement, **options)
        return self

    async def executemany(self, *statement: Any, **options: Any) -> None:
        """As psycopg does."""
        await self._owned(super().executemany, *statement, **options)

    async def _owned(self, send: Callable[..., Awaitable[Any]], *statement: Any, **options: Any) -> None:
        connection: Any = self.connection
        if connection.owner is None or connection.named:
            await send(*statement, **options)
        elif connection.pgconn.pipeline_status != PipelineStatus.OFF:
            await connection.naming.execute(connection.owned, connection.owner)
            await send(*statement, **options)
        else:
            async with connection.pipeline():
                await connection.naming.execute(connection.owned, connection.owner)
                await send(*statement, **options)


Written = tuple[bytes, Mapping[str, Any]]
"""A statement and its parameters, for whoever executes it."""
GATHERING = 2
"""Runs whose gathered steps are written at once; the others gather on, so the more there are the fewer writes."""
TRUSTED = 1.0
"""Seconds for which a connection that answered needs no check."""
BACKGROUND_SIZE = 4
TICKS = 10
"""Ticks in a row without a connection that came back: the database is lost, and not only busy."""
LONGEST = 60
"""How many times that long a borrower waits at most while others get theirs: as long as a turn may take."""


class Pool(AsyncConnectionPool[Connection]):
    """Counts the connections that came back whole.

    Half of `timeout` is counted in ticks, each waited for anew: a process that is paused, or waits its turn for a
    processor longer than that, has not seen the database fail.
    """

    returned: int = 0

    @property
    def tick(self) -> float:
        """Seconds."""
        return self.timeout / 2 / TICKS


_LIMITS = "-c statement_timeout=15s -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s"
_DATA = (
    f"-c search_path=agentflow,public -c hnsw.ef_search=100 -c hnsw.iterative_scan=relaxed_order {_LIMITS}"
)
_CHECKPOINTS = f"-c search_path=langgraph,agentflow -c synchronous_commit=off {_LIMITS}"


@dataclass(frozen=True)
class Connections:
    """`data` and `across` commit durably; `checkpoints` may lose the last moment at an operating-system crash.

    `dsn` is the owner's of the schema: for what changes tables. `gathering` is passed by whoever writes what can wait.
    """

    dsn: str
    data: Pool
    across: Pool
    checkpoints: Pool
    gathering: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(GATHERING))

    @asynccontextmanager
    async def use(self, owner: Owner, *, fixed_plan: bool = False) -> AsyncIterator[Connection]:
        """A connection to the owner's rows, in autocommit; others' do not exist for it. Raises DatabaseDown.

        With `fixed_plan` a statement is planned once per connection, whatever its parameters are.
        """
        with lost_is_down():
            async with _lent(self.data) as connection:
                connection.owner, connection.owned = _named(owner), OWNED_FIXED if fixed_plan else OWNED
                try:
                    yield connection
                finally:
                    connection.owner, connection.owned = None, OWNED

    @asynccontextmanager
    async def use_checkpoints(self, owner: Owner) -> AsyncIterator[Connection]:
        """The same to LangGraph's tables."""
        with lost_is_down():
            async with _lent(self.checkpoints) as connection:
                connection.owner = _named(owner)
                try:
                    yield connection
                finally:
                    connection.owner = None

    @asynccontextmanager
    async def background(self) -> AsyncIterator[Connection]:
        """A connection to every tenant's rows, for work that nobody's request asked for. Raises DatabaseDown."""
        with lost_is_down():
            async with _lent(self.across) as connection:
                yield connection

    @asynccontextmanager
    async def maintenance(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """A connection of its own as the schema's owner, who may change tables. Raises DatabaseDown."""
        with lost_is_down():
            async with await psycopg.AsyncConnection.connect(
                self.dsn, autocommit=True, options="-c search_path=agentflow,public", connect_timeout=5
            ) as connection:
                yield connection

    async def close(self) -> None:
        for pool in (self.data, self.across, self.checkpoints):
            await pool.close()


@asynccontextmanager
async def _lent(pool: Pool) -> AsyncIterator[Connection]:
    """A connection that comes back to its pool however often its borrower is cancelled.

    Who serves a client that has gone away is cancelled again at every step of the loop. A second time in the pool's
    queue, that would lose a connection for good; so the queue is for a task of its own, which nobody cancels.
    """
    left = asyncio.Event()
    taking = asyncio.create_task(_take(pool, left))
    try:
        await _come(taking, pool)
        connection = taking.result()
    except BaseException:
        left.set()
        if not taking.done():
            taking.add_done_callback(_heard)
        elif _heard(taking) is None and not taking.cancelled():
            await pool.putconn(taking.result())
        raise
    try:
        async with connection:
            yield connection
    finally:
        if _at_rest(connection):
            pool.returned += 1
        else:
            await connection.close()
        await pool.putconn(connection)


def _at_rest(connection: Connection) -> bool:
    """Whether nothing is under way. A borrower cancelled twice may leave a pipeline open; the next one's statements
    would run in it behind each other, without their owner.
    """
    state = connection.pgconn
    return state.pipeline_status == PipelineStatus.OFF and state.transaction_status == TransactionStatus.IDLE


async def _take(pool: Pool, left: asyncio.Event) -> Connection:
    connection = await pool.getconn(pool.timeout * LONGEST)
    if left.is_set():
        await pool.putconn(connection)
    return connection


async def _come(taking: asyncio.Task[Connection], pool: Pool) -> None:
    """Wait until the task is done, as long as the pool lives. Raises PoolTimeout."""
    ticks, returned = 0, pool.returned
    while not (await asyncio.wait({taking}, timeout=pool.tick if ticks else pool.timeout / 2))[0]:
        ticks = ticks + 1 if pool.returned == returned else 0
        returned = pool.returned
        if ticks > TICKS:
            raise PoolTimeout(f"no connection came back within {pool.timeout:g} s")


def _heard(taking: asyncio.Task[Connection]) -> BaseException | None:
    """Why no connection came; who has left does not want to know, but somebody must ask."""
    return None if taking.cancelled() else taking.exception()


async def returned(connection: Connection) -> None:
    """The pool's `reset`, for what comes back and is not broken: it was alive just now.

    With one, what comes back is put away by the pool's own tasks, which nobody cancels.
    """
    connection.seen = time.monotonic()


def _named(owner: Owner) -> tuple[str, str]:
    return str(owner.tenant), "*" if owner.user is None else f"={owner.user}"


def persevering(seconds: float = 20.0) -> AsyncRetrying:
    """Tries again while the database is lost; for what may be done twice, and must not be lost with it."""
    return AsyncRetrying(
        retry=retry_if_exception_type(DatabaseDown),
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    )


class lost_is_down:  # noqa: N801 - reads as a phrase where it is used
    """Turns a driver's "connection lost" into DatabaseDown; other errors pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | PoolClosed):
            message = "Postgres does not answer; what was accepted is kept and goes on when it is back"
            raise DatabaseDown(f"{message} ({str(error).strip() or kind}).", retry_after=2) from error


async def open_connections(dsn: str, *, size: int, patience: float = 10.0) -> Connections:
    """Open the pools. Raises DatabaseDown when no connection can be made within `patience` seconds."""
    small = max(2, min(size // 2, BACKGROUND_SIZE))
    connections = Connections(
        dsn,
        _pool(dsn, "data", f"-c role={APP} {_DATA}", 2, size, patience),
        _pool(dsn, "background", f"-c role={BACKGROUND} {_DATA}", 1, small, patience),
        _pool(dsn, "checkpoints", f"-c role={APP} {_CHECKPOINTS}", 1, max(2, size // 2), patience),
    )
    try:
        with lost_is_down():
            for pool in (connections.data, connections.across, connections.checkpoints):
                await pool.open(wait=True, timeout=patience)
    except DatabaseDown:
        await connections.close()
        raise
    return connections


def _pool(dsn: str, name: str, options: str, least: int, most: int, patience: float) -> Pool:
    return Pool(
        dsn,
        connection_class=Connection,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0,
            "options": options,
            "connect_timeout": 5,
            "cursor_factory": OwnedCursor,
        },
        configure=register_vector_async if name != "checkpoints" else None,
        min_size=least,
        max_size=most,
        timeout=patience,
        max_lifetime=3600,
        check=_alive,
        reset=returned,
        reconnect_timeout=60,
        open=False,
        name=name,
    )


async def _alive(connection: Connection) -> None:
    now = time.monotonic()
    if now - connection.seen > TRUSTED:
        await AsyncConnectionPool.check_connection(connection)
        connection.seen = now


TURN = "pg_advisory_xact_lock(hashtextextended(%s, 0))"
IN_TURN = f"select {TURN}"
"""Until the transaction's end, nobody else is in turn for the same name."""

UNUSED = """(%(key)s::text is null or not exists (
    select from run where tenant = %(tenant)s and user_ref = %(user)s and idem_key = %(key)s))"""
"""No run has the idempotency key. Asked before the thread's row is locked: a run's end locks the run, then its thread,
and whoever held the thread and then met the run of the same key would wait for it in a circle."""


async def in_turn(connection: Connection, name: str, statement: bytes, parameters: Mapping[str, Any]) -> Any:
    """The first row of a statement that sees what everybody before it in turn has committed; one round trip.

    A statement that waits for a row's lock goes on with what it saw when it began. The lock here is a statement of
    its own before, in the same transaction, so the second one begins after it.
    """
    async with connection.together(turn=name):
        cursor = await connection.execute(statement, parameters)
        return await cursor.fetchone()


_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def _json(value: Any) -> str | bytes:
    """JSON as the library writes it, in a third of the time."""
    try:
        return orjson.dumps(value, option=_JSON)
    except TypeError:  # numbers beyond 64 bits, keys that are not texts
        return json.dumps(value)
