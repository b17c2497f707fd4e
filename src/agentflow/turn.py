"""What travels through the graph: one Turn, of plain JSON values, grown by each step.

Keys marked untracked never reach a checkpoint: texts live in our own tables and
are read again by id when a run is resumed.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.channels import UntrackedValue

from agentflow.prompt import ChatMessage
from agentflow.prompt import Json as Json  # noqa: PLC0414 - there for what must not import LangGraph to say it


class Why(TypedDict):
    """Why a memory was recalled: what the words (`bm25`, for the `matched` ones), words near them in meaning
    (`related`) and the whole meaning (`cosine`, None without a vector) gave, and what being a question, neighbours
    and session added to their `fused` score.
    """

    bm25: float
    related: float
    cosine: float | None
    fused: float
    question: float
    neighbours: float
    session: float
    matched: list[str]


class Recollection(TypedDict):
    """One recalled memory. `score` is its relevance, higher is better; `said_at` is ISO 8601, UTC.

    A chunk of a document is `cited`: document, heading, page, line, part. `session` numbers
    the stretch of conversation, or the document, that it is from. `pinned` ones are there whatever is asked.
    """

    id: int
    collection: str
    speaker: str
    said_at: str
    content: str
    score: float
    thread_id: str | None
    session: NotRequired[int]
    why: NotRequired[Why]
    cited: NotRequired[Json]
    pinned: NotRequired[bool]


class Usage(TypedDict):
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


class Given(TypedDict, total=False):
    """What a stateless client sent beside its message; kept while the run is open, then forgotten.

    `history` is the client's own transcript before the message, `after` the tool calls and results behind it,
    `system` its system prompt. `tools`, `tool_choice` and `response_format` are OpenAI's. `sampling` holds fields of
    Prompt. `memory` False: nothing is recalled and nothing remembered.
    """

    system: str
    history: list[ChatMessage]
    after: list[ChatMessage]
    tools: list[Json]
    tool_choice: Any
    response_format: Json
    sampling: Json
    memory: bool


def merged(left: Json | None, right: Json | None) -> Json:
    """Reducer: the right dictionary's keys over the left's; a turn's first step begins anew."""
    return {**(left or {}), **(right or {})} if right and "accept" not in right else right or {}


class Asked(TypedDict):
    """What a caller sends: `text`, or `messages` whose last one of a user is answered.

    A door that has accepted the turn already passes its `lease`.
    """

    messages: NotRequired[Annotated[list[AnyMessage], UntrackedValue]]
    text: NotRequired[Annotated[str, UntrackedValue]]
    wanted_role: NotRequired[Annotated[str | None, UntrackedValue]]
    lease: NotRequired[Annotated[Json, UntrackedValue]]
    given: NotRequired[Annotated[Given | None, UntrackedValue]]


class Context(TypedDict):
    """The turn's text and what its thread knew before it.

    `history` holds the last messages of finished turns, oldest first; `role` answered last, `idle` seconds
    ago; `offered` are the roles of a question asked back then.
    """

    text: str
    history: list[ChatMessage]
    role: str | None
    pinned_role: str | None
    idle: float
    offered: list[str]


class Accepted(TypedDict):
    """The turn as the ledger knows it; `attempt` is the fencing token of every later write."""

    run_id: str
    thread_id: str
    attempt: int
    tenant: int
    user: str
    context: NotRequired[Annotated[Context, UntrackedValue]]


class Classified(TypedDict):
    """Intent: roles with scores, best first, and the record that explains them."""

    intent: Json


class Selected(TypedDict):
    """The decision: role, adapter identity `role@sha12` (None = base model), and what explains it.

    `text` is what the model reads: the message without a leading `/role`.
    """

    text: NotRequired[Annotated[str, UntrackedValue]]
    role: str | None
    adapter: str | None
    selection: Json


class Recalled(TypedDict):
    """What memory gave: ids are kept, texts are untracked.

    `memory` is "full", "degraded" (by words only: the embedder was down or slow) or "off".
    """

    memory: Literal["full", "degraded", "off"]
    memory_ids: list[int]
    memories: NotRequired[Annotated[list[Recollection], UntrackedValue]]


class Generated(TypedDict):
    """The model's answer; with `tool_calls` (OpenAI's form) it waits for the client to run them."""

    answer: Annotated[str, UntrackedValue]
    tool_calls: NotRequired[Annotated[list[Json], UntrackedValue]]
    finish: str
    usage: Usage


class Spoken(Generated):
    """What generate returns: the answer, and by which adapter it was really given (None = base model).

    It replaces what select foresaw: an adapter that was too cold, or one whose digest was not known before.
    """

    adapter: str | None
    selection: Json


class Remembered(TypedDict):
    """The turn is written: `status` is "done"."""

    status: str


class Timed(TypedDict):
    """Milliseconds per step."""

    timings: Annotated[Json, merged]


class Turn(Asked, Accepted, Classified, Selected, Recalled, Generated, Remembered, Timed):
    """The graph's whole state."""


def remembers(turn: Turn) -> bool:
    """Whether the turn may recall and be remembered: a stateless client may keep a memory of its own."""
    return (turn.get("given") or {}).get("memory", True)
