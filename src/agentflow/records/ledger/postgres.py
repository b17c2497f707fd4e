"""The ledger in Postgres: accepted, claimed, renewed, ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import uuid_utils
from psycopg import Rollback
from psycopg.types.json import Jsonb

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
from agentflow.records.connections import IN_TURN, Connection, Connections, in_turn, persevering
from agentflow.records.details import offered, packed, told
from agentflow.records.ledger.statements import (
    ABANDONED,
    ACCEPT,
    BY_ID,
    BY_KEY,
    CANCEL,
    CLAIM,
    CLAIM_NEXT,
    CONTEXT,
    DUE,
    FAIL,
    FINISH,
    LEAVE,
    OFFER,
    OPEN_RUNS,
    RELEASE,
    RENEW,
    REOPEN,
)
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.writing import written
from agentflow.turn import Context, Json

STATUS: tuple[RunStatus, ...] = ("queued", "running", "done", "failed", "cancelled")
KINDS = {"turn": 1, "step": 4}
SPEAKERS = {2: "user", 3: "assistant"}


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

    async def renew(self, leases: Sequence[Lease]) -> Mapping[str, str | None]:
        """See Ledger.renew."""
        parameters = {
            "runs": [one.run_id for one in leases],
            "attempts": [one.attempt for one in leases],
            "lease": self.lease,
        }
        async with self.connections.background() as connection:
            rows = await (await connection.execute(RENEW, parameters)).fetchall()
        return {str(run): stop for run, stop in rows}

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """See Ledger.finish. A database that restarts meanwhile is waited for, up to 20 s."""
        async for attempt in persevering():
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
