"""Threads as the protocol shows them: made, found, changed, copied, removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uuid_utils
from psycopg.types.json import Jsonb

from agentflow.errors import Busy, NotFound
from agentflow.protocols import Owner
from agentflow.records.branches import PARTS
from agentflow.records.connections import Connections
from agentflow.turn import Json

_STATUS = """case when exists (select from run where run.thread_id = thread.id and run.status in (0, 1)
  and (run.start_after is null or run.start_after <= now())) then 'busy' else thread.status end"""
_COLUMNS = f"id, created_at, updated_at, state_at, meta, {_STATUS} as status, state, interrupts, error"
_MINE = "tenant = %(tenant)s and user_ref = %(user)s"
SORTED_BY = {
    "thread_id": "id", "status": "status", "created_at": "created_at", "updated_at": "updated_at",
    "state_updated_at": "state_at",
}  # fmt: skip
_FOUND = f"""
select {_COLUMNS} from thread where {_MINE} and meta @> %(meta)s::jsonb
  and (%(ids)s::uuid[] is null or id = any(%(ids)s)) and (%(state)s::jsonb is null or state @> %(state)s::jsonb)
"""
_NARROWED = f"from ({_FOUND}) found where (%(status)s::text is null or status = %(status)s)"
CREATE = f"""
insert into thread (id, tenant, user_ref, meta, expires_at, on_expiry)
values (%(id)s, %(tenant)s, %(user)s, %(meta)s, now() + %(ttl)s::float8 * interval '1 minute', %(on_expiry)s)
on conflict (id) do nothing returning {_COLUMNS}
"""
GET = f"select {_COLUMNS} from thread where id = %(id)s and {_MINE}"
PATCH = f"""
update thread set meta = meta || %(meta)s::jsonb, updated_at = now(),
  expires_at = coalesce(now() + %(ttl)s::float8 * interval '1 minute', expires_at),
  on_expiry = coalesce(%(on_expiry)s, on_expiry)
where id = %(id)s and {_MINE} returning {_COLUMNS}
"""
DELETE = f"delete from thread where id = %(id)s and {_MINE}"
SET_STATE = f"""
update thread set status = %(status)s, state = %(state)s::jsonb, interrupts = %(interrupts)s, state_at = now(),
                  updated_at = now(), meta = meta || %(meta)s::jsonb
where id = %(id)s and {_MINE}
"""
COPY = f"""
with t as (
  insert into thread (id, tenant, user_ref, title, role_name, pinned_role, last_seq, meta, status, state, interrupts,
                      error, state_at)
  select %(new)s, tenant, user_ref, title, role_name, pinned_role, last_seq, meta, status, state, interrupts, error,
         state_at
  from thread where id = %(id)s and {_MINE} returning *),
r as (
  insert into run (id, tenant, thread_id, seq, graph, kind, status, attempt, fingerprint, wanted_role, role_name,
                   adapter, details, recalled, error, started_at, ended_at, assistant_id, work, meta, follows)
  select md5(run.id::text || %(new)s)::uuid, run.tenant, t.id, run.seq, graph, kind, run.status, attempt, fingerprint,
         wanted_role, run.role_name, adapter, details, recalled, run.error, started_at, ended_at, assistant_id, work,
         run.meta, follows
  from run, t where run.thread_id = %(id)s and run.status not in (0, 1)),
m as (
  insert into message (thread_id, seq, id, tenant, run_id, role, status, content, role_name, adapter, tokens_in,
                       tokens_out, latency_ms, meta, created_at)
  select t.id, message.seq, md5(message.id::text || %(new)s)::uuid, message.tenant,
         md5(message.run_id::text || %(new)s)::uuid, role, message.status, content, message.role_name, adapter,
         tokens_in, tokens_out, latency_ms, message.meta, message.created_at
  from message, t where message.thread_id = %(id)s)
select id, created_at, updated_at, state_at, meta, status, state, interrupts, error from t
"""
_MESSAGE = "m.id, m.role, m.content, m.meta, m.role_name, m.adapter, m.tokens_in, m.tokens_out"
_SHOWN = "m.role in (2, 3) and r.status in (1, 2, 4) and r.kind <> 4"
# The turns that lead to the last one, or to the one that is named.
SAID = f"""
select r.thread_id, {_MESSAGE}
from unnest(%(ids)s::uuid[]) t(id)
cross join lateral (select case when %(run)s::uuid is null then (select max(seq) from run where thread_id = t.id)
                           else (select seq from run where id = %(run)s) end as seq) top
