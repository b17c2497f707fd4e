"""A ledger and a memory home in memory, for unit tests; they pass the suites the real ones pass."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import uuid_utils

from agentflow.errors import Conflict, LeaseLost, NotFound
from agentflow.prompt import ChatMessage
from agentflow.protocols import (
    DOCUMENTS,
    Acceptance,
    Beside,
    Lease,
    NewMemory,
    Outcome,
    Owner,
    Request,
    RunRecord,
    Scope,
    Vectors,
)
from agentflow.retrieval.bm25 import counts, idf
from agentflow.retrieval.fusion import REACH, Pool, ranked
from agentflow.retrieval.terms import asks, bag, embedded_text, question
from agentflow.turn import Context, Json, Recollection

OPEN = ("queued", "running")
FORGOTTEN = Scope(-1, "", None)


@dataclass
class Entry:
    """A run with all that belongs to it."""

    request: Request
    record: RunRecord
    lease_until: float
    answer: str | None = None
    role: str | None = None
    ended_at: float = 0.0
    kind: str = "turn"


@dataclass
class FakeMemory:
    """Memories in a list; `items` holds (scope, item) pairs, and searching is exact."""

    items: list[tuple[Scope, NewMemory, str]] = field(default_factory=list)

    async def search(self, scope: Scope, text: str, vector: Vectors | None, k: int) -> list[Recollection]:
        """See MemoryHome.search; everything that a word or a vector finds is a candidate."""
        mine = [
            (number, one, thread) for number, (place, one, thread) in enumerate(self.items) if place == scope
        ]
        asked = question(text, ("english",))
        words = asked.under(("english",))
        shown = [asked.words[place] for place in words.values()]
        pool = _around_hits(_pool(mine, list(words), vector))
        return [
            {
                **_recollection(number, scope, self.items[number][1], self.items[number][2], one.relevance),
                "why": {**one.parts, "matched": [shown[term] for term in one.parts["matched"]]},
            }
            for one in ranked(pool, k)
            for number in (int(pool.ids[one.row]),)
        ]

    async def beside(
        self, owner: Owner, *, role: str | None, thread: str | None, collections: Sequence[str]
    ) -> Beside:
        """See MemoryHome.beside; nothing is pinned."""
        known = (*collections, DOCUMENTS)
        found = (
            scope
            for scope, _, _ in self.items
            if (scope.tenant, scope.user or owner.user) == (owner.tenant, owner.user)
            and scope.collection in known
            and scope.role in (None, role)
            and scope.thread in (None, thread)
        )
        return Beside(list(dict.fromkeys(found)))

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """See MemoryHome.fetch."""
        known = {number: entry for number, entry in enumerate(self.items) if entry[0] == scope}
        return [_recollection(one, scope, known[one][1], known[one][2], 0.0) for one in ids if one in known]

    async def forget(self, scope: Scope, ids: Sequence[int] | None = None) -> int:
        """See MemoryHome.forget; the other items keep their ids."""
        mine = [n for n, one in enumerate(self.items) if one[0] == scope and (ids is None or n in ids)]
        for number in mine:
            _, one, thread = self.items[number]
            self.items[number] = (FORGOTTEN, replace(one, content="", vector=None), thread)
        return len(mine)


@dataclass
class FakeLedger:
    """Turns in a dictionary. `clock` in seconds; `lease` seconds of silence free a run."""

    memory: FakeMemory = field(default_factory=FakeMemory)
    lease: float = 30.0
    clock: Callable[[], float] = time.monotonic
    runs: dict[str, Entry] = field(default_factory=dict)
    owners: dict[str, tuple[int, str]] = field(default_factory=dict)

    async def accept(self, request: Request, *, now: bool = True) -> Acceptance:
        """See Ledger.accept."""
        earlier = self._by_key(request)
        if earlier is not None:
            return Acceptance(earlier, fresh=False, lease=None)
        thread_id = request.thread_id or str(uuid_utils.uuid7())
        owner = self.owners.setdefault(thread_id, (request.tenant, request.user))
        if owner != (request.tenant, request.user):
            raise NotFound(
                f"There is no thread {thread_id} for this user.", field="thread_id", value=thread_id
            )
        free = now and not self._open_in(thread_id)
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

    async def claim_next(self, known: Sequence[str]) -> Lease | None:
        """See Ledger.claim_next; what waits at a live process is left to it, as turns are."""
        for run_id, entry in self.runs.items():
            free = (
                run_id not in known and entry.record.status == "queued" and entry.lease_until <= self.clock()
            )
            if free and (lease := await self.claim(run_id)) is not None:
                return lease
        return None

    async def offer(self, run_id: str) -> None:
        """See Ledger.offer; nobody else listens."""

    async def leave(self, run_ids: Sequence[str]) -> None:
        """See Ledger.leave."""
        for run_id in run_ids:
            if self.runs[run_id].record.status == "queued":
                self.runs[run_id].lease_until = self.clock()

    async def renew(self, leases: Sequence[Lease]) -> Mapping[str, str | None]:
        """See Ledger.renew; nobody asks a run of this ledger to stop."""
        found = {one.run_id: self.runs[one.run_id] for one in leases if self._is_current(one)}
        for entry in found.values():
            entry.lease_until = self.clock() + self.lease
        return dict.fromkeys(found)

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """See Ledger.finish."""
        done = self.runs[lease.run_id].record
        if done.status == "done" and done.attempt == lease.attempt:
            return
        entry = self._fenced(lease)
        entry.record = replace(entry.record, status="done", result=outcome.result, error=None)
        entry.kind = outcome.kind
        entry.answer, entry.role, entry.ended_at = outcome.answer, outcome.role, self.clock()
        for one in outcome.memories:
            scope = Scope(lease.tenant, one.collection, lease.user, outcome.role if outcome.private else None)
            self.memory.items.append((scope, one, lease.thread_id))

    async def fail(self, lease: Lease, error: Json, *, final: bool) -> None:
        """See Ledger.fail."""
        entry = self._fenced(lease)
        entry.record = replace(entry.record, status="failed" if final else "queued", error=error)
        entry.lease_until = self.clock()

    async def cancel(self, lease: Lease, reason: Json, *, said: str) -> None:
        """See Ledger.cancel."""
        entry = self._fenced(lease)
        entry.record, entry.answer = replace(entry.record, status="cancelled", error=reason), said

    async def reopen(self, run_id: str, *, tenant: int) -> None:
        """See Ledger.reopen."""
        entry = self.runs[run_id]
        if entry.record.status in ("failed", "cancelled") and entry.record.tenant == tenant:
            entry.record = replace(entry.record, status="queued")

    async def find(self, run_id: str, *, tenant: int, user: str | None = None) -> RunRecord:
        """See Ledger.find."""
        entry = self.runs.get(run_id)
        if entry is None or entry.record.tenant != tenant or user not in (None, entry.request.user):
            raise NotFound(f"There is no turn {run_id}.", field="run_id", value=run_id)
        return entry.record

    async def with_key(self, key: str, *, tenant: int, user: str) -> RunRecord | None:
        """See Ledger.with_key."""
        same = (one for one in self.runs.values() if one.request.owner == Owner(tenant, user))
        return next((one.record for one in same if one.request.idempotency_key == key), None)

    async def context(self, run_id: str, *, tenant: int, messages: int) -> Context:
        """See Ledger.context."""
        record = await self.find(run_id, tenant=tenant)
        thread = [one for one in self.runs.values() if one.record.thread_id == record.thread_id]
        before = [one for one in thread[: thread.index(self.runs[run_id])] if one.record.status == "done"]
        last = before[-1] if before else None
        history: list[ChatMessage] = []
        for one in before:
            if one.kind == "step":
                continue
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

    async def abandoned(self, *, limit: int, known: Sequence[str] = ()) -> list[str]:
        """See Ledger.abandoned."""
        lost = [
            run_id
            for run_id, one in self.runs.items()
            if one.record.status in OPEN and one.lease_until < self.clock() and run_id not in known
        ]
        return lost[:limit]

    async def open_runs(self) -> Mapping[int, int]:
        """See Ledger.open_runs."""
        return Counter(one.record.tenant for one in self.runs.values() if one.record.status in OPEN)

    def _by_key(self, request: Request) -> RunRecord | None:
        for entry in self.runs.values():
            same = entry.request.owner, entry.request.idempotency_key
            if request.idempotency_key is None or same != (request.owner, request.idempotency_key):
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

    def _is_current(self, lease: Lease) -> bool:
        record = self.runs[lease.run_id].record
        return record.attempt == lease.attempt and record.status != "queued"

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
            request.given,
        )


def _pool(items: Sequence[tuple[int, NewMemory, str]], terms: Sequence[int], vector: Vectors | None) -> Pool:
    """All items, in English; a thread is a session."""
    bags = [bag(embedded_text(one.content, speaker=one.speaker), "english") for _, one, _ in items]
    sizes = np.array([len(one.packed()) for one in bags], np.int64)
    found = counts(b"".join(one.packed() for one in bags), sizes, terms)
    weights = idf(len(items), (found > 0).sum(axis=0))
    threads = {thread: place for place, thread in enumerate(dict.fromkeys(thread for _, _, thread in items))}
    return Pool(
        ids=np.array([number for number, _, _ in items], np.int64),
        sessions=np.array([threads[thread] for _, _, thread in items], np.int64),
        positions=np.arange(len(items)),
        cosines=np.array([_cosine(one, vector) for _, one, _ in items], np.float64),
        questions=np.array([asks(one.content) for _, one, _ in items], bool),
        lengths=np.array([one.length for one in bags], np.int64),
        found=found,
        weights=weights,
        mean_length=float(np.mean([one.length for one in bags])) if bags else 1.0,
        owed=float(weights.sum()),
    )


def _around_hits(pool: Pool) -> Pool:
    """Without the items that neither arm finds and that stand next to no such item."""
    hit = (pool.found > 0).any(axis=1) | ~np.isnan(pool.cosines)
    near = np.abs(pool.positions[:, None] - pool.positions) <= REACH[-1][0]
    kept = (near & (pool.sessions[:, None] == pool.sessions) & hit).any(axis=1)
    rows = ("ids", "sessions", "positions", "cosines", "questions", "lengths", "found")
    return replace(pool, **{name: getattr(pool, name)[kept] for name in rows})


def _cosine(one: NewMemory, vector: Vectors | None) -> float:
    return float("nan") if vector is None or one.vector is None else float(one.vector @ vector)


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
