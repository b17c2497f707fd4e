"""The ledger: a turn is here before its first answered byte, and ends here in one statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import uuid_utils
from psycopg import Rollback
from psycopg.types.json import Jsonb
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from agentflow.errors import Conflict, DatabaseDown, LeaseLost, NotFound
from agentflow.prompt import ChatMessage
from agentflow.protocols import (
    Acceptance,
    Lease,
    Outcome,
    Owner,
    Request,
    RunRecord,
    RunStatus,
    own_scopes,
)
from agentflow.records.branches import PARTS as PARTS_OF
from agentflow.records.connections import IN_TURN, UNUSED, Connection, Connections, in_turn
from agentflow.records.details import TOLD, offered, packed, told
from agentflow.records.memories import INSERT, written
from agentflow.records.postings import WORDS
from agentflow.records.scopes import Scopes
from agentflow.turn import Context, Json

STATUS: tuple[RunStatus, ...] = ("queued", "running", "done", "failed", "cancelled")
KINDS = {"turn": 1, "step": 4}
SPEAKERS = {2: "user", 3: "assistant"}

# The thread (made if new; untouched if it is somebody else's), the run and the user's message.
# The run starts at once, with attempt 1, unless an earlier run of the thread is still open.
ACCEPT = f"""
with t as (
  insert into thread (id, tenant, user_ref, last_seq)
  select %(thread)s, %(tenant)s, %(user)s, 1 where {UNUSED}
  on conflict (id) do update set last_seq = thread.last_seq + 1, updated_at = now(),
    session_id = case when thread.updated_at < now() - %(pause)s * interval '1 second'
                      then nextval('session_seq') else thread.session_id end,
    session_seq = case when thread.updated_at < now() - %(pause)s * interval '1 second'
                       then 0 else thread.session_seq end
    where thread.tenant = excluded.tenant and thread.user_ref = excluded.user_ref
  returning id, last_seq),
free as (select not exists (
  select from run where thread_id = %(thread)s and status in (0, 1)) and %(now)s as now),
r as (
  insert into run (id, tenant, thread_id, seq, status, attempt, idem_key, fingerprint, wanted_role, given,
                   webhook, worker, lease_until, watched)
  select %(run)s, %(tenant)s, t.id, t.last_seq, free.now::int, free.now::int, %(key)s, %(fingerprint)s, %(role)s,
         %(given)s, %(webhook)s, %(worker)s, now() + %(lease)s * interval '1 second', not free.now
  from t, free
  on conflict (tenant, user_ref, idem_key) where idem_key is not null do nothing
  returning id, thread_id, seq, status, attempt, started_at),
m as (
  insert into message (thread_id, seq, id, tenant, run_id, role, content)
  select r.thread_id, r.seq, %(message)s, %(tenant)s, r.id, 2, %(text)s from r)
select (select count(*) from t), r.status, r.attempt, r.started_at from (select 1) one left join r on true
"""  # noqa: S608 - constants

FIND = f"""
select r.id, r.thread_id, r.tenant, r.status, r.attempt, r.fingerprint, r.error, r.started_at, {TOLD}
from run r where r.tenant = %(tenant)s
"""  # noqa: S608 - constants
BY_ID = FIND + "and r.id = %(run)s"
BY_KEY = FIND + "and r.idem_key = %(key)s"

# A new attempt, if the run is open, not in somebody's hands, and first in its thread.
CLAIM = """
with c as (
  update run set attempt = attempt + 1, status = 1, worker = %(worker)s,
                 lease_until = now() + %(lease)s * interval '1 second'
  where id = %(run)s and (status = 0 or status = 1 and lease_until < now()) and start_after is null
    and not exists (select from run o where o.thread_id = run.thread_id and o.status in (0, 1) and o.seq < run.seq
                      and (o.start_after is null or o.start_after <= now()))
  returning id, thread_id, tenant, seq, attempt, wanted_role, given, graph, work, watched)