cross join {PARTS.format(thread="t.id", top="top.seq")}
join run r on r.thread_id = t.id and r.seq between part.low and part.high
join message m on m.run_id = r.id
where {_SHOWN} order by r.thread_id, r.seq, m.role
"""
SAID_EVER = f"""
select r.seq, {_MESSAGE} from run r join message m on m.run_id = r.id
where r.thread_id = %(id)s and {_SHOWN} order by r.seq, m.role
"""
EXPIRED = """
select id, on_expiry, tenant, user_ref from thread where expires_at < now()
  and not exists (select from run where run.thread_id = thread.id and run.status in (0, 1))
order by expires_at limit %(limit)s for update skip locked
"""


@dataclass(frozen=True)
class ThreadRows:
    """The thread table, for the protocol. Ids of others are as unknown as ids of nobody."""

    connections: Connections

    async def create(
        self, *, tenant: int, user: str, thread_id: str | None, meta: Json, ttl: float | None, on_expiry: str
    ) -> Json | None:
        """The new thread, or None when its id is taken. `ttl` in minutes."""
        parameters = {
            "id": thread_id or str(uuid_utils.uuid7()), "tenant": tenant, "user": user, "meta": Jsonb(meta),
            "ttl": ttl, "on_expiry": on_expiry if ttl is not None else None,
        }  # fmt: skip
        async with self.connections.use(Owner(tenant, user)) as connection:
            row = await (await connection.execute(CREATE.encode(), parameters)).fetchone()
        return None if row is None else _shown(row)

    async def get(self, thread_id: str, *, tenant: int, user: str) -> Json:
        """Raises NotFound."""
        return await self._one(GET, thread_id, tenant, user, {})

    async def patch(
        self, thread_id: str, *, tenant: int, user: str, meta: Json, ttl: float | None, on_expiry: str | None
    ) -> Json:
        """Merge into the metadata. Raises NotFound."""
        changes = {"meta": Jsonb(meta), "ttl": ttl, "on_expiry": on_expiry}
        return await self._one(PATCH, thread_id, tenant, user, changes)

    async def delete(self, thread_id: str, *, tenant: int, user: str) -> None:
        """With its runs and messages. Raises NotFound."""
        async with self.connections.use(Owner(tenant, user)) as connection:
            parameters = {"id": thread_id, "tenant": tenant, "user": user}
            if (await connection.execute(DELETE.encode(), parameters)).rowcount != 1:
                raise _unknown(thread_id)

    async def set_state(
        self, thread_id: str, *, tenant: int, user: str, status: str, state: str | None, interrupts: Json,
        meta: Json,
    ) -> None:  # fmt: skip
        """The thread's values after something other than a run changed them. Raises NotFound."""
        parameters = {
            "id": thread_id, "tenant": tenant, "user": user, "status": status, "state": state,
            "interrupts": Jsonb(interrupts), "meta": Jsonb(meta),
        }  # fmt: skip
        async with self.connections.use(Owner(tenant, user)) as connection:
            if (await connection.execute(SET_STATE.encode(), parameters)).rowcount != 1:
                raise _unknown(thread_id)

    async def copy(self, thread_id: str, *, tenant: int, user: str) -> Json:
        """A new thread with the same messages and ended runs. Raises NotFound."""
        return await self._one(COPY, thread_id, tenant, user, {"new": str(uuid_utils.uuid7())})

    async def search(
        self,
        narrowed: Json,
        *,
        tenant: int,
        user: str,
        sort_by: str,
        descending: bool,
        limit: int,
        offset: int,
    ) -> list[Json]:
        """Threads by `ids`, `meta` and `state` (subsets) and `status`."""
        order = f"order by {SORTED_BY[sort_by]} {'desc' if descending else 'asc'} nulls last, id"
        statement = f"select * {_NARROWED} {order} limit %(limit)s offset %(offset)s"
        parameters = {**_narrowing(narrowed, tenant, user), "limit": limit, "offset": offset}
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return [_shown(row) for row in await cursor.fetchall()]

    async def count(self, narrowed: Json, *, tenant: int, user: str) -> int:
        """How many `search` would find."""
        async with self.connections.use(Owner(tenant, user)) as connection:
            parameters = _narrowing(narrowed, tenant, user)
            row = await (
                await connection.execute(f"select count(*) {_NARROWED}".encode(), parameters)
            ).fetchone()
        return int(row[0]) if row else 0

    async def said(
        self, owner: Owner, thread_ids: Sequence[str], *, run_id: str | None = None
    ) -> dict[str, list[Json]]:
        """The messages of threads whose graph is ours, oldest first; up to a run's turn where one is named."""
        parameters = {"ids": list(thread_ids), "run": run_id}
        async with self.connections.use(owner) as connection:
            rows = await (await connection.execute(SAID.encode(), parameters)).fetchall()
        found: dict[str, list[Json]] = {one: [] for one in thread_ids}
        for thread, *rest in rows:
            found[str(thread)].append(_message(rest))
        return found

    async def said_ever(self, owner: Owner, thread_id: str) -> list[tuple[int, Json]]:
        """The messages of every branch of a thread, each with the place of its turn, in order."""
        async with self.connections.use(owner) as connection:
            rows = await (await connection.execute(SAID_EVER.encode(), {"id": thread_id})).fetchall()
        return [(seq, _message(rest)) for seq, *rest in rows]

    async def expired(self, *, limit: int) -> list[tuple[str, str, Owner]]:
        """Idle threads whose time is over, with what shall become of them: delete or keep_latest."""
        async with self.connections.background() as connection:
            rows = await (await connection.execute(EXPIRED.encode(), {"limit": limit})).fetchall()
        return [
            (str(thread), action or "delete", Owner(tenant, user)) for thread, action, tenant, user in rows
        ]

    async def stays(self, owner: Owner, thread_id: str) -> None:
        """Its time is no longer limited."""
        async with self.connections.use(owner) as connection:
            await connection.execute("update thread set expires_at = null where id = %s", (thread_id,))

    async def _one(
        self, statement: str, thread_id: str, tenant: int, user: str, extra: dict[str, Any]
    ) -> Json:
        parameters = {"id": thread_id, "tenant": tenant, "user": user, **extra}
        async with self.connections.use(Owner(tenant, user)) as connection:
            row = await (await connection.execute(statement.encode(), parameters)).fetchone()
        if row is None:
            raise _unknown(thread_id)
        return _shown(row)


