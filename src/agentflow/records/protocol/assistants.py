"""Assistants: a graph with settings under a name, in versions. Every graph has one of its own from the start."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import uuid_utils
from psycopg.types.json import Jsonb

from agentflow.errors import Busy, NotFound
from agentflow.protocols import Owner
from agentflow.records.connections import Connections
from agentflow.turn import Json

KNOWN = 1024
"""Assistants that a process remembers."""
FIELDS = ("graph", "name", "description", "config", "context", "meta")
COLUMNS = "id, graph, name, description, config, context, meta, version, created_at, updated_at"
SORTED_BY = {
    "assistant_id": "id", "created_at": "created_at", "updated_at": "updated_at", "name": "name",
    "graph_id": "graph",
}  # fmt: skip
NARROWED = """
from assistant where tenant = %(tenant)s and meta @> %(meta)s::jsonb
  and (%(graph)s::text is null or graph = %(graph)s) and (%(name)s::text is null or name ilike %(name)s)
"""

CREATE = f"""
with a as (
  insert into assistant (tenant, id, graph, name, description, config, context, meta)
  values (%(tenant)s, %(id)s, %(graph)s, %(name)s, %(description)s, %(config)s, %(context)s, %(meta)s)
  on conflict (tenant, id) do nothing returning *),
v as (
  insert into assistant_version (tenant, assistant_id, version, graph, name, description, config, context, meta)
  select tenant, id, version, graph, name, description, config, context, meta from a)
select {COLUMNS} from a
"""
GET = f"select {COLUMNS} from assistant where tenant = %(tenant)s and id = %(id)s"
UPDATE = f"""
with a as (
  update assistant set graph = coalesce(%(graph)s, graph), name = coalesce(%(name)s, name),
    description = coalesce(%(description)s, description), config = coalesce(%(config)s, config),
    context = coalesce(%(context)s, context), meta = meta || coalesce(%(meta)s, '{{}}'::jsonb), updated_at = now(),
    version = (select max(version) + 1 from assistant_version v
               where v.tenant = assistant.tenant and v.assistant_id = assistant.id)
  where tenant = %(tenant)s and id = %(id)s returning *),
v as (
  insert into assistant_version (tenant, assistant_id, version, graph, name, description, config, context, meta)
  select tenant, id, version, graph, name, description, config, context, meta from a)
select {COLUMNS} from a
"""
SET_VERSION = f"""
update assistant a set graph = v.graph, name = v.name, description = v.description, config = v.config,
                       context = v.context, meta = v.meta, version = v.version, updated_at = now()
from assistant_version v
where a.tenant = %(tenant)s and a.id = %(id)s and v.tenant = a.tenant and v.assistant_id = a.id
  and v.version = %(version)s
