"""A home of vectors in any LangChain VectorStore, which is how the stores of langchain-community come in.

Texts do not leave Postgres: a document's content is its item's number, and the embedding that the store asks for is
the vector that we have computed already. Every scope has a store of its own.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TypeVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from agentflow.errors import HomeDown
from agentflow.protocols import Vectors

Result = TypeVar("Result")
Make = Callable[[int, Embeddings], VectorStore]
QUERY = "?"


class Handed(Embeddings):
    """Vectors by text, as they are handed over; the store believes it has embedded something."""

    def __init__(self) -> None:
        self._vectors: ContextVar[dict[str, list[float]]] = ContextVar("handed")

    def hand(self, vectors: dict[str, list[float]]) -> None:
        """For the calls that this task makes next, also in threads that it starts."""
        self._vectors.set(vectors)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        known = self._vectors.get()
        return [known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors.get()[text]


class LangChainHome:
    """See VectorHome. `make` builds a scope's store around the embedding it is given.

    A store that keeps its content (`lasting`) must be found again under the scope's number.
    """

    def __init__(self, make: Make, name: str, *, lasting: bool = False) -> None:
        self._make, self._lasting = make, lasting
        self._handed = Handed()
        self._stores: dict[int, VectorStore] = {}
        self._place = f"{name} through LangChain" + ("" if lasting else f" #{uuid.uuid4().hex[:12]}")

    @property
    def place(self) -> str:
        """See VectorHome.place."""
        return self._place

    @property
    def lasting(self) -> bool:
        return self._lasting

    async def open(self) -> None:
        """Stores are made with their scopes."""

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """See VectorHome.put; some stores refuse ids that they have, so these go first."""
        names = [str(one) for one in ids]
        held = set(await self._held(scope, names) or ())
        documents = [Document(name, id=name, metadata={"scope": scope}) for name in names]
        if held:
            await self._reached(self._store(scope).adelete(sorted(held)))
        self._handed.hand(dict(zip(names, vectors.tolist(), strict=True)))
        await self._reached(self._store(scope).aadd_documents(documents, ids=names))

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """See VectorHome.delete."""
        names = [str(one) for one in ids]
        held = await self._held(scope, names)
        leaving = names if held is None else [name for name in names if name in set(held)]
        if leaving:
            await self._reached(self._store(scope).adelete(leaving))

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """See VectorHome.nearest."""
        self._handed.hand({QUERY: vector.tolist()})
        found = await self._reached(self._store(scope).asimilarity_search(QUERY, k=k))
        return [int(one.page_content) for one in found]

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """See VectorHome.missing; none where the store cannot be asked by id."""
        held = await self._held(scope, [str(one) for one in ids])
        return [] if held is None else [one for one in ids if str(one) not in set(held)]

    async def count(self, scope: int) -> int | None:  # noqa: ARG002 - the protocol's
        """LangChain's interface cannot tell."""
        return None

    async def flush(self) -> None:
        """LangChain's interface knows no such moment."""

    async def drop(self, scope: int) -> None:
        """See VectorHome.drop."""
        store = self._store(scope)
        del self._stores[scope]
        if self._lasting:
            await self._reached(store.adelete(None))

    async def close(self) -> None:
        self._stores.clear()

    def _store(self, scope: int) -> VectorStore:
        if scope not in self._stores:
            self._stores[scope] = self._make(scope, self._handed)
        return self._stores[scope]

    async def _held(self, scope: int, names: Sequence[str]) -> list[str] | None:
        """Those of the names that the store has; None where it cannot be asked."""
        try:
            found = await self._reached(self._store(scope).aget_by_ids(names))
        except HomeDown as error:
            if isinstance(error.__cause__, NotImplementedError):
                return None
            raise
        return [one.page_content for one in found]

    async def _reached(self, asked: Awaitable[Result]) -> Result:
        try:
            return await asked
        except Exception as error:  # stores raise what their own drivers raise
            raise HomeDown(f"{self._place} does not answer ({error!r}).", value=self._place) from error
