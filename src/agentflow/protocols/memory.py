"""Where memories are found, and where their vectors are."""

from collections.abc import Sequence
from typing import Protocol

from agentflow.protocols.embedders import Vectors
from agentflow.protocols.scopes import Beside, Owner, Scope
from agentflow.turn import Recollection


class MemoryHome(Protocol):
    """Where memories are found. Writing happens in the ledger's one transaction or its outbox."""

    async def search(self, scope: Scope, text: str, vector: Vectors | None, k: int) -> list[Recollection]:
        """The k best items by words and, given the text's vector, by meaning; best first.

        `score` is the relevance of retrieval.fusion, `why` explains the place. Items are found by their
        words as soon as they are written. Raises DatabaseDown, SchemaMismatch, and HomeDown when the
        collection's vectors are elsewhere and cannot be reached: without a vector the words still answer.
        """
        ...

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """Items by id, in that order, without `why`."""
        ...

    async def beside(
        self, owner: Owner, *, role: str | None, thread: str | None, collections: Sequence[str]
    ) -> Beside:
        """Documents in `collections` and DOCUMENTS for the user, role and thread; pinned memories of `collections`."""
        ...

    async def forget(self, scope: Scope, ids: Sequence[int] | None = None) -> int:
        """Delete items of the scope (None: all of them) with their words and statistics; returns how many.

        It is one transaction. Vectors in other places follow: every deletion is in the log that they read.
        """
        ...


class VectorHome(Protocol):
    """Vectors by item id, in a place of their own; searched within one scope (the record's scope id) at a time.

    Postgres keeps the record: texts, words, and the vectors themselves, so that any place can be filled again.
    Everything may be repeated without harm, and raises HomeDown when the place cannot be reached.
    """

    @property
    def place(self) -> str:
        """Names this content to people: the same after a restart, another one after the content was lost."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether the content outlives this process."""
        ...

    async def open(self) -> None:
        """Reach the place, or make it; `place` is known from here on. Opening twice changes nothing."""
        ...

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """Add or replace vectors: float32 [len(ids), dim], rows of length 1."""
        ...

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """Unknown ids are no error."""
        ...

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """Ids of the k nearest by cosine, best first; fewer if there are no more."""
        ...

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that the scope does not hold, in their order."""
        ...

    async def count(self, scope: int) -> int | None:
        """How many vectors the scope holds; None where the place cannot tell."""
        ...

    async def flush(self) -> None:
        """Returns once all that was put and deleted outlives this process, where anything does."""
        ...

    async def drop(self, scope: int) -> None:
        """Delete all that the scope holds."""
        ...

    async def close(self) -> None: ...