select c.id, c.thread_id, c.attempt, c.tenant, t.user_ref, coalesce(m.content, ''), c.wanted_role, c.given, c.graph,
       c.work, c.watched
from c join thread t on t.id = c.thread_id left join message m on m.thread_id = c.thread_id and m.seq = c.seq
"""

# The same for the run that has waited longest, of those that could begin: where the process that accepted it has no
# seat. The steps of a turn are heard in that process alone, so its turns are left to it while it lives.
CLAIM_NEXT = CLAIM.replace(
    "where id = %(run)s",
    """where id = (
    select id from run w
    where w.status = 0 and w.start_after is null and w.id <> all(%(known)s::uuid[])
      and (w.work is not null or w.lease_until <= now())
      and not exists (select from run o where o.thread_id = w.thread_id and o.status in (0, 1) and o.seq < w.seq
                        and (o.start_after is null or o.start_after <= now()))
    order by w.started_at limit 1 for update skip locked)""",
)
OFFER = "select pg_notify('agentflow', 'pending ' || %(run)s)"
LEAVE = """
with l as (
  update run set lease_until = now()
  where id = any(%(runs)s::uuid[]) and status = 0 and start_after is null returning id)
select pg_notify('agentflow', 'pending ' || l.id) from l
"""

# A run that was to begin later takes its place in the thread when its time has come: behind what was said meanwhile.
# Who waits behind its old place is told, and who listens to the thread.
DUE = """
with t as (
  update thread set last_seq = thread.last_seq + 1 from run r
  where r.id = %(run)s and r.status = 0 and r.start_after <= now() and thread.id = r.thread_id
  returning thread.id, thread.last_seq),
r as (
  update run set seq = t.last_seq, start_after = null from t
  where run.id = %(run)s and run.status = 0 and run.start_after <= now()
  returning run.id, t.id as thread_id, t.last_seq),
m as (
  update message set seq = r.last_seq from r where message.thread_id = r.thread_id and message.run_id = r.id)
select pg_notify('agentflow', 'thread ' || r.thread_id), pg_notify('agentflow', 'begun ' || r.thread_id) from r
"""

RENEW = """
update run set lease_until = now() + %(lease)s * interval '1 second'
where id = %(run)s and attempt = %(attempt)s and status = 1
returning stop
"""

# Run done, answer, memories with their words, and the outbox rows of those without a vector; nothing if the
# attempt is stale, or a set that it remembers was forgotten with all that was in it.
FINISH = f"""
with f as (
  update run set status = 2, ended_at = now(), lease_until = null, role_name = %(role)s, adapter = %(adapter)s,
                 details = %(details)s, recalled = %(recalled)s, error = null, kind = %(kind)s,
                 exchange = %(exchange)s, given = null, worker = null
  where id = %(run)s and attempt = %(attempt)s and status = 1
    and %(sets)s = (select count(*) from scope where id = any(%(scopes)s::int[]))
  returning id, thread_id, tenant, seq, watched),
t as (
  update thread set last_seq = last_seq + 1, role_name = coalesce(%(role)s, role_name), updated_at = now(),
                    session_seq = session_seq + %(places)s, status = 'idle', error = null, interrupts = '{{}}'
  from f where thread.id = f.thread_id
  returning thread.id, thread.last_seq, thread.session_id, thread.session_seq, thread.last_seq > f.seq + 1 as more),
told as (
  select pg_notify('agentflow', 'thread ' || t.id) from t where t.more
  union all select pg_notify('agentflow', 'run ' || f.id) from f where f.watched),
a as (
  insert into message (thread_id, seq, id, tenant, run_id, role, content, role_name, adapter,
                       tokens_in, tokens_out, latency_ms)
  select t.id, t.last_seq, %(message)s, f.tenant, f.id, 3, %(answer)s, %(role)s, %(adapter)s,
         %(tokens_in)s, %(tokens_out)s, %(latency)s
  from f, t),
