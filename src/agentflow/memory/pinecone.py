"""A home of vectors in Pinecone: one namespace per scope of an index that exists (cosine, the embedder's width)."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pinecone import AsyncIndex, AsyncPinecone
from pinecone.errors import NotFoundError, PineconeError

from agentflow.errors import HomeDown
from agentflow.protocols import Vectors

Result = TypeVar("Result")
BATCH = 200
"""Vectors per request; its limit is 1,000 or 2 MB."""


@dataclass(frozen=True)
class PineconePlace:
    """The index by its `host` (https://...), or by its `name`, which asks Pinecone for the host once."""

    api_key: str
    name: str = ""
    host: str = ""
    timeout: float = 30.0


class PineconeHome:
    """See VectorHome. Pinecone is eventually consistent: what was put can be found a moment later."""

    def __init__(self, dim: int, prefix: str, where: PineconePlace) -> None:
        self._dim, self._prefix, self._where = dim, prefix, where
        self._index: AsyncIndex | None = None
        self._opening = asyncio.Lock()

    @property
    def place(self) -> str:
        """See VectorHome.place."""
        return f"pinecone index {self._where.name or self._where.host}, namespaces {self._prefix}-*"

    @property
    def lasting(self) -> bool:
        return True

    async def open(self) -> None:
        """See VectorHome.open; an index of other dimensions is refused."""
        async with self._opening:
            if self._index is not None:
                return
            index = await self._reached(self._found())
            try:
                shape = (await self._reached(index.describe_index_stats())).dimension
            except HomeDown:
                await index.close()
                raise
            if shape != self._dim:
                await index.close()
                raise HomeDown(
                    f"{self.place} holds vectors of {shape} dimensions, the embedder gives {self._dim}; name another "
                    "index with options.index.",
                    field="options.index",
                    value=self._where.name,
                )
            self._index = index

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """See VectorHome.put."""
        index = await self._open_index()
        for start in range(0, len(ids), BATCH):
            rows = zip(ids[start : start + BATCH], vectors[start : start + BATCH].tolist(), strict=True)
            points = [(str(one), row) for one, row in rows]
            await self._reached(
                index.upsert(vectors=points, namespace=self._space(scope), show_progress=False)
            )

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """See VectorHome.delete."""
        index = await self._open_index()
        for start in range(0, len(ids), BATCH):
            names = [str(one) for one in ids[start : start + BATCH]]
            await self._gone(index.delete(ids=names, namespace=self._space(scope)))

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """See VectorHome.nearest."""
        index = await self._open_index()
        query = index.query(vector=vector.tolist(), top_k=k, namespace=self._space(scope))
        return [int(match.id) for match in (await self._reached(query)).matches]

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """See VectorHome.missing."""
        index, held = await self._open_index(), set[str]()
        for start in range(0, len(ids), BATCH):
            names = [str(one) for one in ids[start : start + BATCH]]
            found = await self._reached(index.fetch(ids=names, namespace=self._space(scope)))
            held |= found.vectors.keys()
        return [one for one in ids if str(one) not in held]

    async def count(self, scope: int) -> int | None:
        """See VectorHome.count."""
        index = await self._open_index()
        spaces = (await self._reached(index.describe_index_stats())).namespaces
        space = spaces.get(self._space(scope))
        return 0 if space is None else int(space.vector_count)

    async def flush(self) -> None:
        """A write that was answered is kept."""

    async def drop(self, scope: int) -> None:
        """See VectorHome.drop."""
        index = await self._open_index()
        await self._gone(index.delete(delete_all=True, namespace=self._space(scope)))

    async def close(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            await index.close()

    def _space(self, scope: int) -> str:
        return f"{self._prefix}-{scope}"

    async def _found(self) -> AsyncIndex:
        where = self._where
        if where.host:
            return AsyncIndex(host=where.host, api_key=where.api_key, timeout=where.timeout)
        async with AsyncPinecone(where.api_key, timeout=where.timeout) as client:
            host = (await client.describe_index(where.name)).host
        return AsyncIndex(host=host or "", api_key=where.api_key, timeout=where.timeout)

    async def _open_index(self) -> AsyncIndex:
        if self._index is None:
            await self.open()
        if self._index is None:
            raise HomeDown(f"{self.place} is closed.")
        return self._index

    async def _gone(self, asked: Awaitable[object]) -> None:
        """A namespace that is not there holds nothing."""
        try:
            await self._reached(asked)
        except HomeDown as error:
            if not isinstance(error.__cause__, NotFoundError):
                raise

    async def _reached(self, asked: Awaitable[Result]) -> Result:
        try:
            return await asked
        except (PineconeError, OSError) as error:
            raise HomeDown(f"{self.place} does not answer ({error}).", value=self.place) from error
