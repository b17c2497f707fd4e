"""What the steps need of the world outside. Every protocol has a contract suite that fakes and real things pass."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from agentflow.prompt import ChatMessage
from agentflow.turn import Context, Given, Json, Recollection, Usage

Vectors = NDArray[np.float32]


# --- engines -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; the residency keeper asks these, never engine names.

    `runtime_load` False: adapters are those it was started with. `host_tier`: `load` can rest an adapter in
    RAM. `merge`: one answer can mix several adapters. `opens_folders`: it reads the folder that `load` names, and
    again later, so a copy in memory makes it faster.
    """

    runtime_load: bool
    unload_frees: bool
    pin: bool
    exact_list: bool
    mixed_batch: bool
    merge: bool = False
    host_tier: bool = False
    opens_folders: bool = True
    tools: bool = False
    structured: bool = False


@dataclass(frozen=True)
class Prompt:
    """One generation. `max_tokens` bounds the answer; `temperature` 0 is greedy.

    `tools`, `tool_choice` and `response_format` are OpenAI's, for engines whose capabilities name them.
    """

    messages: Sequence[ChatMessage]
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: Sequence[Json] = ()
    tool_choice: str | Json | None = None
    response_format: Json | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of an answer. The last piece has `finish` ("stop", "length" or "tool_calls") and `usage`.

    `tool_calls` are deltas in OpenAI's form: `index` says which call grows.
    """

    text: str
    finish: str | None = None
    usage: Usage | None = None
    tool_calls: Sequence[Json] = ()


@dataclass
class Said:
    """An answer as its pieces add up."""

    texts: list[str] = field(default_factory=list)
    deltas: dict[int, Json] = field(default_factory=dict)
    finish: str | None = None
    usage: Usage | None = None

    def hear(self, piece: Piece) -> None:
        """Add a piece."""
        self.texts.append(piece.text)
        self.finish, self.usage = piece.finish or self.finish, piece.usage or self.usage
        for delta in piece.tool_calls:
            function = delta.get("function") or {}
            fresh = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call = self.deltas.setdefault(delta.get("index", 0), fresh)
            call["id"] = delta.get("id") or call["id"]
            call["function"]["name"] += function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""

    def calls(self) -> list[Json]:
        """The tool calls, whole, in OpenAI's form."""
        return [self.deltas[index] for index in sorted(self.deltas)]


EngineTier = Literal["vram", "ram"]


@dataclass(frozen=True)
class Loaded:
    """An adapter the engine holds. `exact` is False where the engine cannot tell and we infer it."""

    name: str
    tier: EngineTier
    exact: bool
    pinned: bool = False


@dataclass(frozen=True)
class Health:
    """`ok`, and a sentence for people."""

    ok: bool
    detail: str


class Engine(Protocol):
    """A model with LoRA adapters.

    `generate` raises EngineDown, EngineTimeout or GenerationFailed; the last also for an adapter that
    is not loaded. Closing the iterator cancels the generation.

    `load` returns once the adapter has answered a request of one token, raises AdapterError and leaves the
    engine alive; afterwards the adapter is in `tier`, which moves one that is in the other ("ram" needs
    `host_tier`). Loading a loaded name with the same path changes nothing. `pin` keeps a loaded adapter in
    its slot until `unpin` or `unload`: AdapterError where the engine cannot, NoRoom when the others would
    have no slot left. `restarts` counts how often the engine was seen to have lost everything: what was
    loaded and pinned before must be loaded and pinned again.
    """

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def restarts(self) -> int: ...
    def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece]: ...
    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None: ...
    async def unload(self, name: str) -> None: ...
    async def pin(self, name: str) -> None: ...
    async def unpin(self, name: str) -> None: ...
    async def loaded(self) -> Sequence[Loaded]: ...
    async def health(self) -> Health: ...
    async def close(self) -> None: ...


# --- shelves -------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteFile:
    """A file that a source offers. `size` None: the source does not say. `stamp` changes with the content."""

    name: str
    size: int | None
    stamp: str


