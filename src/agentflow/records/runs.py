"""Runs of the protocol: accepted, shown, stopped and ended. Claiming and renewing is the ledger's, for all runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid5

import uuid_utils
from psycopg.types.json import Jsonb

from agentflow.errors import AgentflowError, Busy, Conflict, LeaseLost, NotFound, TooMany
from agentflow.protocols import Lease, Owner
from agentflow.records.branches import hide_replaced
from agentflow.records.connections import IN_TURN, UNUSED, Connection, Connections, Written, in_turn
from agentflow.turn import Json

STATUS = ("pending", "running", "success", "error", "interrupted")
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
"""
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

LOCK = (
    "select id from thread where id = %(thread)s and tenant = %(tenant)s and user_ref = %(user)s for update"
)
OPEN = "select id, status from run where thread_id = %(thread)s and status in (0, 1) order by seq"
# Runs that nobody works on end at once; whoever works on the others is told.
STOP = """
with s as (
  update run set stop = %(how)s, status = case when status = 0 then 4 else status end,
                 ended_at = case when status = 0 then now() end
  where id = any(%(runs)s) and tenant = %(tenant)s and status in (0, 1)
  returning id, thread_id, status)
select s.id, s.thread_id, s.status,
       pg_notify('agentflow', case when s.status = 1 then 'stop ' || s.id || ' ' || %(how)s
                                   else 'run ' || s.id end) from s
"""

# The run's end and the thread's state after it. Who waits elsewhere is told; last_seq is read under the
# row's lock, so a run accepted meanwhile is never overlooked.
FINISH = """
with f as (
  update run set status = %(status)s, ended_at = now(), lease_until = null, error = %(error)s
  where id = %(run)s and attempt = %(attempt)s and status = 1
  returning id, tenant, thread_id, seq, watched),
t as (
  update thread set status = %(thread_status)s, state = coalesce(%(state)s::jsonb, state),
                    interrupts = %(interrupts)s, error = %(error)s, state_at = now(), updated_at = now()
  from f where thread.id = f.thread_id
  returning thread.last_seq, thread.last_seq > f.seq as more, thread.watched_until > now() as watched)
select f.id, case when f.watched or t.watched then pg_notify('agentflow', 'run ' || f.id) end,
       case when t.more then pg_notify('agentflow', 'thread ' || f.thread_id) end
from f, t
"""
# The same, with the first part of an answer; its place in the thread is the next.
FINISH_PARTIAL = FINISH.replace(
    "set status = %(thread_status)s", "set last_seq = last_seq + 1, status = %(thread_status)s"
)
FINISH_PARTIAL = FINISH_PARTIAL.replace(
    "select f.id, case",
    """, n as (
  insert into message (thread_id, seq, id, tenant, run_id, role, status, content)
  select f.thread_id, t.last_seq, %(message)s, f.tenant, f.id, 3, 2, %(text)s from f, t)
select f.id, case""",
    1,
)
NOTE = """
update thread set state = %(state)s::jsonb, state_at = now() from run
where run.id = %(run)s and run.attempt = %(attempt)s and run.status = 2 and thread.id = run.thread_id
"""
# A run that leaves nothing behind: of a thread of its own, or one that is taken back.
FORGET_THREAD = """
with f as (select id, thread_id, watched from run where id = %(run)s and attempt = %(attempt)s and status = 1),
d as (delete from thread using f where thread.id = f.thread_id returning thread.id)
select f.id, case when f.watched then pg_notify('agentflow', 'run ' || f.id) end from f, d
"""
TAKE_BACK = """
with d as (
  delete from run where id = %(run)s and attempt = %(attempt)s and status = 1 returning id, thread_id, seq),
m as (delete from message using d where message.run_id = d.id),
t as (
  update thread set status = %(thread_status)s, state = %(state)s::jsonb, interrupts = '{}', error = null,
                    state_at = now(), updated_at = now()
  from d where thread.id = d.thread_id returning thread.id)
select d.id, pg_notify('agentflow', 'run ' || d.id), pg_notify('agentflow', 'thread ' || d.thread_id) from d
"""

SHOWN = """
select r.id, r.thread_id, r.assistant_id, r.started_at, coalesce(r.ended_at, r.started_at), r.status, r.error,
       r.meta, r.work, r.multitask, r.graph
from run r join thread t on t.id = r.thread_id
where r.tenant = %(tenant)s and t.user_ref = %(user)s
"""
GET = SHOWN + " and r.id = %(run)s and (%(thread)s::uuid is null or r.thread_id = %(thread)s)"
BY_KEY = SHOWN.replace("r.graph\n", "r.graph, r.fingerprint\n") + " and r.idem_key = %(key)s"
LIST = (
    SHOWN
    + """ and r.thread_id = %(thread)s
  and (%(status)s::smallint is null or r.status = %(status)s)
order by r.seq desc limit %(limit)s offset %(offset)s"""
)
OWNED = """
select r.id from run r join thread t on t.id = r.thread_id
where r.tenant = %(tenant)s and t.user_ref = %(user)s and r.status in (0, 1)
  and (%(thread)s::uuid is null or r.thread_id = %(thread)s) and (%(ids)s::uuid[] is null or r.id = any(%(ids)s))
  and (%(status)s::smallint is null or r.status = %(status)s)
"""
DELETE = """
delete from run r using thread t
where t.id = r.thread_id and r.id = %(run)s and r.thread_id = %(thread)s and r.tenant = %(tenant)s
  and t.user_ref = %(user)s and r.status not in (0, 1)
"""
WATCH = """
with w as (update run set watched = true where id = %(run)s and tenant = %(tenant)s returning id, status)
select w.status, case when w.status in (0, 1) then pg_notify('agentflow', 'watch ' || w.id) end from w
"""
GOING = "select true from run where id = %(run)s and tenant = %(tenant)s and status in (0, 1)"


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


