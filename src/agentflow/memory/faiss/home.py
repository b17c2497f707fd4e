"""A home of vectors in this process: one index per scope, in RAM or in a folder."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import faiss

from agentflow.errors import HomeDown
from agentflow.memory.faiss.files import Folder
from agentflow.memory.faiss.index import Base, ScopeIndex
from agentflow.protocols import Vectors

Result = TypeVar("Result")
TAIL = 2000
"""New vectors that wait beside a base until it is built again."""
OPENED = 1000
"""Scopes of a folder that stay open."""


@dataclass
class _Scope:
    """`changed`: more than what is on disk."""

    index: ScopeIndex
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    changed: bool = False


class FaissHome:
    """See VectorHome. Without `folder` vectors are in RAM only; searching is exact below `exact_below` per scope."""

    def __init__(self, dim: int, folder: Path | None = None, *, exact_below: int = 20_000) -> None:
        self._dim = dim
        self._folder = None if folder is None else Folder(folder)
        self._exact_below = exact_below
        self._scopes: dict[int, _Scope] = {}
        self._place = f"faiss in RAM #{uuid.uuid4().hex[:12]}"

    @property
    def place(self) -> str:
        """See VectorHome.place: a folder is another place once it was emptied."""
        return self._place

    @property
    def lasting(self) -> bool:
        return self._folder is not None

    async def open(self) -> None:
        """See VectorHome.open."""
        faiss.omp_set_num_threads(1)
        if self._folder is not None:
            name = await self._quietly(self._folder.name)
            place = f"faiss in {self._folder.path} #{name}"
            if place != self._place:
                self._scopes.clear()
                self._place = place

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """See VectorHome.put."""
        held = await self._scope(scope)
        async with held.lock:
            await self._quietly(held.index.put, list(ids), vectors)
            held.changed = True
        if len(held.index.tail) > TAIL:
            await self._merge(scope, held)

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """See VectorHome.delete."""
        async with (held := await self._scope(scope)).lock:
            await self._quietly(held.index.delete, list(ids))
            held.changed = True

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """See VectorHome.nearest."""
        async with (held := await self._scope(scope)).lock:
            return await self._quietly(held.index.nearest, vector, k)

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """See VectorHome.missing."""
        async with (held := await self._scope(scope)).lock:
            return await self._quietly(held.index.missing, list(ids))

    async def count(self, scope: int) -> int | None:
        """See VectorHome.count."""
        return len((await self._scope(scope)).index)

    async def flush(self) -> None:
        """See VectorHome.flush."""
        for number, held in list(self._scopes.items()):
            async with held.lock:
                if self._folder is not None and held.changed:
                    await self._quietly(self._folder.save_changes, number, held.index)
                held.changed = False
        self._unload()

    async def drop(self, scope: int) -> None:
        """See VectorHome.drop."""
        self._scopes.pop(scope, None)
        if self._folder is not None:
            await self._quietly(self._folder.drop, scope)

    async def close(self) -> None:
        await self.flush()
        self._scopes.clear()

    def _unload(self) -> None:
        """Scopes that are on disk need not all stay in memory."""
        if self._folder is not None:
            for number in list(self._scopes)[:-OPENED]:
                held = self._scopes[number]
                if not held.changed and not held.lock.locked():
                    del self._scopes[number]

    async def _scope(self, number: int) -> _Scope:
        if number not in self._scopes:
            index = ScopeIndex(self._dim, self._exact_below)
            if self._folder is not None:
                index = await self._quietly(self._folder.read, number, self._dim, self._exact_below)
            self._scopes.setdefault(number, _Scope(index))
        return self._scopes[number]

    async def _merge(self, number: int, held: _Scope) -> None:
        """Build a base with the tail in it, while searches go on with the present one."""
        async with held.lock:
            taken = dict(held.index.tail)
            build = await self._quietly(held.index.plan, partial(self._copy, number, held.index.base))
        base = await self._quietly(build)
        if self._folder is not None:
            base = await self._quietly(self._folder.save_base, number, base)
        async with held.lock:
            await self._quietly(held.index.rest_on, base, taken)
            if self._folder is not None:
                await self._quietly(self._folder.save_changes, number, held.index)

    def _copy(self, number: int, base: Base) -> Base:
        return faiss.clone_index(base) if self._folder is None else self._folder.copy(number)

    async def _quietly(self, work: Callable[..., Result], *arguments: object) -> Result:
        """In a thread; a disk that fails is a place that cannot be reached."""
        try:
            return await asyncio.to_thread(work, *arguments)
        except (OSError, RuntimeError) as error:
            where = "RAM" if self._folder is None else str(self._folder.path)
            raise HomeDown(f"The vectors in {where} cannot be used ({error}).", value=where) from error
