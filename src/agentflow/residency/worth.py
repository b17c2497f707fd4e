"""Who leaves a full tier: three orders with one face, all pure (names, seconds and bytes in; a victim out).

AgedWorth is GreedyDual-Size-Frequency (Cherkasova 1998, after Cao and Irani 1997) whose counts fade: an
adapter is worth the seconds that it would cost to bring back, as often as it was wanted of late. Measured in
`benchmarks/residency.py` against Recency (least recently used) and Foreknown (Belady's optimum).
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from agentflow.residency.ranking import Ranking

MEGABYTE = 1e6
AGEING = 100
"""Accesses per resident after which every count is halved; 50 to 200 measure alike, 20 forgets too fast."""
FORGOTTEN = 0.1
"""A count below this is dropped."""

Free = Callable[[str], bool]


class Order(Protocol):
    """The order in which a tier gives up its adapters.

    `seconds` is what it costs now to bring the adapter back from where it would then be, `octets` its size,
    `now` any clock that does not run backwards.
    """

    def access(self, name: str, *, seconds: float, octets: float, now: float) -> None:
        """The adapter was wanted; call it at every request, resident or not, before `insert`."""
        ...

    def insert(self, name: str, *, seconds: float, octets: float, now: float) -> None:
        """The adapter is in the tier now."""
        ...

    def evict(self, name: str) -> None:
        """The adapter has left to make room."""
        ...

    def victim(self, may_go: Free) -> str | None:
        """Who leaves next among those that may go; None if none may. Changes nothing."""
        ...


class AgedWorth:
    """priority = clock + count * seconds / megabytes, for a tier capped in bytes.

    `in_bytes` False leaves the size out, for a tier capped in entries; the wrong one of the two is worse than
    LRU. The clock rises to the priority of whoever leaves, so that old fame is outbid by new wants. Ties go
    to the one that was wanted longest ago.
    """

    def __init__(self, *, in_bytes: bool = True) -> None:
        self._in_bytes = in_bytes
        self._clock = 0.0
        self._accesses = 0
        self._counts: dict[str, float] = {}
        self._ranking = Ranking()

    def access(self, name: str, *, seconds: float, octets: float, now: float) -> None:
        """See Order.access."""
        self._age()
        self._counts[name] = self._counts.get(name, 0.0) + 1.0
        if name in self._ranking:
            self._rank(name, seconds, octets, now)

    def insert(self, name: str, *, seconds: float, octets: float, now: float) -> None:
        """See Order.insert."""
        self._rank(name, seconds, octets, now)

    def evict(self, name: str) -> None:
        """See Order.evict."""
        key = self._ranking.drop(name)
        if key is not None:
            self._clock = max(self._clock, key[0])

    def forget(self, name: str) -> None:
        """The adapter left for another reason than room (idle, removed): the clock stays."""
        self._ranking.drop(name)

    def victim(self, may_go: Free) -> str | None:
        """See Order.victim."""
        return self._ranking.lowest(may_go)

    def priority(self, name: str) -> float | None:
        """The resident's priority: comparable with the other residents' only; None for who is not in the tier."""
        return self._ranking.key(name)[0] if name in self._ranking else None

    def count(self, name: str) -> float:
        """How often the adapter was wanted, faded."""
        return self._counts.get(name, 0.0)

    def _rank(self, name: str, seconds: float, octets: float, now: float) -> None:
        size = max(octets, 1.0) / MEGABYTE if self._in_bytes else 1.0
        self._ranking.put(name, (self._clock + self.count(name) * seconds / size, now))

    def _age(self) -> None:
        self._accesses += 1
        if self._accesses >= AGEING * max(1, len(self._ranking)):
            self._accesses = 0
            halved = {name: count / 2 for name, count in self._counts.items()}
            self._counts = {name: count for name, count in halved.items() if count >= FORGOTTEN}


class Recency:
    """Least recently used: what engines do."""

    def __init__(self) -> None:
        self._ranking = Ranking()

    def access(self, name: str, *, seconds: float, octets: float, now: float) -> None:
        """See Order.access."""
        if name in self._ranking:
            self.insert(name, seconds=seconds, octets=octets, now=now)

    def insert(self, name: str, *, seconds: float, octets: float, now: float) -> None:  # noqa: ARG002 - one face
        """See Order.insert."""
        self._ranking.put(name, (now,))

    def evict(self, name: str) -> None:
        """See Order.evict."""
        self._ranking.drop(name)

    def victim(self, may_go: Free) -> str | None:
        """See Order.victim."""
        return self._ranking.lowest(may_go)


class Foreknown:
    """Belady's optimum: who is wanted again last. `next_use` maps names to the place of their next request;
    the caller keeps it true before each `access`. A yardstick, since nobody knows the future.
    """

    def __init__(self, next_use: Mapping[str, float]) -> None:
        self._next_use = next_use
        self._ranking = Ranking()

    def access(self, name: str, *, seconds: float, octets: float, now: float) -> None:
        """See Order.access."""
        if name in self._ranking:
            self.insert(name, seconds=seconds, octets=octets, now=now)

    def insert(self, name: str, *, seconds: float, octets: float, now: float) -> None:  # noqa: ARG002 - one face
        """See Order.insert."""
        self._ranking.put(name, (-self._next_use.get(name, float("inf")),))

    def evict(self, name: str) -> None:
        """See Order.evict."""
        self._ranking.drop(name)

    def victim(self, may_go: Free) -> str | None:
        """See Order.victim."""
        return self._ranking.lowest(may_go)