def taken(thread_id: str) -> Busy:
    """The error for an id that exists already."""
    return Busy(f"There is a thread {thread_id} already.", field="thread_id", value=thread_id)


def _narrowing(narrowed: Json, tenant: int, user: str) -> dict[str, Any]:
    ids, state = narrowed.get("ids"), narrowed.get("state")
    return {
        "tenant": tenant,
        "user": user,
        "meta": Jsonb(narrowed.get("meta") or {}),
        "ids": None if ids is None else list(ids),
        "state": None if not state else Jsonb(state),
        "status": narrowed.get("status"),
    }


def _unknown(thread_id: str) -> NotFound:
    return NotFound(f"There is no thread {thread_id}.", field="thread_id", value=thread_id)


def _shown(row: Any) -> Json:
    found, created, updated, state_at, meta, status, state, interrupts, error = row
    return {
        "thread_id": str(found),
        "created_at": created.isoformat(),
        "updated_at": updated.isoformat(),
        "state_updated_at": (state_at or updated).isoformat(),
        "metadata": meta,
        "status": status,
        "config": {},
        "values": state,
        "interrupts": interrupts,
        "error": error,
    }


def _message(row: Sequence[Any]) -> Json:
    """A stored message as LangChain's clients know it."""
    found, role, content, meta, role_name, adapter, tokens_in, tokens_out = row
    shown: Json = {
        "content": content,
        "additional_kwargs": {},
        "response_metadata": {},
        "type": "human" if role == 2 else "ai",
        "name": None,
        "id": (meta or {}).get("client_id") or str(found),
    }
    return shown if role == 2 else {**shown, **said_by(role_name, adapter, tokens_in or 0, tokens_out or 0)}


def said_by(role: str | None, adapter: str | None, tokens_in: int, tokens_out: int) -> Json:
    """What a message of the assistant has beside its words: who said it, and tokens."""
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return {
        "response_metadata": {"role": role, "adapter": adapter},
        "tool_calls": [],
        "invalid_tool_calls": [],
        "usage_metadata": usage,
    }