@dataclass(frozen=True)
class Ending:
    """How a run ended: `status` of STATUS; `state` is JSON text of the thread's values, None: unchanged."""

    status: str
    thread_status: str = "idle"
    state: str | None = None
    interrupts: Json | None = None
    error: Json | None = None


Decide = Callable[[Sequence[str], str], Any]


@dataclass(frozen=True)
class Runs:
    """The run table, for the protocol. `decide` is the multitask policy."""

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

    async def finish(
        self, lease: Lease, ending: Ending, *, partial: str = "", beside: Sequence[Written] = ()
    ) -> None:
        """End the run, with what it has said so far, and write `beside` in the same transaction.

        Raises LeaseLost when a newer attempt owns it: the end is not written.
        """
        message = uuid5(UUID(lease.run_id), "assistant")
        statement = FINISH_PARTIAL if partial else FINISH
        said = {"message": message, "text": partial} if partial else {}
        await self._fenced(statement, lease, {**self._ending(ending), **said}, beside)

    async def note_state(self, lease: Lease, state: str, *, beside: Sequence[Written] = ()) -> None:
        """The thread's values after a turn, whose end the ledger has written; and `beside`, together with them."""
        async with self.connections.use(lease.owner) as connection, connection.together():
            for statement, parameters in beside:
                await connection.execute(statement, parameters)
            await connection.execute(NOTE, {"run": lease.run_id, "attempt": lease.attempt, "state": state})

    async def forget_thread(self, lease: Lease) -> None:
        """End the run by removing its thread. Raises LeaseLost."""
        await self._fenced(FORGET_THREAD, lease, {})

    async def take_back(self, lease: Lease, *, thread_status: str, state: str | None) -> None:
        """Remove the run and what it said; the thread is as it was before. Raises LeaseLost."""
        await self._fenced(TAKE_BACK, lease, {"thread_status": thread_status, "state": state})

    async def get(self, run_id: str, *, thread_id: str | None, tenant: int, user: str) -> Json:
        """Raises NotFound."""
        parameters = {"run": run_id, "thread": thread_id, "tenant": tenant, "user": user}
        async with self.connections.use(Owner(tenant, user)) as connection:
            row = await (await connection.execute(GET.encode(), parameters)).fetchone()
        if row is None:
            raise NotFound(f"There is no run {run_id}.", field="run_id", value=run_id)
        return _shown(row)

    async def of_thread(
        self, thread_id: str, *, tenant: int, user: str, status: str | None, limit: int, offset: int
    ) -> list[Json]:
        """The thread's runs, newest first."""
        parameters = {
            "thread": thread_id, "tenant": tenant, "user": user, "limit": limit, "offset": offset,
            "status": None if status is None else STATUS.index(status),
        }  # fmt: skip
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(LIST.encode(), parameters)
            return [_shown(row) for row in await cursor.fetchall()]

    async def delete(self, run_id: str, *, thread_id: str, tenant: int, user: str) -> None:
        """Remove an ended run from the list. Raises NotFound and Busy."""
        parameters = {"run": run_id, "thread": thread_id, "tenant": tenant, "user": user}
        async with self.connections.use(Owner(tenant, user)) as connection:
            if (await connection.execute(DELETE.encode(), parameters)).rowcount == 1:
                return
        await self.get(run_id, thread_id=thread_id, tenant=tenant, user=user)
        raise Busy(f"Run {run_id} has not ended; cancel it first.", field="run_id", value=run_id)

    async def open_ones(
        self,
        *,
        tenant: int,
        user: str,
        thread_id: str | None = None,
        ids: Sequence[str] | None = None,
        status: str | None = None,
    ) -> list[str]:
        """Runs of this user that have not ended, narrowed by thread, ids or status."""
        parameters = {
            "tenant": tenant, "user": user, "thread": thread_id, "ids": None if ids is None else list(ids),
            "status": None if status is None else STATUS.index(status),
        }  # fmt: skip
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(OWNED.encode(), parameters)
            return [str(row[0]) for row in await cursor.fetchall()]

    async def stop(self, run_ids: Sequence[str], how: str, *, tenant: int) -> list[tuple[str, bool]]:
        """Ask for the end of open runs; each with whether somebody works on it and has been told."""
        async with self.connections.use(Owner(tenant)) as connection:
            rows = await _stopped(connection, run_ids, how, tenant)
        return [(run, status == 1) for run, _, status in rows]

    async def watch(self, run_id: str, *, tenant: int) -> bool:
        """Have the run's events logged and its end notified; False when it has ended or is gone."""
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(WATCH.encode(), {"run": run_id, "tenant": tenant})
            row = await cursor.fetchone()
        return row is not None and row[0] in (0, 1)

    async def going(self, run_id: str, *, tenant: int) -> bool:
        """Whether the run is there and has not ended."""
        async with self.connections.use(Owner(tenant)) as connection:
            return (await connection.execute(GOING, {"run": run_id, "tenant": tenant})).rowcount == 1

    async def webhook(self, run_id: str, *, tenant: int) -> str | None:
        """Where the run's end is to be told."""
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute("select work ->> 'webhook' from run where id = %s", (run_id,))
            row = await cursor.fetchone()
        return None if row is None else row[0]

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
        return AcceptedRun(_shown(row[:-1]), None, fresh=False)

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
        stopped = await _stopped(connection, decision.stopped, decision.how, new.tenant)
        if decision.how == "rollback":
            ended = [run for run, _, status in stopped if status == 4]
            await connection.execute("delete from run where id = any(%s)", (ended,))
        return tuple(run for run, _, status in stopped if status == 1), decision.how

    async def _written(self, connection: Connection, new: NewRun, parameters: dict[str, Any]) -> AcceptedRun:
        statement = ACCEPT[new.create or new.thread_id is None].encode()
        if new.thread_id is None:
            row = await (await connection.execute(statement, parameters)).fetchone()
        else:
            row = await in_turn(connection, new.thread_id, statement, parameters)
        threads, waiting, status, attempt, at, place, heard, _ = row or (
            0,
            0,
            None,
            0,
            None,
            0,
            False,
            None,
        )
        if threads == 0:
            if new.planned is not None:
                raise Outdated("The assistant has been changed; plan the run anew.", field="assistant_id")
            raise NotFound(f"There is no thread {new.thread_id}.", field="thread_id", value=new.thread_id)
        if status is None:
            message = f"{waiting} runs of this thread are open already; wait until one has ended."
            raise TooMany(message, field="thread_id", value=new.thread_id, retry_after=2)
        run = str(parameters["run"])
        shown = _shown(
            (run, parameters["thread"], new.assistant_id, at, at, status, None, new.meta or {}, new.work,
             new.multitask, new.graph)
        )  # fmt: skip
        lease = Lease(
            run, str(parameters["thread"]), attempt, new.tenant, new.user, new.text or "", new.wanted_role,
            graph=new.graph, work=new.work,
        )  # fmt: skip
        return AcceptedRun(shown, lease if status == 1 else None, place, heard)

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

    def _ending(self, ending: Ending) -> dict[str, Any]:
        return {
            "status": STATUS.index(ending.status),
            "thread_status": ending.thread_status,
            "state": ending.state,
            "interrupts": Jsonb(ending.interrupts or {}),
            "error": None if ending.error is None else Jsonb(ending.error),
        }

    async def _fenced(
        self, statement: str, lease: Lease, extra: dict[str, Any], beside: Sequence[Written] = ()
    ) -> None:
        parameters = {"run": lease.run_id, "attempt": lease.attempt, **extra}
        async with self.connections.use(lease.owner) as connection, connection.together():
            for other, given in beside:
                await connection.execute(other, given)
            row = await (await connection.execute(statement.encode(), parameters)).fetchone()
        if row is None:
            raise LeaseLost(f"Attempt {lease.attempt} of run {lease.run_id} is no longer the current one.")


async def _stopped(
    connection: Connection, run_ids: Sequence[str], how: str, tenant: int
) -> list[tuple[str, str, int]]:
    if not run_ids:
        return []
    parameters = {"runs": [UUID(one) for one in run_ids], "how": how, "tenant": tenant}
    rows = await (await connection.execute(STOP.encode(), parameters)).fetchall()
    return [(str(run), str(thread), status) for run, thread, status, _ in rows]


def _shown(row: Any) -> Json:
    """A run as clients see it; what it was asked for without addresses."""
    run, thread, assistant, created, updated, status, error, meta, work, multitask, graph = row
    word = STATUS[status]
    if word == "error" and (error or {}).get("error") == "EngineTimeout":
        word = "timeout"
    return {
        "run_id": str(run),
        "thread_id": str(thread),
        "assistant_id": None if assistant is None else str(assistant),
        "created_at": created.isoformat(),
        "updated_at": updated.isoformat(),
        "status": word,
        "metadata": {**(meta or {}), "graph_id": graph},
        "kwargs": {key: value for key, value in (work or {}).items() if key != "webhook"},
        "multitask_strategy": multitask,
    }
