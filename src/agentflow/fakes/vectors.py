"""A home of vectors in a dictionary."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agentflow.errors import HomeDown
from agentflow.protocols import Vectors


@dataclass
class FakeVectors:
    """See VectorHome. While `down`, nothing answers."""

    place: str = "a dictionary"
    lasting: bool = False
    scopes: dict[int, dict[int, Vectors]] = field(default_factory=dict)
    down: bool = False
    told: list[tuple[str, int]] = field(default_factory=list)

    async def open(self) -> None:
        """See VectorHome.open."""
        self._reached()

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """See VectorHome.put."""
        self._reached(scope).update(zip(ids, vectors, strict=True))
        self.told += [("put", one) for one in ids]

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """See VectorHome.delete."""
        for one in ids:
            self._reached(scope).pop(one, None)
            self.told.append(("delete", one))

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """See VectorHome.nearest."""
        held = self._reached(scope)
        return sorted(held, key=lambda one: -float(np.dot(held[one], vector)))[:k]

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """See VectorHome.missing."""
        held = self._reached(scope)
        return [one for one in ids if one not in held]

    async def count(self, scope: int) -> int | None:
        """See VectorHome.count."""
        return len(self._reached(scope))

    async def flush(self) -> None:
        """See VectorHome.flush."""
        self._reached()

    async def drop(self, scope: int) -> None:
        """See VectorHome.drop."""
        self._reached(scope).clear()

    async def close(self) -> None:
        """Nothing is held."""

    def _reached(self, scope: int = 0) -> dict[int, Vectors]:
        if self.down:
            raise HomeDown(f"{self.place} does not answer.", value=self.place)
        return self.scopes.setdefault(scope, {})
