"""Branches of threads as the ledger has them, and memories that another branch has replaced."""

from dataclasses import dataclass
from typing import Any

from agentflow.protocols import Owner
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.postings import take_out
from agentflow.turn import Json

# Stretches (low, high) of places of a thread that lead to a place; a turn that follows another begins a new one.
PARTS = """lateral (
  with recursive part(low, high) as (
    select coalesce((select max(b.seq) from run b where b.thread_id = {thread} and b.seq <= {top}
                       and b.follows is not null), 0), {top}
    union all
    select coalesce((select max(c.seq) from run c where c.thread_id = {thread} and c.seq <= b.follows
                       and c.follows is not null), 0), b.follows
    from part join run b on b.thread_id = {thread} and b.seq = part.low and b.follows is not null)
  select low, high from part) part"""
TURNS = """
select r.seq, r.id, r.started_at, r.follows, (r.work ->> 'again')::int, r.status in (1, 2, 4), r.status = 2
from run r where r.thread_id = %(thread)s and r.kind <> 4 order by r.seq
"""
# A copied thread has the checkpoints of the turns it was copied from.
CHECKPOINTS = """
select c.checkpoint_id, r.seq
from checkpoints c join run r on r.thread_id = %(thread)s::uuid
  and r.id::text in (c.metadata ->> 'run_id', md5((c.metadata ->> 'run_id') || c.thread_id)::uuid::text)
where c.thread_id = %(thread)s::text and c.checkpoint_ns = '' order by c.checkpoint_id
"""
HOLDS = "select true from checkpoints where thread_id = %(thread)s::text and checkpoint_id = %(checkpoint)s limit 1"
QUESTION = """
select m.content, coalesce(m.meta ->> 'client_id', m.id::text), r.wanted_role
from run r join message m on m.run_id = r.id and m.role = 2 where r.thread_id = %(thread)s and r.seq = %(seq)s
"""
# What was said in turns that are gone, and what came of it.
_REMEMBERED = """,
said as (select m.id from memory m where m.thread_id = %(thread)s and m.source_message in (select id from gone))
select m.collection_id, m.id, m.scope_id, m.bow from memory m join scope s on s.id = m.scope_id
where not m.hidden and (m.id in (select id from said)
                        or m.id in (select item_id from link where source_id in (select id from said)))
order by m.scope_id, m.id for update of m, s
"""
REPLACED = f"""
with gone as (
  select x.id from run own
  join run r on r.thread_id = own.thread_id and r.seq < own.seq
  join message x on x.run_id = r.id
  where own.id = %(run)s
    and not exists (select from {PARTS.format(thread="own.thread_id", top="own.seq")}
                    where r.seq between part.low and part.high)){_REMEMBERED}"""  # noqa: S608 - constants
LAST = f"""
with top as (select max(seq) as seq from run where thread_id = %(thread)s),
last as (
  select r.id from top cross join {PARTS.format(thread="%(thread)s::uuid", top="top.seq")}
  join run r on r.thread_id = %(thread)s and r.seq between part.low and part.high
  where r.status = 2 and r.kind in (1, 5) order by r.seq desc limit %(count)s),
gone as (select x.id from message x where x.run_id in (select id from last)){_REMEMBERED}"""  # noqa: S608 - constants
HIDE = """
update memory m set hidden = true from unnest(%(collections)s::int[], %(ids)s::bigint[]) u(collection, id)
where m.collection_id = u.collection and m.id = u.id
"""


@dataclass(frozen=True)
class Threaded:
    """The turns of threads and how they follow each other. Raises DatabaseDown."""

    connections: Connections

    async def turns(self, owner: Owner, thread_id: str) -> list[Any]:
        """Rows of TURNS, in order."""
        async with self.connections.use(owner) as connection:
            return await (await connection.execute(TURNS, {"thread": thread_id})).fetchall()

    async def checkpoints(self, owner: Owner, thread_id: str) -> dict[str, int]:
        """Ids of checkpoints, oldest first, with the place of their turn."""
        async with self.connections.use_checkpoints(owner) as connection:
            cursor = await connection.execute(CHECKPOINTS, {"thread": thread_id})
            rows: list[Any] = await cursor.fetchall()
        return {str(checkpoint): seq for checkpoint, seq in rows}

    async def holds(self, owner: Owner, thread_id: str, checkpoint_id: str) -> bool:
        """Whether the thread still has this checkpoint."""
        async with self.connections.use_checkpoints(owner) as connection:
            cursor = await connection.execute(HOLDS, {"thread": thread_id, "checkpoint": checkpoint_id})
            return cursor.rowcount == 1

    async def question(self, owner: Owner, thread_id: str, seq: int) -> tuple[str, Json, str | None] | None:
        """What was asked at a place: text, the message's own data (its id), the role wanted."""
        async with self.connections.use(owner) as connection:
            cursor = await connection.execute(QUESTION, {"thread": thread_id, "seq": seq})
            row = await cursor.fetchone()
        return None if row is None else (row[0], {"client_id": row[1]}, row[2])


async def hide_replaced(connection: Connection, thread_id: str, run_id: str) -> None:
    """Take out of every index what was remembered of turns that do not lead to this one, and what came of it."""
    await _hide(connection, REPLACED, {"thread": thread_id, "run": run_id})


async def hide_last(connection: Connection, thread_id: str, count: int) -> None:
    """The same of a thread's last turns, which another thread has replaced."""
    await _hide(connection, LAST, {"thread": thread_id, "count": count})


async def _hide(connection: Connection, statement: str, parameters: Json) -> None:
    rows = await (await connection.execute(statement.encode(), parameters)).fetchall()
    if not rows:
        return
    await connection.execute(HIDE, {"collections": [row[0] for row in rows], "ids": [row[1] for row in rows]})
    await take_out(connection, [(row[0], row[1], row[2], row[3]) for row in rows])