returning {", ".join(f"a.{column}" for column in COLUMNS.split(", "))}
"""
VERSIONS = """
select assistant_id, graph, name, description, config, context, meta, version, created_at, created_at
from assistant_version where tenant = %(tenant)s and assistant_id = %(id)s and meta @> %(meta)s::jsonb
order by version desc limit %(limit)s offset %(offset)s
"""
DELETE = "delete from assistant where tenant = %(tenant)s and id = %(id)s"


@dataclass
class Assistants:
    """Assistants of a tenant. `system` are the served graphs' own: id to graph."""

    connections: Connections
    system: Mapping[str, str]
    _begun: set[int] = field(default_factory=set)
    _known: OrderedDict[tuple[int, str], Json] = field(default_factory=OrderedDict)

    async def create(self, tenant: int, given: Json) -> Json | None:
        """The new assistant, or None when its id is taken."""
        await self._begin(tenant)
        return await self._created(tenant, {"id": str(uuid_utils.uuid7()), **given})

    async def get(self, tenant: int, assistant_id: str) -> Json:
        """Raises NotFound."""
        await self._begin(tenant)
        found = await self._one(GET, {"tenant": tenant, "id": assistant_id})
        self._known[tenant, assistant_id] = found
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return found

    async def remembered(self, tenant: int, assistant_id: str) -> Json:
        """As this process last saw it, which may be a moment ago: for who has that checked. Raises NotFound."""
        return self._known.get((tenant, assistant_id)) or await self.get(tenant, assistant_id)

    async def update(self, tenant: int, assistant_id: str, changes: Json) -> Json:
        """A new version. Raises NotFound."""
        await self._begin(tenant)
        return await self._one(UPDATE, {**_row(changes), "tenant": tenant, "id": assistant_id})

    async def set_version(self, tenant: int, assistant_id: str, version: int) -> Json:
        """An earlier version is the current one again. Raises NotFound."""
        return await self._one(SET_VERSION, {"tenant": tenant, "id": assistant_id, "version": version})

    async def versions(
        self, tenant: int, assistant_id: str, *, meta: Json, limit: int, offset: int
    ) -> list[Json]:
        """Newest first. Raises NotFound."""
        await self.get(tenant, assistant_id)
        parameters = {
            "tenant": tenant,
            "id": assistant_id,
            "meta": Jsonb(meta),
            "limit": limit,
            "offset": offset,
        }
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(VERSIONS, parameters)
            return [_shown(row) for row in await cursor.fetchall()]

    async def delete(self, tenant: int, assistant_id: str) -> None:
        """Raises NotFound, and Busy for a graph's own assistant."""
        if assistant_id in self.system:
            message = "This is a graph's own assistant; it lives as long as the graph is served."
            raise Busy(message, field="assistant_id", value=assistant_id)
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(DELETE, {"tenant": tenant, "id": assistant_id})
        if cursor.rowcount != 1:
            raise _unknown(assistant_id)

    async def search(
        self, tenant: int, narrowed: Json, *, sort_by: str, descending: bool, limit: int, offset: int
    ) -> list[Json]:
        """Assistants by `meta` (subset), `graph` and `name` (part of it)."""
        await self._begin(tenant)
        order = f"order by {SORTED_BY[sort_by]} {'desc' if descending else 'asc'}, id"
        statement = f"select {COLUMNS} {NARROWED} {order} limit %(limit)s offset %(offset)s"
        parameters = {**_narrowing(tenant, narrowed), "limit": limit, "offset": offset}
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return [_shown(row) for row in await cursor.fetchall()]

    async def count(self, tenant: int, narrowed: Json) -> int:
        """How many `search` would find."""
        await self._begin(tenant)
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(
                f"select count(*) {NARROWED}".encode(), _narrowing(tenant, narrowed)
            )
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def _begin(self, tenant: int) -> None:
        """The graphs' own assistants exist for every tenant."""
        if tenant in self._begun:
            return
        for assistant_id, graph in self.system.items():
            given = {"id": assistant_id, "graph": graph, "name": graph, "meta": {"created_by": "system"}}
            await self._created(tenant, given)
        self._begun.add(tenant)

    async def _created(self, tenant: int, given: Json) -> Json | None:
        row = {**_row(given), "tenant": tenant, "id": given["id"]}
        for name in ("config", "context", "meta"):
            row[name] = row[name] or Jsonb({})
        row["name"] = row["name"] or "Untitled"
        async with self.connections.use(Owner(tenant)) as connection:
            found = await (await connection.execute(CREATE.encode(), row)).fetchone()
        return None if found is None else _shown(found)

    async def _one(self, statement: str, parameters: dict[str, Any]) -> Json:
        async with self.connections.use(Owner(parameters["tenant"])) as connection:
            row = await (await connection.execute(statement.encode(), parameters)).fetchone()
        if row is None:
            raise _unknown(parameters["id"])
        return _shown(row)


def _row(given: Json) -> dict[str, Any]:
    found = {name: given.get(name) for name in FIELDS}
    return {name: Jsonb(one) if isinstance(one, dict) else one for name, one in found.items()}


def _narrowing(tenant: int, narrowed: Json) -> dict[str, Any]:
    name = narrowed.get("name")
    part = (
        None
        if name is None
        else "%" + name.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%"
    )
    return {
        "tenant": tenant,
        "meta": Jsonb(narrowed.get("meta") or {}),
        "graph": narrowed.get("graph"),
        "name": part,
    }


def _unknown(assistant_id: str) -> NotFound:
    return NotFound(f"There is no assistant {assistant_id}.", field="assistant_id", value=assistant_id)


def _shown(row: Any) -> Json:
    found, graph, name, description, config, context, meta, version, created, updated = row
    return {
        "assistant_id": str(found),
        "graph_id": graph,
        "name": name,
        "description": description,
        "config": config,
        "context": context,
        "metadata": meta,
        "version": version,
        "created_at": created.isoformat(),
        "updated_at": updated.isoformat(),
    }
