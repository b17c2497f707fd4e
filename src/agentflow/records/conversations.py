"""Threads of clients that send whole transcripts: found again, compared, and branched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import uuid_utils
from psycopg.types.json import Jsonb

from agentflow.prompt import ChatMessage
from agentflow.protocols import Owner
from agentflow.records.branches import PARTS as PARTS_OF
from agentflow.records.branches import hide_last
from agentflow.records.connections import Connection, Connections
from agentflow.records.details import unpacked
from agentflow.retrieval.exchange import exchange

MOST = 500
"""Turns of a thread that a transcript is compared with: the last ones."""

KNOWN = """
select id from thread where client_ref = %(ref)s or id = %(id)s
order by client_ref is null limit 1
"""

# Threads in which a turn of this form was had, the newest first.
LIKELY = """
select thread_id from run where tenant = %(tenant)s and exchange = %(exchange)s and status = 2 and kind in (1, 5)
group by thread_id order by max(started_at) desc limit 5
"""

PARTS = PARTS_OF.format(thread="%(thread)s::uuid", top="top.seq")
TURNS = f"""
select u.content, a.content
from (select case when %(upto)s::uuid is null then (select max(seq) from run where thread_id = %(thread)s)
             else (select seq from run where id = %(upto)s) end as seq) top
cross join {PARTS}
join run r on r.thread_id = %(thread)s and r.seq between part.low and part.high
join message u on u.run_id = r.id and u.thread_id = r.thread_id and u.role = 2
join message a on a.run_id = r.id and a.thread_id = r.thread_id and a.role = 3
where r.status = 2 and r.kind in (1, 5)
order by r.seq desc limit %(limit)s
"""  # noqa: S608 - constants

# What a step asked of the client, and the message that led to it.
STEP = """
select r.thread_id, m.content, r.details, r.kind = 4 from run r
join message m on m.thread_id = r.thread_id and m.seq = r.seq
where r.id = %(run)s and r.status = 2
"""

# A turn's message, whether its thread has no other turn, and what was remembered of it.
KEPT = """
select m.content, not exists (select from run o where o.thread_id = r.thread_id and o.id <> r.id),
       array(select i.id from memory i join message s on s.id = i.source_message
             where i.thread_id = r.thread_id and s.thread_id = r.thread_id and s.run_id = r.id)
from run r join message m on m.thread_id = r.thread_id and m.run_id = r.id and m.role = 2 where r.id = %(run)s
"""

OPEN = """
insert into thread (id, tenant, user_ref, client_ref, role_name, meta)
select %(thread)s, %(tenant)s, %(user)s, %(ref)s, (select role_name from thread where id = %(origin)s), %(meta)s
on conflict (id) do nothing
"""
LET_GO = "update thread set client_ref = null where id = %(thread)s"
TURN_LOCK = "select pg_advisory_xact_lock(hashtextextended(%(ref)s, 0))"

# Turns made elsewhere, behind those that are there: runs of kind 5 with their two messages.
WRITE = """
with given as (
  select * from unnest(%(runs)s::uuid[], %(asked_ids)s::uuid[], %(answer_ids)s::uuid[], %(asked)s::text[],
                       %(answers)s::text[], %(exchanges)s::bytea[])
  with ordinality as given(run, asked_id, answer_id, asked, answer, exchange, place)),
t as (
  update thread set last_seq = last_seq + 2 * %(count)s, updated_at = now()
  where id = %(thread)s
  returning id, tenant, last_seq - 2 * %(count)s as first),
r as (
  insert into run (id, tenant, thread_id, seq, kind, status, fingerprint, exchange, ended_at)
  select g.run, t.tenant, t.id, t.first + 2 * g.place - 1, 5, 2, ''::bytea, g.exchange, now() from given g, t)
insert into message (thread_id, seq, id, tenant, run_id, role, content)
select t.id, t.first + 2 * g.place - 1, g.asked_id, t.tenant, g.run, 2, g.asked from given g, t
union all
select t.id, t.first + 2 * g.place, g.answer_id, t.tenant, g.run, 3, g.answer from given g, t
"""


class Exchange(NamedTuple):
    """A message and its answer."""

    asked: str
    answer: str


class Kept(NamedTuple):
    """What is kept of a turn: its message, whether it is its thread's only one, and its memories."""

    asked: str
    alone: bool
    memories: list[int]


@dataclass(frozen=True)
class Step:
    """A finished run of a thread. `calls`: what it asked of the client; `before`: calls and results until then."""

    thread_id: str
    asked: str
    calls: list[dict[str, Any]]
    before: list[ChatMessage]
    open: bool


