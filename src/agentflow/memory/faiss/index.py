"""The vectors of one scope: a base that FAISS searches, and what has changed since it was built.

A base is exact while it is small and a graph (HNSW) above; graphs cannot delete, so deleted and replaced vectors
are left out of answers until the next building. New ones wait in a tail, which is compared one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from agentflow.protocols import Vectors

Ids = NDArray[np.int64]
Base = Any  # a faiss.IndexIDMap2 around an index; its types say little
LINKS, BUILD_WIDTH, SEARCH_WIDTH = 32, 80, 128
"""HNSW's M, efConstruction and efSearch: recall@10 over .98 at 100,000 clustered vectors of 384 dimensions."""
STALE = 0.1
"""A base is built anew when more than this share of it is gone."""


@dataclass
class ScopeIndex:
    """Not for several threads at once. A base never changes once it is here, so another can be built beside it.

    `gone` are those ids of the base that no longer count: deleted, or newer in the tail.
    """

    dim: int
    exact_below: int
    base: Base | None = None
    tail: dict[int, Vectors] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known = _ids_of(self.base)
        self._stacked: tuple[Ids, Vectors] | None = None

    def __len__(self) -> int:
        return len(self._known) - len(self.gone) + len(self.tail)

    def put(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add or replace; what is there already is left alone."""
        rows = dict(zip(ids, np.asarray(vectors, np.float32), strict=True))
        held = self._in_base(ids) - self.gone
        new = {one: row for one, row in rows.items() if one not in held or not self._is_same(one, row)}
        self.gone |= held & new.keys()
        self.tail |= new
        self._stacked = None

    def delete(self, ids: Sequence[int]) -> None:
        self.gone |= self._in_base(ids)
        for one in ids:
            self.tail.pop(one, None)
        self._stacked = None

    def missing(self, ids: Sequence[int]) -> list[int]:
        held = (self._in_base(ids) - self.gone) | self.tail.keys()
        return [one for one in ids if one not in held]

    def nearest(self, vector: Vectors, k: int) -> list[int]:
        """By cosine, best first."""
        query = np.asarray(vector, np.float32).reshape(1, -1)
        found = [*self._in_tail(query, k), *self._beyond_gone(query, k)]
        found.sort(reverse=True)
        return [one for _, one in found[:k]]

    def plan(self, copy: Callable[[], Base]) -> Callable[[], Base]:
        """How to make a base with everything of this moment in it; it may run while searches go on.

        `copy` gives the present base once more, to add to.
        """
        small = self.base is None or not _is_graph(self.base)
        replaced = not self.gone.isdisjoint(self.tail)
        if small or replaced or len(self.gone) > STALE * len(self._known):
            ids, vectors = self.everything()
            return lambda: built(ids, vectors, self.dim, self.exact_below)
        ids, vectors = self._tail()
        return lambda: _grown(copy(), ids, vectors)

    def rest_on(self, base: Base, taken: Mapping[int, Vectors]) -> None:
        """Search this base from now on; `taken` is the tail that is in it. What changed meanwhile stays beside it."""
        changed = {one for one, vector in taken.items() if self.tail.get(one) is not vector}
        left = self.gone - taken.keys() | changed
        self.base, self._known = base, _ids_of(base)
        self.tail = {one: vector for one, vector in self.tail.items() if taken.get(one) is not vector}
        self.gone = self._in_base(list(left))
        self._stacked = None

    def everything(self) -> tuple[Ids, Vectors]:
        """All ids with their vectors."""
        tail_ids, tail = self._tail()
        if self.base is None:
            return tail_ids, tail
        rows = np.flatnonzero(~np.isin(faiss.vector_to_array(self.base.id_map), list(self.gone)))
        inner = faiss.downcast_index(self.base.index)
        kept = inner.reconstruct_n(0, inner.ntotal)[rows]
        ids = faiss.vector_to_array(self.base.id_map)[rows]
        return np.concatenate([ids, tail_ids]), np.concatenate([kept, tail])

    def _in_base(self, ids: Sequence[int]) -> set[int]:
        asked = np.asarray(ids, np.int64)
        if not len(self._known):
            return set()
        places = np.minimum(np.searchsorted(self._known, asked), len(self._known) - 1)
        return set(asked[self._known[places] == asked].tolist())

    def _is_same(self, one: int, vector: Vectors) -> bool:
        return self.base is not None and np.allclose(self.base.reconstruct(one), vector, atol=1e-4)

    def _tail(self) -> tuple[Ids, Vectors]:
        if self._stacked is None:
            vectors = np.array(list(self.tail.values()), np.float32).reshape(-1, self.dim)
            self._stacked = np.fromiter(self.tail, np.int64), vectors
        return self._stacked

    def _in_tail(self, query: Vectors, k: int) -> list[tuple[float, int]]:
        ids, vectors = self._tail()
        scores = vectors @ query[0]
        best = np.argsort(-scores)[:k]
        return list(zip(scores[best].tolist(), ids[best].tolist(), strict=True))

    def _beyond_gone(self, query: Vectors, k: int) -> list[tuple[float, int]]:
        """Ask for more until `k` of the answers still count."""
        if self.base is None:
            return []
        wanted = k + min(len(self.gone), k)
        while True:
            scores, ids = self.base.search(query, min(wanted, len(self._known)))
            pairs = zip(scores[0].tolist(), ids[0].tolist(), strict=True)
            found = [(score, one) for score, one in pairs if one >= 0 and one not in self.gone]
            if len(found) >= k or wanted >= len(self._known):
                return found[:k]
            wanted *= 4


def built(ids: Ids, vectors: Vectors, dim: int, exact_below: int) -> Base:
    """A base: exact below that many vectors, a graph from there on."""
    inner: Any = faiss.IndexFlatIP(dim)
    if len(ids) >= exact_below:
        inner = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        inner.hnsw.efConstruction, inner.hnsw.efSearch = BUILD_WIDTH, SEARCH_WIDTH
    base = faiss.IndexIDMap2(inner)
    base.add_with_ids(vectors, ids)
    return base


def _grown(base: Base, ids: Ids, vectors: Vectors) -> Base:
    base.add_with_ids(vectors, ids)
    return base


def _is_graph(base: Base) -> bool:
    """Exact bases are built anew, because that is quick, and so become graphs in time."""
    return isinstance(faiss.downcast_index(base.index), faiss.IndexHNSW)


def _ids_of(base: Base | None) -> Ids:
    return np.empty(0, np.int64) if base is None else np.sort(faiss.vector_to_array(base.id_map))
