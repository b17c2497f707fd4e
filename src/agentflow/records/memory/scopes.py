"""Collections and the searchable sets within them, by name; made at first use and then remembered."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentflow.errors import SchemaMismatch
from agentflow.protocols import Scope
from agentflow.records.connections import Connection, Connections
from agentflow.settings import Collection

COLLECTION = """
insert into collection (tenant, name, backend, location, dim, embed_model)
values (%(tenant)s, %(name)s, %(backend)s, %(location)s, %(dim)s, %(model)s)
on conflict (tenant, name) do update set backend = excluded.backend, location = excluded.location
returning id, dim, embed_model, exists (
  select from pg_index where indexrelid = to_regclass('agentflow.memory_c' || id || '_hnsw') and indisvalid)
"""
SCOPE = """
insert into scope (tenant, collection_id, user_ref, role_name, thread_id)
values (%(tenant)s, %(collection)s, %(user)s, %(role)s, %(thread)s)
on conflict (collection_id, user_ref, role_name, thread_id) do update set tenant = excluded.tenant
returning id, n_docs
"""


@dataclass(frozen=True)
class Place:
    """Row ids of a collection and of one scope in it, and how many items the scope had when it was looked up."""

    collection_id: int
    scope_id: int
    items: int = 0


@dataclass(frozen=True)
class Scopes:
    """Finds places; `model` and `dim` are the embedder's, and a collection keeps to the one it began with.

    `indexed`: collections that have a vector index (records/memory/indexes.py).
    """

    connections: Connections
    collections: Mapping[str, Collection]
    model: str
    dim: int
    known: dict[Scope, Place] = field(default_factory=dict)
    indexed: set[int] = field(default_factory=set)

    async def find(self, tenant: int, collection: str, user: str | None) -> Place:
        """As `of`, for a user's own in a collection."""
        return await self.of(Scope(tenant, collection, user))

    async def of(self, scope: Scope) -> Place:
        """Raises SchemaMismatch if the collection's vectors are another embedder's."""
        if scope not in self.known:
            async with self.connections.use(scope.owner) as connection:
                self.known[scope] = await self._make(connection, scope)
        return self.known[scope]

    async def anew(self, scope: Scope) -> Place:
        """As `of`, but asked of the database again: for who writes outside a turn, and learns of nothing there."""
        self.known.pop(scope, None)
        return await self.of(scope)

    def language(self, collection: str) -> str:
        """As the settings name it: a language, "auto" or "simple"."""
        return self.collections[collection].language if collection in self.collections else "auto"

    async def _make(self, connection: Connection, scope: Scope) -> Place:
        tenant, collection = scope.tenant, scope.collection
        settings = self.collections.get(collection, Collection())
        parameters = {
            "tenant": tenant,
            "name": collection,
            "backend": settings.backend,
            "location": settings.location,
            "dim": self.dim,
            "model": self.model,
        }
        cursor = await connection.execute(COLLECTION, parameters)
        row = await cursor.fetchone()
        if row is None:
            raise SchemaMismatch(f"The collection {collection} cannot be read.")
        collection_id, dim, model, has_index = row
        if (dim, model) != (self.dim, self.model):
            raise SchemaMismatch(
                f"The collection {collection} holds vectors of {model} ({dim} dimensions), but the embedder is "
                f"{self.model} ({self.dim}). Go back to the former embedder; or take the memories along: "
                "`agentflow memory export FILE` as it is, then `import` it into a new database.",
                field=f"collections.{collection}",
                value=model,
            )
        named = {"user": scope.user, "role": scope.role, "thread": scope.thread}
        cursor = await connection.execute(SCOPE, {"tenant": tenant, "collection": collection_id, **named})
        found = await cursor.fetchone()
        if has_index:
            self.indexed.add(collection_id)
        return Place(collection_id, *found) if found else Place(collection_id, 0)
