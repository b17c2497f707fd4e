"""How much one caller may ask for: requests over time, and requests at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agentflow.errors import TooMany
from agentflow.protocols import Allowance, Spending
from agentflow.settings.access import LimitSettings
from agentflow.telemetry import Metrics


@dataclass
class Quota:
    """The same for all processes on one database; whoever has no limit costs nothing."""

    settings: LimitSettings
    metrics: Metrics
    spending: Spending
    _allowed: Allowance = field(init=False)

    def __post_init__(self) -> None:
        hits, seconds = self.settings.pace or (None, 60)
        self._allowed = Allowance(self.settings.requests, hits, seconds)

    @asynccontextmanager
    async def spent(self, caller: str) -> AsyncIterator[None]:
        """One request of the caller's, until its last byte. Raises TooMany."""
        if self._allowed.requests is None and self._allowed.hits is None:
            yield
            return
        refusal = await self.spending.begin(caller, self._allowed)
        if refusal is not None:
            self.metrics.refused.labels(refusal.limit).inc()
            field = f"limits.{refusal.limit}"
            raise TooMany(self._told(refusal.limit), field=field, retry_after=refusal.wait)
        try:
            yield
        finally:
            self.spending.end(caller)

    def _told(self, limit: str) -> str:
        if limit == "rate":
            return f"This key may ask {self.settings.rate} (limits.rate); wait a little."
        return f"This key has {self.settings.requests} requests open already (limits.requests); let one end."
