"""From recorded requests to better settings: which tiers, pins and time-outs would have served them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from statistics import median

from agentflow.residency.foresight import (
    Cargo,
    Outcome,
    SetUp,
    Visit,
    lru_alone,
    optimum,
    replay,
    share,
)
from agentflow.residency.pace import Pace

TIME_OUTS = (60.0, 300.0, 600.0, 1800.0, 3600.0)
"""Idle seconds that are tried; the shortest that costs next to nothing frees memory soonest."""
NEXT_TO_NOTHING = 1.02
WORTH_PINNING = 0.99
MOST_PINS = 4
RAM_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class RoleAdvice:
    """What one role's record says. `gap`: median seconds between its turns; `unload_after` None: never."""

    role: str
    visits: int
    gap: float | None
    location: str
    warm: str
    pin: bool
    unload_after: float | None


@dataclass(frozen=True)
class Line:
    """One set-up's result, and how near it is to the optimum (1: as good)."""

    name: str
    outcome: Outcome
    share: float


@dataclass(frozen=True)
class Advice:
    """`lines`: the engine's LRU alone, today's settings, the advised ones, the optimum on the same budgets.

    `ram`: bytes of RAM that the record needs; `slots`: as today.
    """

    visits: int
    seconds: float
    slots: int
    ram: int
    lines: tuple[Line, ...]
    roles: tuple[RoleAdvice, ...]


def advise(
    visits: Sequence[Visit], cargo: Mapping[str, Cargo], today: SetUp, *, pace: Pace | None = None
) -> Advice:
    """Replay the visits (in order of time) against a handful of set-ups and keep what helps.

    `cargo` names every role with an adapter, visited or not; visits to others are left out.
    """
    known = [visit for visit in visits if visit.adapter in cargo]
    trial = _Trial(known, cargo, pace or Pace())
    better = trial.with_pins(replace(today, pins=frozenset(), unload_after={}, rests_below=frozenset()))
    better = trial.with_ram(better)
    better = trial.with_time_out(better)
    best = trial.outcome(optimum(better))
    set_ups = {"the engine's LRU alone": lru_alone(today), "today": today}
    outcomes = {name: trial.outcome(setup) for name, setup in set_ups.items()} | {
        "advised": trial.outcome(better),
        "optimum": best,
    }
    return Advice(
        visits=len(known),
        seconds=known[-1].at - known[0].at if known else 0.0,
        slots=better.slots,
        ram=int(better.ram),
        lines=tuple(Line(name, outcome, share(best, outcome)) for name, outcome in outcomes.items()),
        roles=trial.roles(better),
    )


@dataclass(frozen=True)
class _Trial:
    visits: Sequence[Visit]
    cargo: Mapping[str, Cargo]
    pace: Pace

    @cached_property
    def times(self) -> Mapping[str, list[float]]:
        """When each role was wanted."""
        found: dict[str, list[float]] = {name: [] for name in self.cargo}
        for visit in self.visits:
            found[visit.adapter].append(visit.at)
        return found

    def outcome(self, setup: SetUp) -> Outcome:
        return replay(self.visits, self.cargo, setup, pace=self.pace)

    def by_worth(self) -> list[str]:
        """Roles by the seconds that bringing them back at every visit would cost, most first."""
        return sorted(self.cargo, key=lambda name: (-len(self.times[name]) * self._back(name), name))

    def with_pins(self, setup: SetUp) -> SetUp:
        """As many of the most wanted as it pays to pin, and a slot left for the others."""
        wanted = [name for name in self.by_worth() if self.times[name]]
        best, least = setup, self.outcome(setup).mean
        for count in range(1, min(MOST_PINS, setup.slots - 1, len(wanted)) + 1):
            pinned = replace(setup, pins=frozenset(wanted[:count]))
            mean = self.outcome(pinned).mean
            if mean < WORTH_PINNING * least:
                best, least = pinned, mean
        return best

    def with_ram(self, setup: SetUp) -> SetUp:
        """The least RAM that is next to as good as all of it."""
        whole = sum(one.octets for one in self.cargo.values())
        return _least((replace(setup, ram=whole * part) for part in RAM_SHARES), self)

    def with_time_out(self, setup: SetUp) -> SetUp:
        """The shortest time-out that is next to as good as none."""
        limited = (replace(setup, unload_after=dict.fromkeys(self.cargo, limit)) for limit in TIME_OUTS)
        return _least((*limited, setup), self)

    def roles(self, setup: SetUp) -> tuple[RoleAdvice, ...]:
        in_ram = self._in_ram(setup)
        return tuple(self._role(name, setup, in_ram) for name in self.by_worth())

    def _role(self, name: str, setup: SetUp, in_ram: set[str]) -> RoleAdvice:
        times = self.times[name]
        gaps = [after - before for before, after in pairwise(times)]
        pinned = name in setup.pins
        return RoleAdvice(
            role=name,
            visits=len(times),
            gap=median(gaps) if gaps else None,
            location="vram" if pinned else "ram" if name in in_ram else "disk",
            warm="start" if pinned else "predicted" if times else "demand",
            pin=pinned,
            unload_after=None if pinned else setup.unload_after.get(name),
        )

    def _in_ram(self, setup: SetUp) -> set[str]:
        """Who rests in RAM, as far as it reaches, in order of worth per byte."""
        wanted = [name for name, times in self.times.items() if times and name not in setup.pins]
        wanted.sort(
            key=lambda name: -len(self.times[name]) * self._back(name) / max(1, self.cargo[name].octets)
        )
        used = accumulate(self.cargo[name].octets for name in wanted)
        return {name for name, total in zip(wanted, used, strict=True) if total <= setup.ram}

    def _back(self, name: str) -> float:
        return self.pace.seconds("copy", self.cargo[name].octets)


def _least(setups: Iterable[SetUp], trial: _Trial) -> SetUp:
    """The first that is next to as good as the best; the caller puts the cheapest first."""
    tried = [(setup, trial.outcome(setup).mean) for setup in setups]
    limit = min(mean for _setup, mean in tried) * NEXT_TO_NOTHING + 1e-9
    return next(setup for setup, mean in tried if mean <= limit)
