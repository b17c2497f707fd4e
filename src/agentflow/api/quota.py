"""How much one caller may ask for: requests over time, and requests at once."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from agentflow.errors import TooMany
from agentflow.settings.access import LimitSettings
from agentflow.telemetry import Metrics


@dataclass
class Quota:
    """Counts in this process: several processes behind one address allow as many times as much."""

    settings: LimitSettings
    metrics: Metrics
    _rate: RateLimitItem | None = field(init=False)
    _over_time: SlidingWindowCounterRateLimiter = field(init=False)
    _at_once: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rate = parse(self.settings.rate) if self.settings.rate else None
        self._over_time = SlidingWindowCounterRateLimiter(MemoryStorage())

    @asynccontextmanager
    async def spent(self, caller: str) -> AsyncIterator[None]:
        """One request of the caller's, until its last byte. Raises TooMany."""
        if self._at_once[caller] >= self.settings.requests:
            self.metrics.refused.labels("requests").inc()
            raise TooMany(
                f"This key has {self.settings.requests} requests open already (limits.requests); let one end.",
                field="limits.requests",
                retry_after=1,
            )
        await self._hit(caller)
        self._at_once[caller] += 1
        try:
            yield
        finally:
            self._at_once[caller] -= 1
            if not self._at_once[caller]:
                del self._at_once[caller]

    async def _hit(self, caller: str) -> None:
        if self._rate is None or await self._over_time.hit(self._rate, caller):
            return
        self.metrics.refused.labels("rate").inc()
        free_at = (await self._over_time.get_window_stats(self._rate, caller)).reset_time
        raise TooMany(
            f"This key may ask {self.settings.rate} (limits.rate); wait a little.",
            field="limits.rate",
            retry_after=max(1.0, free_at - time.time()),
        )
