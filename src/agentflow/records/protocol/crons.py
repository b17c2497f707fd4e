"""Crons: runs that begin by the clock."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import uuid_utils
from psycopg.types.json import Jsonb

from agentflow.errors import NotFound, TooMany
from agentflow.protocols import Owner
from agentflow.records.connections import Connections
from agentflow.turn import Json

LIMIT = 100
"""Crons of one tenant."""
COLUMNS = (
    "id, user_ref, assistant_id, thread_id, schedule, timezone, work, meta, enabled, end_at, next_at, created_at, "
    "updated_at"
)
SORTED_BY = {
    "cron_id": "id", "assistant_id": "assistant_id", "thread_id": "thread_id", "created_at": "created_at",
    "updated_at": "updated_at", "next_run_date": "next_at", "end_time": "end_at",
}  # fmt: skip
NARROWED = """
from cron where tenant = %(tenant)s and user_ref = %(user)s
  and (%(assistant)s::uuid is null or assistant_id = %(assistant)s)
  and (%(thread)s::uuid is null or thread_id = %(thread)s) and (%(enabled)s::bool is null or enabled = %(enabled)s)
  and meta @> %(meta)s::jsonb
"""
CREATE = f"""
insert into cron
  (id, tenant, user_ref, assistant_id, thread_id, schedule, timezone, work, meta, enabled, end_at, next_at)
select %(id)s, %(tenant)s, %(user)s, %(assistant)s, %(thread)s, %(schedule)s, %(timezone)s, %(work)s, %(meta)s,
       %(enabled)s, %(end_at)s, %(next_at)s
where (select count(*) from cron where tenant = %(tenant)s) < %(limit)s
returning {COLUMNS}
"""
GET = f"select {COLUMNS} from cron where id = %(id)s and tenant = %(tenant)s and user_ref = %(user)s"
UPDATE = f"""
update cron set schedule = %(schedule)s, timezone = %(timezone)s, work = %(work)s, meta = %(meta)s,
                enabled = %(enabled)s, end_at = %(end_at)s, next_at = %(next_at)s, updated_at = now()
where id = %(id)s and tenant = %(tenant)s and user_ref = %(user)s returning {COLUMNS}
"""
DELETE = "delete from cron where id = %(id)s and tenant = %(tenant)s and user_ref = %(user)s"
# What is due is moved to its next time in the same statement, so that only one process begins it.
DUE = f"""
select {COLUMNS}, tenant from cron where enabled and next_at <= now() and (end_at is null or next_at <= end_at)
  and (%(id)s::uuid is null or id = %(id)s)
order by next_at limit %(limit)s
"""
FIRED = "update cron set next_at = %(next_at)s, updated_at = now() where id = %(id)s and next_at = %(was)s returning id"


@dataclass(frozen=True)
class Crons:
    """The cron table."""

    connections: Connections

    async def create(self, tenant: int, user: str, given: Json) -> Json:
        """Raises TooMany."""
        row = {**_row(given), "id": str(uuid_utils.uuid7()), "tenant": tenant, "user": user, "limit": LIMIT}
        found = await self._one(CREATE, row)
        if found is None:
            raise TooMany(f"There are {LIMIT} crons already; remove one.", field="cron_id")
        return found

    async def get(self, tenant: int, user: str, cron_id: str) -> Json:
        """Raises NotFound."""
        return _known(await self._one(GET, {"id": cron_id, "tenant": tenant, "user": user}), cron_id)

    async def update(self, tenant: int, user: str, cron_id: str, given: Json) -> Json:
        """Raises NotFound."""
        row = {**_row(given), "id": cron_id, "tenant": tenant, "user": user}
        return _known(await self._one(UPDATE, row), cron_id)

    async def delete(self, tenant: int, user: str, cron_id: str) -> None:
        """Raises NotFound."""
        async with self.connections.use(Owner(tenant, user)) as connection:
            parameters = {"id": cron_id, "tenant": tenant, "user": user}
            if (await connection.execute(DELETE, parameters)).rowcount != 1:
                _known(None, cron_id)

    async def search(
        self,
        tenant: int,
        user: str,
        narrowed: Json,
        *,
        sort_by: str,
        descending: bool,
        limit: int,
        offset: int,
    ) -> list[Json]:
        """By assistant, thread, enabled and metadata."""
        order = f"order by {SORTED_BY[sort_by]} {'desc' if descending else 'asc'} nulls last, id"
        statement = f"select {COLUMNS} {NARROWED} {order} limit %(limit)s offset %(offset)s"
        parameters = {**_narrowing(tenant, user, narrowed), "limit": limit, "offset": offset}
        async with self.connections.use(Owner(tenant, user)) as connection:
            return [
                _shown(row)
                for row in await (await connection.execute(statement.encode(), parameters)).fetchall()
            ]

    async def count(self, tenant: int, user: str, narrowed: Json) -> int:
        """How many `search` would find."""
        async with self.connections.use(Owner(tenant, user)) as connection:
            parameters = _narrowing(tenant, user, narrowed)
            row = await (
                await connection.execute(f"select count(*) {NARROWED}".encode(), parameters)
            ).fetchone()
        return int(row[0]) if row else 0

    async def due(self, *, cron_id: str | None, limit: int = 50) -> list[Json]:
        """Crons whose time has come, or the one that is asked for, with `tenant`, `user` and when it was `due`."""
        async with self.connections.background() as connection:
            rows = await (await connection.execute(DUE.encode(), {"id": cron_id, "limit": limit})).fetchall()
        return [{**_shown(row[:-1]), "tenant": row[-1], "user": row[1], "due": row[10]} for row in rows]

    async def fired(self, cron_id: str, *, was: datetime, next_at: datetime | None) -> bool:
        """Move to the next time; False when another process was first."""
        async with self.connections.background() as connection:
            cursor = await connection.execute(FIRED, {"id": cron_id, "was": was, "next_at": next_at})
            return await cursor.fetchone() is not None

    async def _one(self, statement: str, parameters: dict[str, Any]) -> Json | None:
        async with self.connections.use(Owner(parameters["tenant"], parameters["user"])) as connection:
            row = await (await connection.execute(statement.encode(), parameters)).fetchone()
        return None if row is None else _shown(row)


def _row(given: Json) -> dict[str, Any]:
    return {**given, "work": Jsonb(given["work"]), "meta": Jsonb(given["meta"])}


def _narrowing(tenant: int, user: str, narrowed: Json) -> dict[str, Any]:
    wanted = {key: narrowed.get(key) for key in ("assistant", "thread", "enabled")}
    return {"tenant": tenant, "user": user, **wanted, "meta": Jsonb(narrowed.get("meta") or {})}


def _known(found: Json | None, cron_id: str) -> Json:
    if found is None:
        raise NotFound(f"There is no cron {cron_id}.", field="cron_id", value=cron_id)
    return found


def _shown(row: Any) -> Json:
    found, user, assistant, thread, schedule, zone, work, meta, enabled, end_at, next_at, created, updated = (
        row
    )
    return {
        "cron_id": str(found),
        "user_id": user,
        "assistant_id": str(assistant),
        "thread_id": None if thread is None else str(thread),
        "schedule": schedule,
        "timezone": zone,
        "payload": work,
        "metadata": meta,
        "enabled": enabled,
        "end_time": None if end_at is None else end_at.isoformat(),
        "next_run_date": None if next_at is None else next_at.isoformat(),
        "created_at": created.isoformat(),
        "updated_at": updated.isoformat(),
    }