class Source(Protocol):
    """Where adapters come from: hf://, s3:// or https:// folders. Raises FetchFailed."""

    async def look(self, address: str, names: Sequence[str]) -> Sequence[RemoteFile]:
        """Those files of the folder at the address."""
        ...

    def read(self, address: str, file: RemoteFile, *, start: int) -> AsyncGenerator[bytes]:
        """The file's bytes from `start` on; a source that cannot begin there begins at 0 and says so by an
        empty first chunk.
        """
        ...


# --- embedders -----------------------------------------------------------------------------


class Embedder(Protocol):
    """Texts to unit vectors. `id` changes whenever the vectors would (it includes the weights' hash)."""

    @property
    def id(self) -> str: ...
    @property
    def dim(self) -> int: ...
    async def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], rows of length 1. Raises EmbedderError."""
        ...

    async def close(self) -> None: ...


# --- memory --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """Whose rows a statement may see: those of a tenant's user; without `user`, all of the tenant's."""

    tenant: int
    user: str | None = None


@dataclass(frozen=True)
class Scope:
    """One searchable set: a collection of a tenant, of one user (None: everybody's).

    Documents may be attached to a role or to a single thread: then they are a set of their own.
    """

    tenant: int
    collection: str
    user: str | None
    role: str | None = None
    thread: str | None = None

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.user)


def own_scopes(owner: Owner, collections: Iterable[str], *, private_to: str | None = None) -> list[Scope]:
    """What a user has said, by collection: to all roles, or to the one that keeps it private."""
    return [Scope(owner.tenant, name, owner.user, private_to) for name in dict.fromkeys(collections)]


def searched_scopes(
    owner: Owner, reads: Iterable[str], beside: Iterable[Scope], *, private_to: str | None = None
) -> list[Scope]:
    """What a turn may look at: the user's own sets and those beside; a private role sees nothing said to others."""
    own = own_scopes(owner, reads, private_to=private_to)
    shared = set() if private_to is None else set(own_scopes(owner, [one.collection for one in own]))
    return [one for one in dict.fromkeys([*own, *beside]) if one not in shared]


@dataclass(frozen=True)
class Beside:
    """What every question of a turn may use: sets of documents that are at hand, and pinned memories."""

    scopes: Sequence[Scope] = ()
    pinned: Sequence[Recollection] = ()


DOCUMENTS = "documents"
"""The collection that every role reads: what was added for everybody, a user, a role or a thread."""


class MemoryHome(Protocol):
    """Where memories are found. Writing happens in the ledger's one transaction or its outbox."""

    async def search(self, scope: Scope, text: str, vector: Vectors | None, k: int) -> list[Recollection]:
        """The k best items by words and, given the text's vector, by meaning; best first.

        `score` is the relevance of retrieval.fusion, `why` explains the place. Items are found by their
        words as soon as they are written. Raises DatabaseDown, SchemaMismatch, and HomeDown when the
        collection's vectors are elsewhere and cannot be reached: without a vector the words still answer.
        """
        ...

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """Items by id, in that order, without `why`."""
        ...

    async def beside(
        self, owner: Owner, *, role: str | None, thread: str | None, collections: Sequence[str]
    ) -> Beside:
        """Documents in `collections` and DOCUMENTS for the user, role and thread; pinned memories of `collections`."""
        ...

    async def forget(self, scope: Scope, ids: Sequence[int] | None = None) -> int:
        """Delete items of the scope (None: all of them) with their words and statistics; returns how many.

        It is one transaction. Vectors in other places follow: every deletion is in the log that they read.
        """
        ...


class VectorHome(Protocol):
    """Vectors by item id, in a place of their own; searched within one scope (the record's scope id) at a time.

    Postgres keeps the record: texts, words, and the vectors themselves, so that any place can be filled again.
    Everything may be repeated without harm, and raises HomeDown when the place cannot be reached.
    """

    @property
    def place(self) -> str:
        """Names this content to people: the same after a restart, another one after the content was lost."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether the content outlives this process."""
        ...

    async def open(self) -> None:
        """Reach the place, or make it; `place` is known from here on. Opening twice changes nothing."""
        ...

    async def put(self, scope: int, ids: Sequence[int], vectors: Vectors) -> None:
        """Add or replace vectors: float32 [len(ids), dim], rows of length 1."""
        ...

    async def delete(self, scope: int, ids: Sequence[int]) -> None:
        """Unknown ids are no error."""
        ...

    async def nearest(self, scope: int, vector: Vectors, k: int) -> list[int]:
        """Ids of the k nearest by cosine, best first; fewer if there are no more."""
        ...

    async def missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that the scope does not hold, in their order."""
        ...

    async def count(self, scope: int) -> int | None:
        """How many vectors the scope holds; None where the place cannot tell."""
        ...

    async def flush(self) -> None:
        """Returns once all that was put and deleted outlives this process, where anything does."""
        ...

    async def drop(self, scope: int) -> None:
        """Delete all that the scope holds."""
        ...

    async def close(self) -> None: ...


# --- the ledger ----------------------------------------------------------------------------


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

    async def renew(self, lease: Lease) -> str | None:
        """Extend the lease; how the run shall stop, if somebody asked for it. Raises LeaseLost."""
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


# --- limits --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allowance:
    """How much a caller may: `requests` at once, `hits` in `seconds`; None: any number."""

    requests: int | None
    hits: int | None
    seconds: int = 60


@dataclass(frozen=True)
class Refusal:
    """Which limit is reached, and after how many seconds it is worth asking again, at least one."""

    limit: Literal["requests", "rate"]
    wait: float


class Spending(Protocol):
    """What callers have used up, counted by all processes together. What is refused uses up nothing."""

    async def begin(self, caller: str, allowed: Allowance) -> Refusal | None:
        """A request begins, unless it is refused; `end` follows if it was not."""
        ...

    def end(self, caller: str) -> None:
        """A request that had begun is over."""
        ...


# --- residency and intent --------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """How soon a role's adapter answers, and what the role says about it.

    `tier` is where it is now, `eta` the expected seconds until it answers, `budget` what is simply waited for.
    `do` "wait": hold it. "base": answer without it. "fallback": answer as `role`. "refuse": ask again in `eta`.
    """

    tier: str
    eta: float = 0.0
    budget: float = 0.0
    do: Literal["wait", "base", "fallback", "refuse"] = "wait"
    role: str | None = None

    @property
    def is_cold(self) -> bool:
        return self.eta > self.budget


class Keeper(Protocol):
    """Sole owner of where adapters are."""

    def warm(self, role: str) -> None:
        """Start bringing the role's adapter in, for a turn that will hold it; returns at once."""
        ...

    def foresee(self, role: str) -> None:
        """The role may be next: bring its adapter nearer if nothing else needs the way."""
        ...

    def resume(self, role: str) -> None:
        """A conversation with this role goes on: bring its adapter nearer."""
        ...

    def tier(self, role: str) -> str:
        """Where the role's adapter is now: "vram", "ram", "disk", "remote", or "base" without an adapter."""
        ...

    def identity(self, role: str) -> str | None:
        """`role@<first 12 of sha256>`; None for a role without an adapter, or one that was never fetched."""
        ...

    def eta(self, role: str) -> float:
        """Expected seconds until the role's adapter answers; 0 for one that does, or a role without."""
        ...

    def outlook(self, role: str, *, waited: float = 0.0) -> Outlook:
        """What a turn is to do about a cold adapter; again after `waited` seconds in vain. Counted per turn."""
        ...

    def hold(self, role: str, *, name: str | None = None) -> AbstractAsyncContextManager[str | None]:
        """Wait until the adapter answers and keep it so; yields its engine name.

        `name` is the identity that the turn has chosen: it is held even if the role has another by now. Raises
        ColdAdapter when the role's patience ends, NoRoom, or what else is wrong with the adapter.
        """
        ...


@dataclass(frozen=True)
class Message:
    """What the classifier looks at: the text and the turns before it, newest last."""

    text: str
    previous: Sequence[str] = ()
    role: str | None = None


class Classifier(Protocol):
    """Text to intent. Raises EmbedderError."""

    async def classify(self, message: Message) -> Json:
        """{"ranking": [{"role", "score"}, ...] best first, "in_scope": bool, ...what explains it}."""
        ...