place as (select f.tenant, t.id as thread_id, t.session_id, t.session_seq - %(places)s as first from f, t),
{INSERT} {WORDS}
select count(*), (select count(*) from told) from f
"""  # noqa: S608 - constants

# An open run may be taken at once by another process; those behind a closed one may go on.
FAIL = """
with f as (
  update run set status = %(status)s, error = %(error)s, lease_until = now(),
                 ended_at = case when %(status)s = 3 then now() end
  where id = %(run)s and attempt = %(attempt)s and status = 1
  returning id, thread_id, status),
t as (
  update thread set status = 'error', error = %(error)s, updated_at = now()
  from f where thread.id = f.thread_id and f.status = 3)
select f.id, pg_notify('agentflow', 'thread ' || f.thread_id), pg_notify('agentflow', 'run ' || f.id),
       case when f.status = 0 then pg_notify('agentflow', 'pending ' || f.id) end
from f
"""

# Nobody waits for the answer any more: what was said of it stays in the thread as a part, and is no memory.
CANCEL = """
with f as (
  update run set status = 4, error = %(error)s, lease_until = null, ended_at = now()
  where id = %(run)s and attempt = %(attempt)s and status = 1
  returning id, tenant, thread_id),
t as (
  update thread set last_seq = last_seq + 1, updated_at = now()
  from f where thread.id = f.thread_id and %(said)s <> '' returning thread.last_seq),
m as (
  insert into message (thread_id, seq, id, tenant, run_id, role, status, content)
  select f.thread_id, t.last_seq, %(message)s, f.tenant, f.id, 3, 2, %(said)s from f, t)
select f.id, pg_notify('agentflow', 'thread ' || f.thread_id), pg_notify('agentflow', 'run ' || f.id) from f
"""

REOPEN = """
with r as (
  update run set status = 0, ended_at = null, lease_until = now() + %(lease)s * interval '1 second'
  where id = %(run)s and tenant = %(tenant)s and status in (3, 4) returning id)
delete from message using r where message.run_id = r.id and message.status = 2
"""

PARTS = PARTS_OF.format(thread="mine.thread_id", top="mine.seq")
# The message, the thread's last role, and the last messages of the finished turns before this one; steps that
# ended in tool calls are none.
CONTEXT = f"""
select m.content, t.role_name, t.pinned_role,
       coalesce(extract(epoch from now() - last.ended_at), 0)::float8, last.details,
       coalesce((select jsonb_agg(jsonb_build_array(h.role, h.content) order by h.at, h.role)
                 from (select r.seq as at, o.role, o.content
                       from {PARTS}
                       join run r on r.thread_id = mine.thread_id and r.seq between part.low and part.high
                       join message o on o.run_id = r.id
                       where r.seq < mine.seq and r.status = 2 and r.kind in (1, 5)
                       order by r.seq desc, o.role desc limit %(messages)s) h), '[]'::jsonb)
from run mine
join thread t on t.id = mine.thread_id
join message m on m.thread_id = mine.thread_id and m.seq = mine.seq
left join lateral (
  select ended_at, details from {PARTS}
  join run r on r.thread_id = mine.thread_id and r.seq between part.low and part.high
  where r.seq < mine.seq and r.status = 2
  order by r.seq desc limit 1) last on true
where mine.id = %(run)s and mine.tenant = %(tenant)s
"""  # noqa: S608 - constants

# A row that is being written is somebody's: to claim it would be to wait for him.
ABANDONED = """
select id from run where status in (0, 1) and lease_until < now() and (start_after is null or start_after <= now())
  and id <> all(%(known)s::uuid[])
