"""Memories in Postgres: both arms of a search and everything around their hits in one round trip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentflow.memory.postgres.replies import Reply, recollections
from agentflow.memory.postgres.statements import (
    EXACT,
    HUGE,
    INDEXED,
    LARGE,
    VAST,
    Reach,
    Sought,
    found,
    whole,
)
from agentflow.protocols import Beside, Owner, Scope, Vectors
from agentflow.records.connections import Connections
from agentflow.records.memory.beside import beside, recollection
from agentflow.records.memory.places import Places
from agentflow.records.memory.postings import WHOLE
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.records.memory.writing import forgotten
from agentflow.retrieval.terms import DETECTED, question
from agentflow.turn import Recollection

FETCH = """
select m.id, m.speaker, m.said_at, m.content, m.thread_id, m.session_id, case m.kind when 2 then m.meta end
from memory m
where m.collection_id = %(collection)s and m.scope_id = %(scope)s and m.id = any(%(ids)s::bigint[]) and not m.hidden
order by array_position(%(ids)s::bigint[], m.id)
"""
TRUSTED = [1, 2, 3, 5]


class Standing(NamedTuple):
    """What the last search said of a scope: how many items it has, and whether it has postings."""

    items: float
    posted: bool


@dataclass(frozen=True)
class PostgresMemory:
    """The default home; `places` are those collections' whose vectors are searched elsewhere."""

    connections: Connections
    scopes: Scopes
    places: Places | None = None
    standings: dict[int, Standing] = field(default_factory=dict)

    async def search(self, scope: Scope, text: str, vector: Vectors | None, k: int) -> list[Recollection]:
        """See MemoryHome.search."""
        place = await self.scopes.of(scope)
        asked = question(text, self._languages(scope.collection))
        reach = self._reach(place)
        elsewhere = await self._elsewhere(scope, place, vector, reach)
        parameters = {
            "scope": place.scope_id,
            "terms": list(asked.terms),
            "languages": list(asked.languages),
            "trusts": TRUSTED,
        }
        sought = Sought(vector, elsewhere, reach)
        posted = self._standing(place).posted
        reply = await self._reply(scope.owner, place, sought, parameters, posted=posted)
        if reply is not None and reply.posted != posted:
            reply = await self._reply(scope.owner, place, sought, parameters, posted=reply.posted)
        if reply is None or reply.texts is None:
            return []
        return recollections(reply, asked, scope, k, sought)

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """See MemoryHome.fetch."""
        place = await self.scopes.of(scope)
        parameters = {"collection": place.collection_id, "scope": place.scope_id, "ids": list(ids)}
        async with self.connections.use(scope.owner) as connection:
            cursor = await connection.execute(FETCH, parameters)
            return [_fetched(row, scope) for row in await cursor.fetchall()]

    async def beside(
        self, owner: Owner, *, role: str | None, thread: str | None, collections: Sequence[str]
    ) -> Beside:
        """See MemoryHome.beside."""
        return await beside(self.connections, owner, role=role, thread=thread, collections=collections)

    async def forget(self, scope: Scope, ids: Sequence[int] | None = None) -> int:
        """See MemoryHome.forget."""
        place = await self.scopes.of(scope)
        async with self.connections.use(scope.owner) as connection, connection.transaction():
            return await forgotten(connection, place, ids)

    def _languages(self, collection: str) -> tuple[str, ...]:
        chosen = self.scopes.language(collection)
        return DETECTED if chosen == "auto" else (chosen,)

    async def _reply(
        self, owner: Owner, place: Place, sought: Sought, parameters: Mapping[str, Any], *, posted: bool
    ) -> Reply | None:
        """What a search says, and what it tells of the scope is noted: another process may have filled it."""
        async with (
            self.connections.use(owner, fixed_plan=posted and sought.reach is not EXACT) as connection,
            connection.cursor(binary=True) as cursor,
        ):
            if posted:
                statement = found(place, self.scopes.dim, sought)
            else:
                statement = whole(place, self.scopes.dim, vector=sought.vector is not None)
            await cursor.execute(statement, {**parameters, **sought.parameters})
            row = await cursor.fetchone()
        if row is None:
            return None
        reply = Reply(*row)
        self.standings[place.scope_id] = Standing(reply.documents, reply.posted)
        return reply

    async def _elsewhere(
        self, scope: Scope, place: Place, vector: Vectors | None, reach: Reach
    ) -> list[int] | None:
        """The nearest items as the collection's own place knows them; None: they are searched here."""
        if self.places is None or vector is None:
            return None
        return await self.places.nearest(scope.collection, place, vector, reach.width)

    def _standing(self, place: Place) -> Standing:
        return self.standings.get(place.scope_id, Standing(place.items, place.items > WHOLE))

    def _reach(self, place: Place) -> Reach:
        """A small scope is searched exactly and faster so; in an index its items would be few among many."""
        size = self._standing(place).items
        if place.collection_id not in self.scopes.indexed or size < LARGE:
            return EXACT
        return INDEXED if size < HUGE else VAST


def _fetched(row: Any, scope: Scope) -> Recollection:
    item, speaker, said_at, content, thread, session, cited = row
    found = recollection(item, scope.collection, speaker, said_at, content, thread, session)
    if cited:
        found["cited"] = cited
    return found
