"""LISTEN and NOTIFY: what one process has written wakes who waits for it in another."""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from agentflow.errors import DatabaseDown

CHANNEL = "agentflow"
SETS_GONE, LESSONS = "sets", "lessons"
"""Kinds: sets of a tenant are no more; what feedback has taught is other than before, `forgotten` or `given`."""


@dataclass
class Signals:
    """Hears every signal of a database, this process's own too. Payloads are `KIND ID [EXTRA]`."""

    dsn: str
    heard: Callable[[str, str, str], None]
    missed: Callable[[], None]
    """Called whenever listening (re)starts: whatever was signalled before may have been missed."""

    async def listen(self) -> None:
        """Until the connection, one of its own, is lost. Raises DatabaseDown."""
        try:
            await self._heard()
        except psycopg.Error as error:
            raise DatabaseDown(f"Signals are not heard: {str(error).strip()}") from error

    async def _heard(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, connect_timeout=5
        ) as connection:
            await connection.execute(f"listen {CHANNEL}".encode())
            self.missed()
            async for one in connection.notifies():
                kind, _, rest = one.payload.partition(" ")
                which, _, extra = rest.partition(" ")
                self.heard(kind, which, extra)
