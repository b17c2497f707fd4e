"""The record of every turn: accepted, claimed, ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Literal, Protocol

from agentflow.protocols.embedders import Vectors
from agentflow.protocols.scopes import Owner
from agentflow.turn import Context, Given, Json, Usage


@dataclass(frozen=True)
class Request:
    """A message to be accepted.

    `given` is what a stateless client sent beside it; `stands_for` is the digest of the whole request where thread
    and text were derived from it. `webhook` is called with the end of the turn.
    """

    text: str
    tenant: int = 0
    user: str = "default"
    thread_id: str | None = None
    wanted_role: str | None = None
    idempotency_key: str | None = None
    run_id: str | None = None
    given: Given | None = None
    stands_for: bytes | None = None
    webhook: str | None = None

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.user)

    @property
    def fingerprint(self) -> bytes:
        """What an idempotency key stands for: `stands_for`, or sha256 over text, role, thread and webhook."""
        if self.stands_for is not None:
            return self.stands_for
        parts = [self.text, self.wanted_role or "", self.thread_id or ""]
        parts += [self.webhook] if self.webhook else []
        return sha256("\x1f".join(parts).encode()).digest()


@dataclass(frozen=True)
class Lease:
    """The right to work on a run; every write carries `attempt` and fails once a newer one exists.

    `work` is what a run of the LangGraph protocol was asked for; None for a turn of another door. `watched`:
    the process that accepted it listens, or another one, so its events are logged.
    """

    run_id: str
    thread_id: str
    attempt: int
    tenant: int
    user: str
    text: str
    wanted_role: str | None
    given: Given | None = None
    graph: str = "agent"
    work: Json | None = None
    watched: bool = False

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.user)


RunStatus = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class RunRecord:
    """A run as the ledger shows it. `result` is the answer's JSON once done, `error` the reason once failed."""

    run_id: str
    thread_id: str
    tenant: int
    status: RunStatus
    attempt: int
    fingerprint: bytes
    result: Json | None
    error: Json | None
    started_at: datetime


@dataclass(frozen=True)
class Acceptance:
    """An accepted message: its run, and the lease if its thread is free to go on at once.

    `fresh` is False when the idempotency key was known: `record` is then the earlier run.
    """

    record: RunRecord
    fresh: bool
    lease: Lease | None


@dataclass(frozen=True)
class NewMemory:
    """A text to remember, with its vector if it is known already (else the outbox fills it in).

    `ordinal` is its place among what is written together: neighbours help each other to be found. `piece`
    counts the pieces of one long message. `said_at` None is now; `trust` None is the speaker's. A chunk has its
    `document`, and `cited` says where in it: heading, page, line, part.
    """

    collection: str
    ordinal: int
    speaker: str
    content: str
    vector: Vectors | None = None
    piece: int = 0
    said_at: datetime | None = None
    kind: Literal["turn", "chunk", "fact", "summary"] = "turn"
    trust: int | None = None
    document: int | None = None
    cited: Json | None = None


@dataclass(frozen=True)
class Outcome:
    """All that a finished turn writes, in one transaction.

    With `private` the memories are the role's own. A "step" ends in tool calls: later turns of the thread do not see
    it. `exchange` finds the turn again in a client's transcript (retrieval.exchange).
    """

    answer: str
    result: Json
    role: str | None
    adapter: str | None
    usage: Usage
    latency_ms: int
    memories: Sequence[NewMemory] = field(default=())
    kind: Literal["turn", "step"] = "turn"
    exchange: bytes | None = None
    private: bool = False


class Ledger(Protocol):
    """The record of turns. Raises DatabaseDown when Postgres does not answer."""

    async def accept(self, request: Request, *, now: bool = True) -> Acceptance:
        """Commit the message and its run; not `now`: it waits to be claimed, though its thread may be free.

        Raises NotFound for another user's thread, Conflict for a key that was used with another fingerprint.
        """
        ...

    async def reopen(self, run_id: str, *, tenant: int) -> None:
        """Let a failed or cancelled run be claimed again; changes nothing for any other."""
        ...

    async def claim(self, run_id: str) -> Lease | None:
        """Take the run with a new attempt number; None while an earlier run of the thread is open."""
        ...

    async def claim_next(self, known: Sequence[str]) -> Lease | None:
        """Take the run that has waited longest of those that could begin, none of `known`."""
        ...

    async def offer(self, run_id: str) -> None:
        """Tell other processes that a run here waits for a seat."""
        ...

    async def leave(self, run_ids: Sequence[str]) -> None:
        """Leave runs that wait here to whoever claims them first."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> Mapping[str, str | None]:
        """Extend leases; those that are not lost, by run, with how it shall stop if somebody asked for that."""
        ...

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """Answer, memories and run in one statement. Raises LeaseLost; repeating it changes nothing."""
        ...

    async def fail(self, lease: Lease, error: Json, *, final: bool) -> None:
        """Record the reason. `final` False leaves the run to the next claim. Raises LeaseLost."""
        ...

    async def cancel(self, lease: Lease, reason: Json, *, said: str) -> None:
        """End the run unanswered. What was said so far stays in its thread, in no memory. Raises LeaseLost."""
        ...

    async def find(self, run_id: str, *, tenant: int, user: str | None = None) -> RunRecord:
        """A turn of the tenant, of that user if one is named. Raises NotFound."""
        ...

    async def with_key(self, key: str, *, tenant: int, user: str) -> RunRecord | None:
        """The run that an idempotency key stands for."""
        ...

    async def context(self, run_id: str, *, tenant: int, messages: int) -> Context:
        """The turn's text and what its thread knew before it. Raises NotFound."""
        ...

    async def abandoned(self, *, limit: int, known: Sequence[str] = ()) -> list[str]:
        """Ids of open runs whose lease has run out, oldest first, none of `known`."""
        ...

    async def open_runs(self) -> Mapping[int, int]:
        """How many runs of each tenant have not ended, whoever works on them."""
        ...
