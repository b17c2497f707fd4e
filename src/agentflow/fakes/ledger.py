"""A ledger and a memory home in memory, for unit tests; they pass the suites the real ones pass."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import uuid_utils

from agentflow.errors import Conflict, LeaseLost, NotFound
from agentflow.prompt import ChatMessage
from agentflow.protocols import Acceptance, Lease, NewMemory, Outcome, Request, RunRecord, Scope, Vectors
from agentflow.turn import Context, Json, Recollection

OPEN = ("queued", "running")


@dataclass
class Entry:
    """A run with all that belongs to it."""

    request: Request
    record: RunRecord
    lease_until: float
    answer: str | None = None
    role: str | None = None
    ended_at: float = 0.0


@dataclass
class FakeMemory:
    """Memories in a list; `items` holds (scope, item) pairs, and searching is exact."""

    items: list[tuple[Scope, NewMemory, str]] = field(default_factory=list)

    async def search(self, scope: Scope, vector: Vectors, k: int) -> list[Recollection]:
        """See MemoryHome.search."""
        scored = [
            _recollection(number, place, one, thread, float(one.vector @ vector))
            for number, (place, one, thread) in enumerate(self.items)
            if place == scope and one.vector is not None
        ]
        return sorted(scored, key=lambda item: (-item["score"], item["id"]))[:k]

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """See MemoryHome.fetch."""
        known = {number: entry for number, entry in enumerate(self.items) if entry[0] == scope}
        return [_recollection(one, scope, known[one][1], known[one][2], 0.0) for one in ids if one in known]


@dataclass
class FakeLedger:
    """Turns in a dictionary. `clock` in seconds; `lease` seconds of silence free a run."""

    memory: FakeMemory = field(default_factory=FakeMemory)
    lease: float = 30.0
    clock: Callable[[], float] = time.monotonic
    runs: dict[str, Entry] = field(default_factory=dict)
    owners: dict[str, tuple[int, str]] = field(default_factory=dict)

    async def accept(self, request: Request) -> Acceptance:
        """See Ledger.accept."""
        earlier = self._by_key(request)
        if earlier is not None:
            return Acceptance(earlier, fresh=False, lease=None)
        thread_id = request.thread_id or str(uuid_utils.uuid7())
        owner = self.owners.setdefault(thread_id, (request.tenant, request.user))
        if owner != (request.tenant, request.user):
            raise NotFound(f"There is no thread {thread_id} for this user.", field="thread_id", value=thread_id)
        free = not self._open_in(thread_id)
        run_id = request.run_id or str(uuid_utils.uuid7())
        record = RunRecord(
            run_id,
            thread_id,
            request.tenant,
            "running" if free else "queued",
            int(free),
            request.fingerprint,
            None,
            None,
            datetime.now(UTC),
        )
        self.runs[run_id] = Entry(request, record, self.clock() + self.lease)
        return Acceptance(record, fresh=True, lease=self._lease(self.runs[run_id]) if free else None)

    async def claim(self, run_id: str) -> Lease | None:
        """See Ledger.claim."""
        entry = self.runs[run_id]
        claimable = entry.record.status == "queued" or (
            entry.record.status == "running" and entry.lease_until < self.clock()
        )
        if not claimable or self._open_in(entry.record.thread_id)[:1] != [run_id]:
            return None
        entry.record = replace(entry.record, status="running", attempt=entry.record.attempt + 1)
        entry.lease_until = self.clock() + self.lease
        return self._lease(entry)

    async def renew(self, lease: Lease) -> None:
        """See Ledger.renew."""
        self._fenced(lease).lease_until = self.clock() + self.lease

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """See Ledger.finish."""
        done = self.runs[lease.run_id].record
        if done.status == "done" and done.attempt == lease.attempt:
            return
        entry = self._fenced(lease)
        entry.record = replace(entry.record, status="done", result=outcome.result, error=None)
        entry.answer, entry.role, entry.ended_at = outcome.answer, outcome.role, self.clock()
        for one in outcome.memories:
            scope = Scope(lease.tenant, one.collection, lease.user)
            self.memory.items.append((scope, one, lease.thread_id))

    async def fail(self, lease: Lease, error: Json, *, final: bool) -> None:
        """See Ledger.fail."""
        entry = self._fenced(lease)
        entry.record = replace(entry.record, status="failed" if final else "queued", error=error)
        entry.lease_until = self.clock()

    async def reopen(self, run_id: str, *, tenant: int) -> None:
        """See Ledger.reopen."""
        entry = self.runs[run_id]
        if entry.record.status == "failed" and entry.record.tenant == tenant:
            entry.record = replace(entry.record, status="queued")

    async def find(self, run_id: str, *, tenant: int) -> RunRecord:
        """See Ledger.find."""
        entry = self.runs.get(run_id)
        if entry is None or entry.record.tenant != tenant:
            raise NotFound(f"There is no turn {run_id}.", field="run_id", value=run_id)
        return entry.record

    async def context(self, run_id: str, *, tenant: int, messages: int) -> Context:
        """See Ledger.context."""
        record = await self.find(run_id, tenant=tenant)
        thread = [one for one in self.runs.values() if one.record.thread_id == record.thread_id]
        before = [one for one in thread[: thread.index(self.runs[run_id])] if one.record.status == "done"]
        last = before[-1] if before else None
        history: list[ChatMessage] = []
        for one in before:
            history += [{"role": "user", "content": one.request.text}]
            history += [{"role": "assistant", "content": one.answer or ""}]
        roles = [one.role for one in thread if one.role is not None]
        selection = ((last.record.result or {}) if last else {}).get("selection", {})
        return {
            "text": self.runs[run_id].request.text,
            "history": history[-messages:] if messages else [],
            "role": roles[-1] if roles else None,
            "pinned_role": None,
            "idle": self.clock() - last.ended_at if last else 0.0,
            "offered": selection.get("offered", []),
        }

    async def abandoned(self, *, limit: int) -> list[str]:
        """See Ledger.abandoned."""
        lost = [
            run_id
            for run_id, one in self.runs.items()
            if one.record.status in OPEN and one.lease_until < self.clock()
        ]
        return lost[:limit]

    def _by_key(self, request: Request) -> RunRecord | None:
        for entry in self.runs.values():
            same = entry.request.tenant, entry.request.idempotency_key
            if request.idempotency_key is None or same != (request.tenant, request.idempotency_key):
                continue
            if entry.record.fingerprint != request.fingerprint:
                key = request.idempotency_key
                raise Conflict(
                    f"The idempotency key {key!r} was used for another request; use a new key.",
                    field="Idempotency-Key",
                    value=key,
                )
            return entry.record
        return None

    def _open_in(self, thread_id: str) -> list[str]:
        return [
            run_id
            for run_id, one in self.runs.items()
            if one.record.thread_id == thread_id and one.record.status in OPEN
        ]

    def _fenced(self, lease: Lease) -> Entry:
        entry = self.runs[lease.run_id]
        if entry.record.status != "running" or entry.record.attempt != lease.attempt:
            raise LeaseLost(f"Attempt {lease.attempt} of turn {lease.run_id} is no longer the current one.")
        return entry

    def _lease(self, entry: Entry) -> Lease:
        request, record = entry.request, entry.record
        return Lease(
            record.run_id,
            record.thread_id,
            record.attempt,
            request.tenant,
            request.user,
            request.text,
            request.wanted_role,
        )


def _recollection(number: int, scope: Scope, one: NewMemory, thread: str, score: float) -> Recollection:
    return {
        "id": number,
        "collection": scope.collection,
        "speaker": one.speaker,
        "said_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "content": one.content,
        "score": round(score, 4),
        "thread_id": thread,
    }
