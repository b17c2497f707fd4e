"""What travels through the graph: one Turn, of plain JSON values, grown by each step.

Keys marked untracked never reach a checkpoint: texts live in our own tables and
are read again by id when a run is resumed.
"""

from typing import Annotated, Any, NotRequired, TypedDict

from langgraph.channels import UntrackedValue

Json = dict[str, Any]


class Recollection(TypedDict):
    """One recalled memory. `score` is the home's relevance, higher is better; `said_at` is ISO 8601, UTC."""

    id: int
    collection: str
    speaker: str
    said_at: str
    content: str
    score: float
    thread_id: str | None


class Usage(TypedDict):
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


def merged(left: Json | None, right: Json | None) -> Json:
    """Reducer: the right dictionary's keys over the left's."""
    return {**(left or {}), **(right or {})}


class Asked(TypedDict):
    """What a caller sends; the identity of the turn is added when the ledger accepts it."""

    text: Annotated[str, UntrackedValue]
    wanted_role: NotRequired[str | None]


class Accepted(TypedDict):
    """The turn as the ledger knows it; `attempt` is the fencing token of every later write."""

    run_id: str
    thread_id: str
    attempt: int
    tenant: int
    user: str


class Classified(TypedDict):
    """Intent: roles with scores, best first, and the record that explains them."""

    intent: Json


class Selected(TypedDict):
    """The decision: role, adapter identity `role@sha12` (None = base model) and where it rested then."""

    role: str | None
    adapter: str | None
    selection: Json


class Recalled(TypedDict):
    """What memory gave: ids are kept, texts are untracked."""

    memory_ids: list[int]
    memories: Annotated[list[Recollection], UntrackedValue]


class Generated(TypedDict):
    """The model's answer."""

    answer: Annotated[str, UntrackedValue]
    finish: str
    usage: Usage


class Remembered(TypedDict):
    """The turn is written: `status` is "done"."""

    status: str


class Timed(TypedDict):
    """Milliseconds per step."""

    timings: Annotated[Json, merged]


class Turn(Asked, Accepted, Classified, Selected, Recalled, Generated, Remembered, Timed):
    """The graph's whole state."""
