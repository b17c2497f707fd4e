"""How long an adapter takes from tier to tier: seeds until something is measured, then what was measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Step = Literal["download", "copy", "load"]
"""remote to disk, disk to RAM, RAM or disk to VRAM."""

ALPHA = 0.2
"""Weight of the newest measurement in the moving average."""
SEEDS: Mapping[Step, tuple[float, float]] = {
    "download": (5.0, 50e6),
    "copy": (0.2, 200e6),
    "load": (0.02, 10e9),
}
"""Seconds to begin with and bytes per second, before anything was measured."""


@dataclass
class Pace:
    """Estimates of seconds per step and size.

    A step takes (constant + bytes / rate) of its seed times a factor; the factor is the moving average of
    what was measured over what the seed said, so a large adapter stays slower than a small one.
    """

    seeds: Mapping[Step, tuple[float, float]] = field(default_factory=lambda: SEEDS)
    _factors: dict[Step, float] = field(default_factory=dict)

    def seconds(self, step: Step, octets: float) -> float:
        """What the step takes for so many bytes, as far as is known."""
        return self._factors.get(step, 1.0) * self._seed(step, octets)

    def learn(self, step: Step, octets: float, seconds: float) -> None:
        """A step took so many seconds. The first measurement replaces the seed."""
        found = max(seconds, 0.0) / self._seed(step, octets)
        known = self._factors.get(step)
        self._factors[step] = found if known is None else known + ALPHA * (found - known)

    def measured(self, step: Step) -> bool:
        return step in self._factors

    def _seed(self, step: Step, octets: float) -> float:
        constant, rate = self.seeds[step]
        return constant + octets / rate


def eta(pace: Pace, steps: Iterable[Step], octets: float, *, queue: float = 0.0) -> float:
    """Seconds until an adapter is ready: its missing steps, behind `queue` seconds of other loads."""
    return queue + sum(pace.seconds(step, octets) for step in steps)
