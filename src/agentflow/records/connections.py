"""Connection pools, and what a lost database looks like to the rest."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from agentflow.errors import DatabaseDown
from agentflow.protocols import Vectors


class Connection(psycopg.AsyncConnection[TupleRow]):
    """Knows when it was last seen alive, so that not every use pays for a check."""

    seen: float = 0.0


TRUSTED = 1.0
"""Seconds for which a connection that answered needs no check."""
CheckpointPool = AsyncConnectionPool[psycopg.AsyncConnection[DictRow]]
_LIMITS = "-c statement_timeout=15s -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s"
_DATA = (
    f"-c search_path=agentflow,public -c hnsw.ef_search=100 -c hnsw.iterative_scan=relaxed_order {_LIMITS}"
)
_CHECKPOINTS = f"-c search_path=langgraph -c synchronous_commit=off {_LIMITS}"


@dataclass(frozen=True)
class Connections:
    """`data` commits durably; `checkpoints` may lose the last moment at an operating-system crash, never more."""

    data: AsyncConnectionPool[Connection]
    checkpoints: CheckpointPool

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """A connection to the data, in autocommit. Raises DatabaseDown."""
        with lost_is_down():
            async with self.data.connection() as connection:
                yield connection

    async def close(self) -> None:
        await self.data.close()
        await self.checkpoints.close()


class lost_is_down:  # noqa: N801 - reads as a phrase where it is used
    """Turns a driver's "connection lost" into DatabaseDown; other errors pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | PoolClosed):
            message = "Postgres does not answer; the turn is kept and goes on when it is back"
            raise DatabaseDown(f"{message} ({str(error).strip() or kind}).", retry_after=2) from error


async def open_connections(dsn: str, *, size: int, patience: float = 10.0) -> Connections:
    """Open both pools. Raises DatabaseDown when no connection can be made within `patience` seconds."""
    data = AsyncConnectionPool(
        dsn,
        connection_class=Connection,
        kwargs={"autocommit": True, "prepare_threshold": 0, "options": _DATA, "connect_timeout": 5},
        configure=register_vector_async,
        min_size=2,
        max_size=size,
        timeout=patience,
        max_lifetime=3600,
        check=_alive,
        reconnect_timeout=60,
        open=False,
        name="data",
    )
    checkpoints: CheckpointPool = AsyncConnectionPool(
        dsn,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
            "options": _CHECKPOINTS,
            "connect_timeout": 5,
        },
        min_size=1,
        max_size=max(2, size // 2),
        timeout=patience,
        max_lifetime=3600,
        check=AsyncConnectionPool.check_connection,
        reconnect_timeout=60,
        open=False,
        name="checkpoints",
    )
    connections = Connections(data, checkpoints)
    try:
        with lost_is_down():
            await data.open(wait=True, timeout=patience)
            await checkpoints.open(wait=True, timeout=patience)
    except DatabaseDown:
        await connections.close()
        raise
    return connections


async def _alive(connection: Connection) -> None:
    now = time.monotonic()
    if now - connection.seen > TRUSTED:
        await AsyncConnectionPool.check_connection(connection)
        connection.seen = now


def vector_text(vector: Vectors) -> str:
    """A vector as pgvector reads it; six digits are more than halfvec keeps."""
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"
