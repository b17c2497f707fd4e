"""Memories in Postgres with pgvector: the exact nearest of one scope."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from pgvector import HalfVector

from agentflow.protocols import Scope, Vectors
from agentflow.records.connections import Connections
from agentflow.records.scopes import Scopes
from agentflow.turn import Recollection

COLUMNS = "m.id, m.speaker, m.said_at, m.content, m.thread_id"
LIVING = "m.collection_id = %(collection)s and m.scope_id = %(scope)s and not m.hidden"

SEARCH = f"""
select {COLUMNS}, 1 - (m.embedding <=> %(vector)s) as score
from memory m
where {LIVING} and m.embedding is not null and (m.expires_at is null or m.expires_at > now())
order by m.embedding <=> %(vector)s, m.id limit %(k)s
"""  # noqa: S608 - constants above

FETCH = f"""
select {COLUMNS}, 0::float8 from memory m where {LIVING} and m.id = any(%(ids)s::bigint[])
order by array_position(%(ids)s::bigint[], m.id)
"""  # noqa: S608 - constants above


@dataclass(frozen=True)
class PostgresMemory:
    """The default home; search is exact within a scope."""

    connections: Connections
    scopes: Scopes

    async def search(self, scope: Scope, vector: Vectors, k: int) -> list[Recollection]:
        """See MemoryHome.search; `score` is the cosine."""
        place = await self.scopes.find(scope.tenant, scope.collection, scope.user)
        parameters = {
            "collection": place.collection_id,
            "scope": place.scope_id,
            "vector": HalfVector(vector),
            "k": k,
        }
        return await self._rows(SEARCH, parameters, scope)

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """See MemoryHome.fetch."""
        place = await self.scopes.find(scope.tenant, scope.collection, scope.user)
        parameters = {"collection": place.collection_id, "scope": place.scope_id, "ids": list(ids)}
        return await self._rows(FETCH, parameters, scope)

    async def _rows(self, statement: str, parameters: dict[str, Any], scope: Scope) -> list[Recollection]:
        async with self.connections.use() as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return [_recollection(row, scope) for row in await cursor.fetchall()]


def _recollection(row: Any, scope: Scope) -> Recollection:
    item, speaker, said_at, content, thread, score = row
    return {
        "id": item,
        "collection": scope.collection,
        "speaker": speaker,
        "said_at": said_at.astimezone(UTC).isoformat(timespec="seconds"),
        "content": content,
        "score": round(float(score), 4),
        "thread_id": str(thread) if thread else None,
    }
