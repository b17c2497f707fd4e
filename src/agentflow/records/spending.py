"""What callers use up of their limits, counted by all processes together in one unlogged table."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

import structlog

from agentflow.errors import DatabaseDown
from agentflow.protocols import Allowance, Refusal
from agentflow.records.connections import Connections

log = structlog.get_logger(__name__)
SILENCE = 90.0
"""Seconds after which what a process has told of its open requests counts no more."""
SPEND = """
select refusal, wait
from spend(%(caller)s, %(process)s, %(open)s, %(requests)s::int, %(hits)s::int, %(seconds)s::int, %(silence)s)
"""
TELL = """
update spending set seen = now(), open = case when %(open)s = 0 then open - %(process)s::text else
  open || jsonb_build_object(%(process)s::text, jsonb_build_array(%(open)s::int, extract(epoch from clock_timestamp())))
  end
where caller = %(caller)s
"""
FORGET = "delete from spending where seen < now() - interval '2 days'"


@dataclass
class PostgresSpending:
    """See Spending. Callers are told by digests; `changed` is set where `tell` has something to tell."""

    connections: Connections
    process: str
    open: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: set[str] = field(default_factory=set)

    async def begin(self, caller: str, allowed: Allowance) -> Refusal | None:
        """See Spending.begin. Without a database this process counts alone: the doors say what is down."""
        self.open[caller] += 1
        try:
            refusal = await self._asked(caller, allowed)
        except BaseException:
            self.end(caller)
            raise
        if refusal is not None:
            self.end(caller)
        return refusal

    def end(self, caller: str) -> None:
        """See Spending.end."""
        self.open[caller] -= 1
        if not self.open[caller]:
            del self.open[caller]
        self._ended.add(caller)
        self.changed.set()

    async def tell(self) -> None:
        """Write which requests have ended, and which are still open. Raises DatabaseDown."""
        due, self._ended = self._ended | set(self.open), set()
        rows = [{"caller": _digest(one), "process": self.process, "open": self.open[one]} for one in due]
        if not rows:
            return
        try:
            async with self.connections.background() as connection:
                await connection.cursor().executemany(TELL, rows)
        except DatabaseDown:
            self._ended |= due
            raise

    async def forget(self) -> None:
        """Remove callers of whom nothing was heard for long. Raises DatabaseDown."""
        async with self.connections.background() as connection:
            await connection.execute(FORGET)

    async def _asked(self, caller: str, allowed: Allowance) -> Refusal | None:
        mine = self.open[caller]
        if allowed.requests is not None and mine > allowed.requests:
            return Refusal("requests", 1.0)
        parameters = {
            "caller": _digest(caller), "process": self.process, "open": mine, "requests": allowed.requests,
            "hits": allowed.hits, "seconds": allowed.seconds, "silence": SILENCE,
        }  # fmt: skip
        try:
            async with self.connections.background() as connection:
                row = await (await connection.execute(SPEND, parameters)).fetchone()
        except DatabaseDown as down:
            log.warning("limits are not counted", reason=down.message)
            return None
        return None if row is None or row[0] is None else Refusal(row[0], max(1.0, row[1]))


def _digest(caller: str) -> bytes:
    return sha256(caller.encode()).digest()[:16]
