"""The residency policy: pure functions of who is in, who is held, and the time."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """An adapter in the engine. `last_used` and `unload_after` are seconds; None: it may stay for ever."""

    name: str
    holds: int
    last_used: float
    pinned: bool
    unload_after: float | None


def victim(residents: Collection[Resident]) -> str | None:
    """Who must leave to make room: the least recently used that nobody holds; None if all are held or pinned."""
    free = [one for one in residents if one.holds == 0 and not one.pinned]
    return min(free, key=lambda one: (one.last_used, one.name)).name if free else None


def idle(residents: Collection[Resident], now: float) -> list[str]:
    """Who has been idle for longer than its time, longest first."""
    waiting = [
        one
        for one in residents
        if one.holds == 0
        and not one.pinned
        and one.unload_after is not None
        and now - one.last_used >= one.unload_after
    ]
    return [one.name for one in sorted(waiting, key=lambda one: (one.last_used, one.name))]
