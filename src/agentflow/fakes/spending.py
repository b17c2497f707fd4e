"""What callers use up of their limits, in memory; `Shared` is what several processes would share."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from agentflow.protocols import Allowance, Refusal


@dataclass
class Shared:
    """Requests at once, and when each was begun."""

    open: Counter[str] = field(default_factory=Counter)
    begun: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class FakeSpending:
    """See Spending; its window slides from request to request."""

    shared: Shared = field(default_factory=Shared)
    clock: Callable[[], float] = time.monotonic

    async def begin(self, caller: str, allowed: Allowance) -> Refusal | None:
        """See Spending.begin."""
        if allowed.requests is not None and self.shared.open[caller] >= allowed.requests:
            return Refusal("requests", 1.0)
        if allowed.hits is not None:
            since = self.clock() - allowed.seconds
            begun = [at for at in self.shared.begun.get(caller, ()) if at > since]
            if len(begun) >= allowed.hits:
                return Refusal("rate", max(1.0, begun[0] - since))
            self.shared.begun[caller] = [*begun, self.clock()]
        self.shared.open[caller] += 1
        return None

    def end(self, caller: str) -> None:
        """See Spending.end."""
        self.shared.open[caller] -= 1
