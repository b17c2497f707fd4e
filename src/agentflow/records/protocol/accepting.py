"""A run of the protocol is accepted: committed with its place in its thread, under the multitask policy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid5

import uuid_utils
from psycopg.types.json import Jsonb

from agentflow.errors import AgentflowError, Busy, Conflict, NotFound, TooMany
from agentflow.protocols import Lease, Owner
from agentflow.records.branches import hide_replaced
from agentflow.records.connections import IN_TURN, UNUSED, Connection, Connections, in_turn
from agentflow.records.protocol.runs import SHOWN, shown, stopped
from agentflow.turn import Json

NOTHING = (0, 0, None, 0, None, 0, False, None)
OPEN_LIMIT = 16
"""Open runs of one thread."""

_NEXT = """last_seq = thread.last_seq + 1, updated_at = now(), meta = thread.meta || excluded.meta,
    session_id = case when thread.updated_at < now() - %(pause)s * interval '1 second'
                      then nextval('session_seq') else thread.session_id end,
    session_seq = case when thread.updated_at < now() - %(pause)s * interval '1 second'
                       then 0 else thread.session_seq end"""
# What the run was planned from, where that was not looked up anew, still holds.
_PLANNED = """(%(planned)s::timestamptz is null or exists (
    select from assistant a
    where a.tenant = %(tenant)s and a.id = %(assistant)s and a.updated_at = %(planned)s::timestamptz))"""
_KNOWN = f"""
with excluded as (select %(thread_meta)s::jsonb as meta),
t as (
  update thread set {_NEXT} from excluded
  where id = %(thread)s and tenant = %(tenant)s and user_ref = %(user)s and {_PLANNED} and {UNUSED}
  returning thread.id, thread.last_seq, coalesce(thread.watched_until > now(), false) as heard),
"""  # noqa: S608 - constants
_MADE = f"""
with t as (
  insert into thread (id, tenant, user_ref, last_seq, meta)
  select %(thread)s, %(tenant)s, %(user)s, 1, %(thread_meta)s where {_PLANNED} and {UNUSED}
  on conflict (id) do update set {_NEXT}
    where thread.tenant = excluded.tenant and thread.user_ref = excluded.user_ref
  returning id, last_seq, coalesce(watched_until > now(), false) as heard),
"""
# The run, and its message where the graph is ours; it starts at once unless another is open that may run now.
_RUN = """
open as (
  select count(*)::int as n, count(*) filter (where start_after is null or start_after <= now())::int as due
  from run where thread_id = %(thread)s and status in (0, 1)),
r as (
  insert into run (id, tenant, thread_id, seq, graph, status, attempt, idem_key, fingerprint, wanted_role, worker,
                   lease_until, assistant_id, work, meta, multitask, start_after, watched, follows)
  select %(run)s, %(tenant)s, t.id, t.last_seq, %(graph)s, now.go, now.go, %(key)s, %(fingerprint)s, %(role)s,
         %(worker)s, now() + (%(lease)s + %(after)s) * interval '1 second', %(assistant)s, %(work)s, %(meta)s,
         %(multitask)s, case when %(after)s > 0 then now() + %(after)s * interval '1 second' end,
         now.go = 0 and %(watched)s or t.heard, %(follows)s::int
  from t, open, lateral (select (%(now)s and open.due = 0 and %(after)s <= 0)::int as go) now
  where open.n < %(limit)s
  on conflict (tenant, user_ref, idem_key) where idem_key is not null do nothing
  returning id, thread_id, seq, status, attempt, started_at),
m as (
  insert into message (thread_id, seq, id, tenant, run_id, role, content, meta)
  select r.thread_id, r.seq, %(message)s, %(tenant)s, r.id, 2, %(text)s::text, %(message_meta)s
  from r where %(text)s::text is not null)
select (select count(*) from t), open.n, r.status, r.attempt, r.started_at, r.seq, (select t.heard from t),
       (select pg_notify('agentflow', 'begun ' || t.id) from t where t.heard or %(told)s)
