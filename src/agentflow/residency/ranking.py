"""Names in order of a number that changes: the lowest that may go, found without looking at all."""

import heapq
from collections.abc import Callable, Iterable

Key = tuple[float, ...]
PATIENCE = 32
"""Names that may not go and are passed over one by one, before all are looked at."""


class Ranking:
    """Names with a key each; lower keys go first. A changed key leaves its old entry in the heap, which is
    skipped when it comes up and swept out when stale entries outnumber the names.
    """

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._heap: list[tuple[Key, str]] = []

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, name: str) -> Key:
        """The name's key. Raises KeyError."""
        return self._keys[name]

    def names(self) -> Iterable[str]:
        return self._keys.keys()

    def put(self, name: str, key: Key) -> None:
        """Add the name or move it."""
        self._keys[name] = key
        heapq.heappush(self._heap, (key, name))
        if len(self._heap) > 64 + 4 * len(self._keys):
            self._heap = [(key, name) for name, key in self._keys.items()]
            heapq.heapify(self._heap)

    def drop(self, name: str) -> Key | None:
        """Take the name out; its key, or None where there was none."""
        return self._keys.pop(name, None)

    def lowest(self, may_go: Callable[[str], bool]) -> str | None:
        """The name with the lowest key of those that may go; None if none may."""
        passed: list[tuple[Key, str]] = []
        found = None
        while self._heap and found is None and len(passed) < PATIENCE:
            key, name = self._heap[0]
            if self._keys.get(name) != key:
                heapq.heappop(self._heap)
            elif may_go(name):
                found = name
            else:
                passed.append(heapq.heappop(self._heap))
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return self._scanned(may_go) if found is None and len(passed) == PATIENCE else found

    def _scanned(self, may_go: Callable[[str], bool]) -> str | None:
        """The same by looking at all: cheaper once many of the lowest may not go."""
        free = ((key, name) for name, key in self._keys.items() if may_go(name))
        return min(free, default=(None, None))[1]
