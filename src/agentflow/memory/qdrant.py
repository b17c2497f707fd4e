"""A home of vectors in Qdrant: in this process (RAM or a folder), or a server."""

import asyncio
import uuid
import warnings
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException

from agentflow.errors import HomeDown
from agentflow.protocols import Vectors

Result = TypeVar("Result")
BATCH = 500


@dataclass(frozen=True)
class QdrantPlace:
    """Where Qdrant is: a folder, a server's `url`, or neither: RAM. `api_key` and `timeout` (s) are the server's."""

    folder: Path | None = None
    url: str | None = None
    api_key: str | None = None
    timeout: int = 30


class QdrantHome:
    """See VectorHome. All scopes are in one Qdrant collection, told apart by an indexed payload field."""

    def __init__(self, dim: int, collection: str, where: QdrantPlace | None = None) -> None:
        self._dim, self._collection = dim, collection
        self._where = where or QdrantPlace()
        self._client: AsyncQdrantClient | None = None
        self._ram = uuid.uuid4().hex[:12]
        self._opening = asyncio.Lock()

    @property
    def place(self) -> str:
        """See VectorHome.place."""
        if self._where.url:
            return f"qdrant at {self._where.url}, collection {self._collection}"
        if self._where.folder:
            return f"qdrant in {self._where.folder}, collection {self._collection}"
        return f"qdrant in RAM #{self._ram}"

    @property
    def lasting(self) -> bool:
        return self._where.url is not None or self._where.folder is not None

    async def open(self) -> None:
        """See VectorHome.open; an existing collection of other dimensions is refused."""
        async with self._opening:
            if self._client is None:
                client = self._connected()
                try:
                    await self._reached(self._prepared(client))
                except HomeDown:
                    await client.close()
                    raise
                self._client = client

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """See VectorHome.put."""
        for start in range(0, len(ids), BATCH):
            numbers = list(ids[start : start + BATCH])
            points = models.Batch(
                ids=numbers,
                vectors=vectors[start : start + BATCH].tolist(),
                payloads=[{"scope": scope}] * len(numbers),
            )
            client = await self._open_client()
            await self._reached(client.upsert(self._collection, points, wait=True))

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """See VectorHome.delete."""
        client = await self._open_client()
        for start in range(0, len(ids), BATCH):
            chosen = models.Filter(
                must=[_of(scope), models.HasIdCondition(has_id=[*ids[start : start + BATCH]])]
            )
            selector = models.FilterSelector(filter=chosen)
            await self._reached(client.delete(self._collection, selector, wait=True))

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """See VectorHome.nearest."""
        client = await self._open_client()
        chosen = models.Filter(must=[_of(scope)])
        found = await self._reached(
            client.query_points(
                self._collection, query=vector.tolist(), query_filter=chosen, limit=k, with_payload=False
            )
        )
        return [int(point.id) for point in found.points]

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """See VectorHome.missing."""
        client, held = await self._open_client(), set()
        for start in range(0, len(ids), BATCH):
            asked = list(ids[start : start + BATCH])
            points = await self._reached(client.retrieve(self._collection, asked, with_payload=True))
            held |= {point.id for point in points if (point.payload or {}).get("scope") == scope}
        return [one for one in ids if one not in held]

    async def count(self, scope: int) -> int | None:
        """See VectorHome.count."""
        client = await self._open_client()
        chosen = models.Filter(must=[_of(scope)])
        return int((await self._reached(client.count(self._collection, chosen, exact=True))).count)

    async def flush(self) -> None:
        """Every write waits until Qdrant has it."""

    async def drop(self, scope: int) -> None:
        """See VectorHome.drop."""
        client = await self._open_client()
        selector = models.FilterSelector(filter=models.Filter(must=[_of(scope)]))
        await self._reached(client.delete(self._collection, selector, wait=True))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open_client(self) -> AsyncQdrantClient:
        if self._client is None:
            await self.open()
        if self._client is None:
            raise HomeDown(f"{self.place} is closed.")
        return self._client

    def _connected(self) -> AsyncQdrantClient:
        where = self._where
        try:
            if where.url:
                return AsyncQdrantClient(
                    url=where.url, api_key=where.api_key, timeout=where.timeout, check_compatibility=False
                )
            if where.folder:
                return AsyncQdrantClient(path=str(where.folder))
        except (RuntimeError, OSError) as error:
            raise HomeDown(f"{self.place} cannot be opened ({error}).", value=self.place) from error
        return AsyncQdrantClient(location=":memory:")

    async def _prepared(self, client: AsyncQdrantClient) -> None:
        if not await client.collection_exists(self._collection):
            shape = models.VectorParams(size=self._dim, distance=models.Distance.COSINE)
            await client.create_collection(self._collection, vectors_config=shape)
        found = (await client.get_collection(self._collection)).config.params.vectors
        size = found.size if isinstance(found, models.VectorParams) else None
        if size != self._dim:
            raise HomeDown(
                f"{self.place} holds vectors of {size} dimensions, the embedder gives {self._dim}; name another one "
                "with options.index.",
                field="options.index",
                value=self._collection,
            )
        if self._where.url:
            keyed = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, is_principal=True)
            await client.create_payload_index(self._collection, "scope", field_schema=keyed, wait=True)

    async def _reached(self, asked: Awaitable[Result]) -> Result:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its advice on large local collections
                return await asked
        except (ApiException, httpx.HTTPError, OSError, ValueError) as error:
            raise HomeDown(f"{self.place} does not answer ({error}).", value=self.place) from error


def _of(scope: int) -> models.FieldCondition:
    return models.FieldCondition(key="scope", match=models.MatchValue(value=scope))
