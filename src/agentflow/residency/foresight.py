"""What tiers, orders and pins would have done: requests replayed against a set-up. Pure; no real seconds pass.

An adapter is wanted at a time, comes up the tiers (remote, disk, RAM, VRAM) at the pace given, and is busy
while it speaks. RAM is inclusive: what goes to VRAM passes through it, where it fits. Loads do not slow each
other down here, which real downloads do: trust ratios between set-ups, not milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from agentflow.residency.pace import Pace
from agentflow.residency.worth import AgedWorth, Foreknown, Order, Recency

OrderName = Literal["worth", "lru", "optimum"]
NEVER = float("inf")


@dataclass(frozen=True)
class Visit:
    """A request that wanted an adapter, `at` seconds on any clock."""

    at: float
    adapter: str
    thread: str = ""


@dataclass(frozen=True)
class Cargo:
    """What an adapter weighs, and whether its files come from afar."""

    octets: int
    remote: bool = False


@dataclass(frozen=True)
class SetUp:
    """Tiers and policies to replay against.

    `ram` is bytes, or adapters where `in_bytes` is False. `overlap`: seconds of retrieval that a load hides
    behind. `unload_after`: idle seconds until an adapter leaves VRAM, by name; absent: never. `rests_below`:
    who leaves RAM then too. `pins` never leave VRAM, `at_start` begin there. `speaks`: seconds an adapter is
    busy per request.
    """

    slots: int
    ram: float
    in_bytes: bool = True
    ram_order: OrderName = "worth"
    vram_order: OrderName = "lru"
    disk_cache: bool = True
    overlap: float = 0.0
    pins: frozenset[str] = frozenset()
    at_start: tuple[str, ...] = ()
    unload_after: Mapping[str, float] = field(default_factory=dict)
    rests_below: frozenset[str] = frozenset()
    speaks: float = 1.5


@dataclass(frozen=True)
class Outcome:
    """Milliseconds added before answers could begin. `missed`: not in VRAM; `cold`: not in RAM either."""

    visits: int
    mean: float
    p95: float
    p99: float
    missed: float
    cold: float


def replay(
    visits: Sequence[Visit],
    cargo: Mapping[str, Cargo],
    setup: SetUp,
    *,
    pace: Pace | None = None,
    warm_up: float = 0.0,
) -> Outcome:
    """Every visit in its order; the first `warm_up` share of them counts for nothing."""
    tiers = _Tiers(cargo, setup, pace or Pace())
    tiers.start(visits)
    added, depth = np.zeros(len(visits)), np.zeros(len(visits))
    for place, (visit, next_use) in enumerate(zip(visits, _next_uses(visits), strict=True)):
        added[place], depth[place] = tiers.visit(visit, next_use)
    begin = int(len(visits) * warm_up)
    return _outcome(added[begin:] * 1e3, depth[begin:])


def lru_alone(setup: SetUp) -> SetUp:
    """What engines do by themselves on the same tiers: least recently used, nothing kept or begun ahead."""
    return replace(
        setup,
        ram_order="lru",
        vram_order="lru",
        disk_cache=False,
        overlap=0.0,
        pins=frozenset(),
        at_start=(),
        unload_after={},
    )


def optimum(setup: SetUp) -> SetUp:
    """The same tiers run by somebody who knows the future (Belady's order in both)."""
    return replace(setup, ram_order="optimum", vram_order="optimum", pins=frozenset(), unload_after={})


def share(best: Outcome, own: Outcome) -> float:
    """How near to the optimum: 1 is as good. Belady counts hits, not seconds, so a little over 1 is possible."""
    return 1.0 if own.mean <= 0 else best.mean / own.mean


def _outcome(added: np.ndarray, depth: np.ndarray) -> Outcome:
    if not len(added):
        return Outcome(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    p95, p99 = np.percentile(added, [95, 99])
    return Outcome(
        visits=len(added),
        mean=float(added.mean()),
        p95=float(p95),
        p99=float(p99),
        missed=float((depth > 0).mean()),
        cold=float((depth > 1).mean()),
    )


def _next_uses(visits: Sequence[Visit]) -> list[float]:
    """For each visit, the place of the next one to the same adapter."""
    following, places = [NEVER] * len(visits), dict[str, int]()
    for place in range(len(visits) - 1, -1, -1):
        following[place] = places.get(visits[place].adapter, NEVER)
        places[visits[place].adapter] = place
    return following


class _Tiers:
    """The tiers at one moment; values of `vram` and `ram` are the times from which an adapter is there."""

    def __init__(self, cargo: Mapping[str, Cargo], setup: SetUp, pace: Pace) -> None:
        self.cargo, self.setup, self.pace = cargo, setup, pace
        self.vram: dict[str, float] = {}
        self.ram: dict[str, float] = {}
        self.ram_used = 0.0
        self.downloaded: set[str] = set()
        self.busy_until: dict[str, float] = {}
        self.next_use: dict[str, float] = {}
        self.vram_order = self._order(setup.vram_order, in_bytes=False)
        self.ram_order = self._order(setup.ram_order, in_bytes=setup.in_bytes)

    def start(self, visits: Sequence[Visit]) -> None:
        """Load what is pinned or loaded at the start, before the first visit."""
        now = visits[0].at if visits else 0.0
        for name in [*sorted(self.setup.pins), *self.setup.at_start][: self.setup.slots]:
            if name in self.cargo and name not in self.vram:
                self._tell(name, now)
                self.downloaded.add(name)
                self._into_ram(name, now, now)
                self._into_vram(name, now, now)

    def visit(self, visit: Visit, next_use: float) -> tuple[float, int]:
        """Seconds added to the request, and how deep the adapter lay: 0 VRAM, 1 RAM, 2 below."""
        name, now = visit.adapter, visit.at
        self.next_use[name] = next_use
        self._idle(name, now)
        self._tell(name, now)
        depth, ready = 0, self.vram.get(name, 0.0)
        if name not in self.vram:
            depth, ready = self._come(name, now)
        wait = max(0.0, ready - now - self.setup.overlap)
        self.busy_until[name] = now + self.setup.overlap + wait + self.setup.speaks
        return wait, depth

    def _come(self, name: str, now: float) -> tuple[int, float]:
        depth, ready = 1, max(now, self.ram.get(name, now))
        if name not in self.ram:
            depth, ready = 2, now + self._back(name)
            self._into_ram(name, now, ready)
            if self.setup.disk_cache:
                self.downloaded.add(name)
        return depth, self._into_vram(name, now, ready + self.pace.seconds("load", self.cargo[name].octets))

    def _back(self, name: str) -> float:
        """Seconds to bring the adapter to RAM from where it lies below."""
        one = self.cargo[name]
        far = one.remote and name not in self.downloaded
        return self.pace.seconds("copy", one.octets) + (
            self.pace.seconds("download", one.octets) if far else 0.0
        )

    def _idle(self, name: str, now: float) -> None:
        """If the adapter has been idle for too long, it has left meanwhile."""
        limit = self.setup.unload_after.get(name)
        if limit is None or name in self.setup.pins or now - self.busy_until.get(name, now) < limit:
            return
        if self.vram.pop(name, None) is not None:
            self.vram_order.evict(name)
        if name in self.setup.rests_below and self.ram.pop(name, None) is not None:
            self.ram_used -= self._size(name)
            self.ram_order.evict(name)

    def _into_ram(self, name: str, now: float, ready: float) -> None:
        if name in self.ram or self._size(name) > self.setup.ram:
            return
        while self.ram_used + self._size(name) > self.setup.ram:
            leaver = self.ram_order.victim(lambda _name: True)
            if leaver is None:
                return
            self.ram_order.evict(leaver)
            del self.ram[leaver]
            self.ram_used -= self._size(leaver)
        self.ram_order.insert(name, seconds=self._back(name), octets=self.cargo[name].octets, now=now)
        self.ram[name] = ready
        self.ram_used += self._size(name)

    def _into_vram(self, name: str, now: float, ready: float) -> float:
        """When the adapter is there: later where it must wait for somebody to stop speaking."""
        if len(self.vram) >= self.setup.slots:
            leaver = self.vram_order.victim(
                lambda one: self._may_leave(one) and self.busy_until.get(one, 0) <= now
            )
            if leaver is None:
                free = [one for one in self.vram if self._may_leave(one)]
                leaver = min(free, key=lambda one: self.busy_until.get(one, 0.0))
                ready = max(ready, self.busy_until.get(leaver, 0.0))
            self.vram_order.evict(leaver)
            del self.vram[leaver]
        self.vram_order.insert(name, seconds=self._back(name), octets=1, now=now)
        self.vram[name] = ready
        return ready

    def _may_leave(self, name: str) -> bool:
        return name not in self.setup.pins

    def _tell(self, name: str, now: float) -> None:
        for order in (self.vram_order, self.ram_order):
            order.access(name, seconds=self._back(name), octets=self.cargo[name].octets, now=now)

    def _size(self, name: str) -> float:
        return self.cargo[name].octets if self.setup.in_bytes else 1.0

    def _order(self, name: OrderName, *, in_bytes: bool) -> Order:
        match name:
            case "worth":
                return AgedWorth(in_bytes=in_bytes)
            case "lru":
                return Recency()
            case "optimum":
                return Foreknown(self.next_use)