order by started_at limit %(limit)s for update skip locked
"""
OPEN_RUNS = "select tenant, count(*)::int from run where status in (0, 1) group by tenant"
RELEASE = "update run set lease_until = now() - interval '1 second' where status in (0, 1)"


@dataclass(frozen=True)
class PostgresLedger:
    """The ledger in Postgres.

    `lease` seconds of silence make a run free for another worker; after `pause` seconds without a message a
    thread begins a new session, across which memories are no neighbours.
    """

    connections: Connections
    scopes: Scopes
    worker: str
    lease: float = 30.0
    pause: float = 6 * 3600.0

    async def accept(self, request: Request, *, now: bool = True) -> Acceptance:
        """See Ledger.accept: one durable commit."""
        run_id = request.run_id or str(uuid_utils.uuid7())
        thread_id = request.thread_id or str(uuid_utils.uuid7())
        async with self.connections.use(request.owner) as connection:
            earlier = await self._by_key(connection, request)
            if earlier is not None:
                return Acceptance(earlier, fresh=False, lease=None)
            threads, *started = await self._written(connection, request, run_id, thread_id, now=now)
            if threads == 0:
                if (earlier := await self._by_key(connection, request)) is not None:
                    return Acceptance(earlier, fresh=False, lease=None)
                message = f"There is no thread {thread_id} for this user."
                raise NotFound(message, field="thread_id", value=thread_id)
            if started[0] is None:
                return await self._raced(connection, request)
        return self._accepted(request, run_id, thread_id, started)

    async def claim(self, run_id: str) -> Lease | None:
        """See Ledger.claim."""
        parameters = {"run": run_id, "worker": self.worker, "lease": self.lease}
        async with self.connections.background() as connection:
            row = await (await connection.execute(CLAIM, parameters)).fetchone()
            if row is None and (await connection.execute(DUE, parameters)).rowcount == 1:
                row = await (await connection.execute(CLAIM, parameters)).fetchone()
        if row is None:
            return None
        run, thread, *rest = row
        return Lease(str(run), str(thread), *rest)

    async def claim_next(self, known: Sequence[str]) -> Lease | None:
        """See Ledger.claim_next."""
        parameters = {"known": list(known), "worker": self.worker, "lease": self.lease}
        async with self.connections.background() as connection:
            row = await (await connection.execute(CLAIM_NEXT.encode(), parameters)).fetchone()
        return None if row is None else Lease(str(row[0]), str(row[1]), *row[2:])

    async def offer(self, run_id: str) -> None:
        """See Ledger.offer."""
        async with self.connections.background() as connection:
            await connection.execute(OFFER, {"run": run_id})

    async def leave(self, run_ids: Sequence[str]) -> None:
        """See Ledger.leave."""
        async with self.connections.background() as connection:
            await connection.execute(LEAVE, {"runs": list(run_ids)})

    async def renew(self, lease: Lease) -> str | None:
        """See Ledger.renew."""
        (stop,) = await self._fenced(RENEW, lease, {"lease": self.lease})
        return None if stop is None else str(stop)

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """See Ledger.finish. A database that restarts meanwhile is waited for, up to 20 s."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(DatabaseDown),
            stop=stop_after_delay(20),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await self._finish_once(lease, outcome)

    async def fail(self, lease: Lease, error: Json, *, final: bool) -> None:
        """See Ledger.fail."""
        await self._fenced(FAIL, lease, {"error": Jsonb(error), "status": 3 if final else 0})

    async def cancel(self, lease: Lease, reason: Json, *, said: str) -> None:
        """See Ledger.cancel."""
        message = _message_id(lease.run_id, "assistant")
        await self._fenced(CANCEL, lease, {"error": Jsonb(reason), "message": message, "said": said})

    async def reopen(self, run_id: str, *, tenant: int) -> None:
        """See Ledger.reopen."""
        async with self.connections.use(Owner(tenant)) as connection:
            await connection.execute(REOPEN, {"run": run_id, "tenant": tenant, "lease": self.lease})

    async def find(self, run_id: str, *, tenant: int, user: str | None = None) -> RunRecord:
        """See Ledger.find."""
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(BY_ID, {"run": run_id, "tenant": tenant})
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no turn {run_id}.", field="run_id", value=run_id)
        return _record(row)

    async def with_key(self, key: str, *, tenant: int, user: str) -> RunRecord | None:
        """See Ledger.with_key."""
        async with self.connections.use(Owner(tenant, user)) as connection:
            cursor = await connection.execute(BY_KEY, {"key": key, "tenant": tenant})
            row = await cursor.fetchone()
        return None if row is None else _record(row)

    async def context(self, run_id: str, *, tenant: int, messages: int) -> Context:
        """See Ledger.context."""
        parameters = {"run": run_id, "tenant": tenant, "messages": messages}
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(CONTEXT.encode(), parameters)
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no turn {run_id}.", field="run_id", value=run_id)
        text, role, pinned, idle, details, history = row
        return {
            "text": text,
            "history": [_chat_message(speaker, content) for speaker, content in history],
            "role": role,
            "pinned_role": pinned,
            "idle": idle,
            "offered": offered(details),
        }

    async def abandoned(self, *, limit: int, known: Sequence[str] = ()) -> list[str]:
        """See Ledger.abandoned."""
        async with self.connections.background() as connection:
            cursor = await connection.execute(ABANDONED, {"limit": limit, "known": list(known)})
            return [str(row[0]) for row in await cursor.fetchall()]

    async def open_runs(self) -> Mapping[int, int]:
        """See Ledger.open_runs."""
        async with self.connections.background() as connection:
            rows = await (await connection.execute(OPEN_RUNS)).fetchall()
        return dict(rows)

    async def release_all(self) -> None:
        """End every lease: only for the sole owner of a database, at its start."""
        async with self.connections.background() as connection:
            await connection.execute(RELEASE)

    async def _finish_once(self, lease: Lease, outcome: Outcome) -> None:
        if await self._finished(lease, outcome):
            return
        record = await self.find(lease.run_id, tenant=lease.tenant)
        if record.status == "done" and record.attempt == lease.attempt:
            return
        if record.status == "running" and record.attempt == lease.attempt:
            self.scopes.known.clear()
            if await self._finished(lease, outcome):
                return
        raise _lost(lease)

    async def _finished(self, lease: Lease, outcome: Outcome) -> bool:
        """Whether the statement has written anything."""
        details, recalled = packed(outcome.result)
        parameters = {
            **_identity(lease),
            "role": outcome.role,
            "adapter": outcome.adapter,
            "answer": outcome.answer,
            "details": details,
            "recalled": recalled,
            "message": _message_id(lease.run_id, "assistant"),
            "tokens_in": outcome.usage["prompt_tokens"],
            "tokens_out": outcome.usage["completion_tokens"],
            "latency": outcome.latency_ms,
            "kind": KINDS[outcome.kind],
            "exchange": outcome.exchange,
            **await self._memories(lease, outcome),
        }
        async with self.connections.use(lease.owner) as connection:
            cursor = await connection.execute(FINISH.encode(), parameters)
            row = await cursor.fetchone()
        return bool(row and row[0] == 1)

    async def _memories(self, lease: Lease, outcome: Outcome) -> dict[str, Any]:
        memories, private_to = outcome.memories, outcome.role if outcome.private else None
        scopes = own_scopes(lease.owner, (one.collection for one in memories), private_to=private_to)
        places = {scope.collection: await self.scopes.of(scope) for scope in scopes}
        languages = {name: self.scopes.language(name) for name in places}
        sources = [_message_id(lease.run_id, one.speaker) for one in memories]
        return {
            **written(memories, places, languages, sources),
            "sets": len({place.scope_id for place in places.values()}),
            "places": max((one.ordinal + 1 for one in memories), default=0),
        }

    async def _fenced(self, statement: str, lease: Lease, extra: dict[str, Any]) -> Any:
        async with self.connections.use(lease.owner) as connection:
            cursor = await connection.execute(statement.encode(), {**_identity(lease), **extra})
            row = await cursor.fetchone()
        if row is None:
            raise _lost(lease)
        return row

    async def _by_key(self, connection: Connection, request: Request) -> RunRecord | None:
        if request.idempotency_key is None:
            return None
        cursor = await connection.execute(BY_KEY, {"key": request.idempotency_key, "tenant": request.tenant})
        row = await cursor.fetchone()
        if row is None:
            return None
        record = _record(row)
        if record.fingerprint != request.fingerprint:
            raise Conflict(
                f"The idempotency key {request.idempotency_key!r} was used for another request; use a new key.",
                field="Idempotency-Key",
                value=request.idempotency_key,
            )
        return record

    async def _written(
        self, connection: Connection, request: Request, run_id: str, thread_id: str, *, now: bool
    ) -> Any:
        """One statement; only a key that may be taken meanwhile needs a transaction to take it back."""
        parameters = {**self._acceptance(request, run_id, thread_id), "now": now}
        if request.thread_id is None and request.idempotency_key is None:
            return await (await connection.execute(ACCEPT, parameters)).fetchone()
        if request.idempotency_key is None:
            return await in_turn(connection, thread_id, ACCEPT.encode(), parameters)
        row: Any = None
        async with connection.transaction() as transaction:
            await connection.execute(IN_TURN, (thread_id,))
            row = await (await connection.execute(ACCEPT, parameters)).fetchone()
            if row[1] is None:
                raise Rollback(transaction)
        return row

    async def _raced(self, connection: Connection, request: Request) -> Acceptance:
        earlier = await self._by_key(connection, request)
        if earlier is None:
            raise DatabaseDown(
                "The turn that used this key first is not visible yet; ask again.", retry_after=1
            )
        return Acceptance(earlier, fresh=False, lease=None)

    def _acceptance(self, request: Request, run_id: str, thread_id: str) -> dict[str, Any]:
        return {
            "thread": thread_id,
            "tenant": request.tenant,
            "user": request.user,
            "run": run_id,
            "key": request.idempotency_key,
            "fingerprint": b"" if request.idempotency_key is None else request.fingerprint,
            "role": request.wanted_role,
            "webhook": request.webhook,
            "given": None if request.given is None else Jsonb(request.given),
            "worker": self.worker,
            "lease": self.lease,
            "pause": self.pause,
            "message": _message_id(run_id, "user"),
            "text": request.text,
        }

    def _accepted(self, request: Request, run_id: str, thread_id: str, started: Any) -> Acceptance:
        status, attempt, started_at = started
        record = RunRecord(
            run_id,
            thread_id,
            request.tenant,
            STATUS[status],
            attempt,
            request.fingerprint,
            None,
            None,
            started_at,
        )
        lease = Lease(
            run_id,
            thread_id,
            attempt,
            request.tenant,
            request.user,
            request.text,
            request.wanted_role,
            request.given,
        )
        return Acceptance(record, fresh=True, lease=lease if record.status == "running" else None)


def _message_id(run_id: str, speaker: str) -> UUID:
    """The same for every attempt, so that a repeated write changes nothing."""
    return uuid5(UUID(run_id), speaker)


def _identity(lease: Lease) -> dict[str, Any]:
    return {"run": lease.run_id, "attempt": lease.attempt}


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Attempt {lease.attempt} of turn {lease.run_id} is no longer the current one.")


def _chat_message(role: int, content: str) -> ChatMessage:
    return {"role": "assistant" if SPEAKERS[role] == "assistant" else "user", "content": content}


def _record(row: Any) -> RunRecord:
    run, thread, tenant, status, attempt, digest, error, started_at, *columns = row
    result = told(run, thread, columns)
    return RunRecord(
        str(run), str(thread), tenant, STATUS[status], attempt, bytes(digest), result, error, started_at
    )
