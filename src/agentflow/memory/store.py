"""Memories read as a LangGraph store: namespace ("memories", collection), key the memory's number.

    found = await store.asearch(("memories", "conversations"), query="What is my dog called?")

It is read-only: memories come from turns and documents, and go by `agentflow memory forget`.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.store.base import BaseStore, GetOp, Item, ListNamespacesOp, Op, Result, SearchItem, SearchOp

from agentflow.errors import BadInput, NotFound
from agentflow.protocols import Embedder, MemoryHome, Owner, Scope, Vectors
from agentflow.records.memory import rights as owned
from agentflow.records.memory.rights import Filter, Rights
from agentflow.turn import Json

ROOT = "memories"


@dataclass(frozen=True)
class MemoryStore(BaseStore):
    """One user's memories; others' do not exist in it."""

    home: MemoryHome
    rights: Rights
    embedder: Embedder
    owner: Owner
    collections: tuple[str, ...]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See BaseStore. Raises BadInput for a write, DatabaseDown, EmbedderError."""
        return [await self._one(op) for op in ops]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """See BaseStore; outside of an event loop only."""
        return asyncio.run(self.abatch(ops))

    async def _one(self, op: Op) -> Result:
        match op:
            case SearchOp():
                return await self._found(op)
            case GetOp():
                return await self._got(op)
            case ListNamespacesOp():
                names: list[tuple[str, ...]] = [(ROOT, name) for name in self.collections]
                return names[op.offset : op.offset + op.limit]
            case _:
                message = "Memories are not written through the store: say them in a turn, or add a document."
                raise BadInput(message, field="namespace")

    async def _got(self, op: GetOp) -> Item | None:
        (name,) = self._named(op.namespace) or (None,)
        try:
            one = await self.rights.shown(self._mine, int(op.key)) if name else None
        except (NotFound, ValueError):
            return None
        if one is None or one["collection"] != name:
            return None
        return Item(value=_value(one), key=op.key, namespace=op.namespace, **_times(one))

    async def _found(self, op: SearchOp) -> list[SearchItem]:
        names = self._named(op.namespace_prefix)
        if op.query is None or not op.query.strip():
            found = [pair for name in names for pair in await self._listed(name, op.limit + op.offset)]
        else:
            vector: Vectors = (await self.embedder.embed([op.query]))[0]
            found = [
                pair
                for name in names
                for pair in await self._searched(name, op.query, vector, op.limit + op.offset)
            ]
            found.sort(key=lambda pair: -(pair[1] or 0))
        kept = [(one, score) for one, score in found if _fits(_value(one), op.filter)]
        return [_item(one, score) for one, score in kept[op.offset : op.offset + op.limit]]

    async def _listed(self, name: str, limit: int) -> list[tuple[Json, float | None]]:
        return [(one, None) for one in await self.rights.listed(self._mine, Filter(name, limit=limit))]

    async def _searched(
        self, name: str, query: str, vector: Vectors, k: int
    ) -> list[tuple[Json, float | None]]:
        scope = Scope(self.owner.tenant, name, self.owner.user)
        return [(dict(one), one["score"]) for one in await self.home.search(scope, query, vector, k)]

    def _named(self, namespace: tuple[str, ...]) -> tuple[str, ...]:
        """The collections below a namespace."""
        root, *rest = namespace or (ROOT,)
        if root != ROOT or len(rest) > 1:
            return ()
        return tuple(name for name in self.collections if not rest or name == rest[0])

    @property
    def _mine(self) -> owned.Owner:
        return owned.Owner(self.owner.tenant, self.owner.user or "")


def _value(one: Json) -> Json:
    return {key: one[key] for key in ("content", "speaker", "said_at", "cited") if one.get(key)}


def _times(one: Json) -> dict[str, Any]:
    said = datetime.fromisoformat(one["said_at"])
    return {"created_at": said, "updated_at": said}


def _fits(value: Json, wanted: Json | None) -> bool:
    return all(value.get(key) == one for key, one in (wanted or {}).items())


def _item(one: Json, score: float | None) -> SearchItem:
    return SearchItem(
        namespace=(ROOT, one["collection"]),
        key=str(one["id"]),
        value=_value(one),
        score=score,
        **_times(one),
    )
