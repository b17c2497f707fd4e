"""Runs of the protocol: shown, stopped and ended. They are accepted in accepting.py; claiming is the ledger's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from psycopg.types.json import Jsonb

from agentflow.errors import Busy, LeaseLost, NotFound
from agentflow.protocols import Lease, Owner
from agentflow.records.connections import Connection, Connections, Written, persevering
from agentflow.turn import Json

STATUS = ("pending", "running", "success", "error", "interrupted")
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
with n as (
  update thread set state = %(state)s::jsonb, state_at = now() from run
  where run.id = %(run)s and run.attempt = %(attempt)s and run.status = 2 and thread.id = run.thread_id
  returning run.id, run.watched or thread.watched_until > now() as watched)
select pg_notify('agentflow', 'run ' || id) from n where watched
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
# The ledger ends a turn before its last events are logged; with them the thread's state is noted. Where that never
# comes, because its process died, it is waited for no longer.
_GOES = """(r.status in (0, 1) or (r.status = 2 and r.work is not null and r.ended_at > now() - interval '10 seconds'
  and coalesce(t.state_at < r.ended_at, true)))"""
WATCH = f"""
with w as (
  update run r set watched = true from thread t
  where r.id = %(run)s and r.tenant = %(tenant)s and t.id = r.thread_id returning r.id, r.status, {_GOES} as goes)
select w.goes, case when w.status in (0, 1) then pg_notify('agentflow', 'watch ' || w.id) end from w
"""
GOING = f"""
select true from run r join thread t on t.id = r.thread_id
where r.id = %(run)s and r.tenant = %(tenant)s and {_GOES}
"""
# Only this attempt can have ended a run that still has its number; what it was to remove is not there any more.
STILL = "select attempt = %(attempt)s and status not in (0, 1) from run where id = %(run)s"


@dataclass(frozen=True)
class Ending:
    """How a run ended: `status` of STATUS; `state` is JSON text of the thread's values, None: unchanged."""

    status: str
    thread_status: str = "idle"
    state: str | None = None
    interrupts: Json | None = None
    error: Json | None = None


@dataclass(frozen=True)
class Runs:
    """The run table, for the protocol."""

    connections: Connections

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
        noted = (NOTE.encode(), {"run": lease.run_id, "attempt": lease.attempt, "state": state})
        async for attempt in persevering():
            with attempt:
                async with self.connections.use(lease.owner) as connection, connection.together():
                    for statement, parameters in (*beside, noted):
                        await connection.execute(statement, parameters)

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
        return shown(row)

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
            return [shown(row) for row in await cursor.fetchall()]

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
            rows = await stopped(connection, run_ids, how, tenant)
        return [(run, status == 1) for run, _, status in rows]

    async def watch(self, run_id: str, *, tenant: int) -> bool:
        """Have the run's events logged and its end notified; False when it has ended or is gone."""
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(WATCH.encode(), {"run": run_id, "tenant": tenant})
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def going(self, run_id: str, *, tenant: int) -> bool:
        """Whether the run is there and there is more of it to come."""
        async with self.connections.use(Owner(tenant)) as connection:
            return (await connection.execute(GOING.encode(), {"run": run_id, "tenant": tenant})).rowcount == 1

    async def webhook(self, run_id: str, *, tenant: int) -> str | None:
        """Where the run's end is to be told."""
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute("select work ->> 'webhook' from run where id = %s", (run_id,))
            row = await cursor.fetchone()
        return None if row is None else row[0]

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
        """End the run; a database that goes away meanwhile is waited for, up to 20 s. Raises LeaseLost."""
        parameters = {"run": lease.run_id, "attempt": lease.attempt, **extra}
        async for attempt in persevering():
            with attempt:
                row = await self._ended(statement, lease.owner, parameters, beside)
                again = attempt.retry_state.attempt_number > 1
                if row is None and not (again and await self._by_us(lease.owner, parameters)):
                    raise LeaseLost(
                        f"Attempt {lease.attempt} of run {lease.run_id} is no longer the current one."
                    )

    async def _ended(
        self, statement: str, owner: Owner, parameters: Json, beside: Sequence[Written]
    ) -> object | None:
        async with self.connections.use(owner) as connection, connection.together():
            for other, given in beside:
                await connection.execute(other, given)
            return await (await connection.execute(statement.encode(), parameters)).fetchone()

    async def _by_us(self, owner: Owner, parameters: Json) -> bool:
        """Whether a try before, of which no answer came, has ended the run after all."""
        async with self.connections.use(owner) as connection:
            row = await (await connection.execute(STILL, parameters)).fetchone()
        return row is None or bool(row[0])


async def stopped(
    connection: Connection, run_ids: Sequence[str], how: str, tenant: int
) -> list[tuple[str, str, int]]:
    """Have open runs end: id, thread and status of each that was open."""
    if not run_ids:
        return []
    parameters = {"runs": [UUID(one) for one in run_ids], "how": how, "tenant": tenant}
    rows = await (await connection.execute(STOP.encode(), parameters)).fetchall()
    return [(str(run), str(thread), status) for run, thread, status, _ in rows]


def shown(row: Any) -> Json:
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
