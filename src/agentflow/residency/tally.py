"""What the keeper has counted: plain numbers, by adapter and tier, for metrics and people."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from agentflow.residency.plan import Tier, Why

Key = tuple[str, Tier]


@dataclass
class Tally:
    """Adapters are told by role: their number is bounded by the file.

    `loads`, `load_seconds`, `failures` count ways into a tier; `hits` how often a turn found its adapter in a
    tier (decision made, load not begun); `waits` and `wait_seconds` what turns waited before generation;
    `cold` the branches taken, by role; `moves` every change of a tier with its reason. `drift` counts
    differences found with the engine's own list, `foreign` its adapters that are not ours, `restarts` how often
    it was seen to have lost everything.
    """

    loads: Counter[Key] = field(default_factory=Counter)
    load_seconds: dict[Key, float] = field(default_factory=lambda: defaultdict(float))
    last_seconds: dict[Key, float] = field(default_factory=dict)
    failures: Counter[Key] = field(default_factory=Counter)
    hits: Counter[Key] = field(default_factory=Counter)
    moves: Counter[tuple[str, Tier, Why]] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    wait_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cold: Counter[tuple[str, str]] = field(default_factory=Counter)
    restarts: int = 0
    drift: int = 0
    foreign: int = 0

    def arrived(self, role: str, tier: Tier, seconds: float) -> None:
        """An adapter has reached a tier."""
        self.loads[role, tier] += 1
        self.load_seconds[role, tier] += seconds
        self.last_seconds[role, tier] = seconds

    def waited(self, role: str, seconds: float) -> None:
        """A turn began to generate after so many seconds for its adapter."""
        self.waits[role] += 1
        self.wait_seconds[role] += seconds