from open left join r on true
"""
ACCEPT = {False: _KNOWN + _RUN, True: _MADE + _RUN}

OPEN = "select id, status from run where thread_id = %(thread)s and status in (0, 1) order by seq"
BY_KEY = SHOWN.replace("r.graph\n", "r.graph, r.fingerprint\n") + " and r.idem_key = %(key)s"


class Outdated(AgentflowError):
    """The run was planned from a remembered assistant that is no longer the same, or its thread is not there."""


@dataclass(frozen=True)
class NewRun:
    """A run to be accepted. `work` is what was asked for; `text` is the message, where the graph is ours.

    Without `thread_id` the run gets a thread of its own; `create` makes the named thread where it is missing.
    `watched`: somebody will read its events here, whoever works on it; `told`: who listens to the thread hears of it
    even where the thread was not known yet. `after` is seconds. `key` is an idempotency key, which stands for what
    `fingerprint` was derived from.
    `follows` is the place in the thread that a turn goes on from, where that is not the last one. `planned` is when
    the assistant had last been changed, where it was remembered rather than looked up.
    """

    graph: str
    assistant_id: str
    work: Json
    tenant: int
    user: str
    thread_id: str | None = None
    create: bool = False
    meta: Json | None = None
    thread_meta: Json | None = None
    multitask: str = "enqueue"
    after: float = 0.0
    text: str | None = None
    message_meta: Json | None = None
    wanted_role: str | None = None
    watched: bool = False
    told: bool = False
    key: str | None = None
    fingerprint: bytes = b""
    follows: int | None = None
    planned: str | None = None


@dataclass(frozen=True)
class AcceptedRun:
    """`lease` where the run may start at once; `stopped` are running runs that it ends.

    `place` is the run's in its thread; `heard`: somebody listens to the thread. Not `fresh`: the idempotency key
    was known, and `run` is the earlier one.
    """

    run: Json
    lease: Lease | None
    place: int = 0
    heard: bool = False
    stopped: tuple[str, ...] = ()
    how: str = "interrupt"
    fresh: bool = True


Decide = Callable[[Sequence[str], str], Any]


@dataclass(frozen=True)
class Accepting:
    """The run table, where runs begin. `decide` is the multitask policy; `pause` seconds end a session."""

    connections: Connections
    decide: Decide
    worker: str
    lease: float = 30.0
    pause: float = 6 * 3600.0

    async def accept(self, new: NewRun, *, now: bool = True) -> AcceptedRun:
        """Commit a run, unless its key is known. Not `now`: it waits for a seat, though its thread may be free.

        Raises NotFound for a missing thread, Outdated where it was planned from what is no longer so, Busy where
        refused, TooMany open runs, and Conflict for a key that stands for something else.
        """
        parameters = {**self._parameters(new), "now": now}
        async with self.connections.use(Owner(new.tenant, new.user)) as connection:
            if new.key is None:
                return await self._accepted(connection, new, parameters)
            earlier = await self._by_key(connection, new)
            if earlier is not None:
                return earlier
            try:
                async with connection.transaction():
                    return await self._accepted(connection, new, parameters)
            except (TooMany, NotFound, Outdated):
                # Or somebody else has just used the key.
                earlier = await self._by_key(connection, new)
                if earlier is None:
                    raise
                return earlier

    async def _accepted(self, connection: Connection, new: NewRun, parameters: dict[str, Any]) -> AcceptedRun:
        waits = new.thread_id is None or new.multitask == "enqueue"
        if waits and new.follows is None:
            return await self._written(connection, new, parameters)
        async with connection.transaction():
            stopped, how = ((), "") if waits else await self._stopped_first(connection, new, parameters)
            accepted = await self._written(connection, new, parameters)
            if new.follows is not None:
                await hide_replaced(connection, parameters["thread"], parameters["run"])
        return replace(accepted, stopped=stopped, how=how)

    async def _by_key(self, connection: Connection, new: NewRun) -> AcceptedRun | None:
        parameters = {"key": new.key, "tenant": new.tenant, "user": new.user}
        row = await (await connection.execute(BY_KEY.encode(), parameters)).fetchone()
        if row is None:
            return None
        if bytes(row[-1]) != new.fingerprint:
            message = f"The idempotency key {new.key!r} was used for another request; use a new key."
            raise Conflict(message, field="Idempotency-Key", value=new.key)
        return AcceptedRun(shown(row[:-1]), None, fresh=False)

    async def _stopped_first(
        self, connection: Connection, new: NewRun, parameters: dict[str, Any]
    ) -> tuple[tuple[str, ...], str]:
        """Under the thread's lock: the policy, and the runs it stops."""
        await connection.execute(IN_TURN, (new.thread_id,))
        rows = await (await connection.execute(OPEN.encode(), parameters)).fetchall()
        decision = self.decide([str(run) for run, _ in rows], new.multitask)
        if decision.refused:
            message = "Another run of this thread is open, and multitask_strategy is reject."
            raise Busy(message, field="multitask_strategy", value="reject")
        ends = await stopped(connection, decision.stopped, decision.how, new.tenant)
        if decision.how == "rollback":
            ended = [run for run, _, status in ends if status == 4]
            await connection.execute("delete from run where id = any(%s)", (ended,))
        return tuple(run for run, _, status in ends if status == 1), decision.how

    async def _written(self, connection: Connection, new: NewRun, parameters: dict[str, Any]) -> AcceptedRun:
        statement = ACCEPT[new.create or new.thread_id is None].encode()
        if new.thread_id is None:
            row = await (await connection.execute(statement, parameters)).fetchone()
        else:
            row = await in_turn(connection, new.thread_id, statement, parameters)
        threads, waiting, status, attempt, at, place, heard, _ = row or NOTHING
        if threads == 0:
            if new.planned is not None:
                raise Outdated("The assistant has been changed; plan the run anew.", field="assistant_id")
            raise NotFound(f"There is no thread {new.thread_id}.", field="thread_id", value=new.thread_id)
        if status is None:
            message = f"{waiting} runs of this thread are open already; wait until one has ended."
            raise TooMany(message, field="thread_id", value=new.thread_id, retry_after=2)
        run = str(parameters["run"])
        told = shown(
            (run, parameters["thread"], new.assistant_id, at, at, status, None, new.meta or {}, new.work,
             new.multitask, new.graph)
        )  # fmt: skip
        lease = Lease(
            run, str(parameters["thread"]), attempt, new.tenant, new.user, new.text or "", new.wanted_role,
            graph=new.graph, work=new.work,
        )  # fmt: skip
        return AcceptedRun(told, lease if status == 1 else None, place, heard)

    def _parameters(self, new: NewRun) -> dict[str, Any]:
        run = uuid_utils.uuid7()
        return {
            "run": str(run),
            "thread": new.thread_id or str(uuid_utils.uuid7()),
            "tenant": new.tenant,
            "user": new.user,
            "graph": new.graph,
            "assistant": new.assistant_id,
            "work": Jsonb(new.work),
            "meta": Jsonb(new.meta or {}),
            "thread_meta": Jsonb(new.thread_meta or {}),
            "message_meta": Jsonb(new.message_meta or {}),
            "multitask": new.multitask,
            "after": max(new.after, 0.0),
            "role": new.wanted_role,
            "text": new.text,
            "message": uuid5(UUID(str(run)), "user"),
            "watched": new.watched,
            "told": new.told,
            "key": new.key,
            "fingerprint": new.fingerprint,
            "follows": new.follows,
            "planned": new.planned,
            "worker": self.worker,
            "lease": self.lease,
            "pause": self.pause,
            "limit": OPEN_LIMIT + 1,
        }
