"""LISTEN and NOTIFY: what one process has written wakes who waits for it in another."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import structlog

log = structlog.get_logger(__name__)
CHANNEL = "agentflow"
SETS_GONE, LESSONS = "sets", "lessons"
"""Kinds: sets of a tenant are no more; what feedback has taught is other than before, `forgotten` or `given`."""
PAUSE = 1.0
"""Seconds between attempts to listen again after the connection was lost."""


@dataclass
class Signals:
    """Hears every signal of a database, this process's own too. Payloads are `KIND ID [EXTRA]`."""

    dsn: str
    heard: Callable[[str, str, str], None]
    missed: Callable[[], None]
    """Called whenever listening (re)starts: whatever was signalled before may have been missed."""

    async def listen(self) -> None:
        """For ever, over one connection of its own."""
        while True:
            try:
                await self._once()
            except psycopg.Error as error:
                log.warning("signals are not heard; listening again", reason=str(error).strip())
            await asyncio.sleep(PAUSE)

    async def _once(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, connect_timeout=5
        ) as connection:
            await connection.execute(f"listen {CHANNEL}".encode())
            self.missed()
            async for one in connection.notifies():
                kind, _, rest = one.payload.partition(" ")
                which, _, extra = rest.partition(" ")
                self.heard(kind, which, extra)