@dataclass(frozen=True)
class Conversations:
    """Each owner's; nobody finds another's. Raises DatabaseDown."""

    connections: Connections

    async def known(self, ref: str | None, thread_id: str | None, owner: Owner) -> str | None:
        """The thread that a client's own chat id stands for now, or else the one of this id."""
        async with self.connections.use(owner) as connection:
            row = await _one(connection, KNOWN, _of(owner, ref=ref, id=thread_id))
        return None if row is None else str(row[0])

    async def likely(self, last: Exchange, owner: Owner) -> list[str]:
        """Threads in which this message had this answer, the newest first."""
        digest = exchange(last.asked, last.answer)
        async with self.connections.use(owner) as connection:
            cursor = await connection.execute(LIKELY, _of(owner, exchange=digest))
            return [str(row[0]) for row in await cursor.fetchall()]

    async def turns(self, thread_id: str, owner: Owner, *, upto: str | None = None) -> list[Exchange]:
        """The thread's turns as they were said, oldest first; `upto` a run, if there is one."""
        parameters = _of(owner, thread=thread_id, limit=MOST, upto=upto)
        async with self.connections.use(owner) as connection:
            cursor = await connection.execute(TURNS.encode(), parameters)
            return [Exchange(*row) for row in reversed(await cursor.fetchall())]

    async def step(self, run_id: str, owner: Owner) -> Step | None:
        """A finished run of this user's, as the next request may build on it."""
        async with self.connections.use(owner) as connection:
            row = await _one(connection, STEP, _of(owner, run=run_id))
        if row is None:
            return None
        thread, asked, details, unfinished = row
        told = unpacked(details)
        return Step(str(thread), asked, told.get("tool_calls", []), told.get("after", []), unfinished)

    async def kept(self, run_id: str, owner: Owner) -> Kept | None:
        """What there is of a turn of this user's."""
        async with self.connections.use(owner) as connection:
            row = await _one(connection, KEPT, {"run": run_id})
        return None if row is None else Kept(*row)

    async def begin(
        self,
        ref: str | None,
        turns: Sequence[Exchange],
        owner: Owner,
        *,
        origin: str | None,
        wish: str | None,
        replaced: int = 0,
    ) -> str:
        """A thread that holds these turns, and from now on is what `ref` stands for; `wish` is its id if free.

        `origin` is the thread that it branches off; it keeps its turns, but of its last `replaced` ones nothing
        is recalled any more.
        """
        thread = str(uuid_utils.uuid7()) if wish is None or origin is not None else wish
        meta = Jsonb({} if origin is None else {"branch_of": origin})
        parameters = _of(owner, ref=ref, thread=thread, origin=origin, meta=meta)
        async with self.connections.use(owner) as connection, connection.transaction():
            if ref is not None:
                await connection.execute(TURN_LOCK, parameters)
            if ref is not None and origin is not None:
                await connection.execute(LET_GO, {**parameters, "thread": origin})
            found = None if ref is None else await _one(connection, KNOWN, {**parameters, "id": None})
            if found is not None:
                return str(found[0])
            await connection.execute(OPEN, parameters)
            await _write(connection, thread, turns, owner)
            if origin is not None and replaced:
                await hide_last(connection, origin, replaced)
        return thread

    async def add(self, thread_id: str, turns: Sequence[Exchange], owner: Owner) -> None:
        """Turns that were made elsewhere, behind those that are there."""
        async with self.connections.use(owner) as connection:
            await _write(connection, thread_id, turns, owner)


def _of(owner: Owner, **more: Any) -> dict[str, Any]:
    return {"tenant": owner.tenant, "user": owner.user, **more}


async def _one(connection: Connection, statement: str, parameters: dict[str, Any]) -> Any:
    cursor = await connection.execute(statement.encode(), parameters)
    return await cursor.fetchone()


async def _write(connection: Connection, thread_id: str, turns: Sequence[Exchange], owner: Owner) -> None:
    if not turns:
        return
    runs = [UUID(str(uuid_utils.uuid7())) for _ in turns]
    parameters = _of(
        owner,
        thread=thread_id,
        count=len(turns),
        runs=runs,
        asked_ids=[uuid5(run, "user") for run in runs],
        answer_ids=[uuid5(run, "assistant") for run in runs],
        asked=[one.asked for one in turns],
        answers=[one.answer for one in turns],
        exchanges=[exchange(one.asked, one.answer) for one in turns],
    )
    await connection.execute(WRITE, parameters)
