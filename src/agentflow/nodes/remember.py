"""Remember: answer, memories and the end of the turn, in one statement."""

from collections.abc import Callable, Mapping
from typing import Literal

from langgraph.types import StreamWriter

from agentflow.protocols import Lease, Ledger, NewMemory, Outcome
from agentflow.retrieval.exchange import exchange
from agentflow.retrieval.origin import is_chore, spoken
from agentflow.retrieval.pieces import pieces
from agentflow.settings.schema import Role
from agentflow.turn import Json, Remembered, Turn, remembers

SHOWN: tuple[
    Literal["id", "collection", "speaker", "said_at", "score", "content", "why", "cited", "pinned"], ...
] = ("id", "collection", "speaker", "said_at", "score", "content", "why", "cited", "pinned")


async def remember(
    turn: Turn,
    writer: StreamWriter,
    *,
    ledger: Ledger,
    roles: Mapping[str, Role],
    fault: Callable[[str], None],
) -> Remembered:
    """Write the turn's end. Raises LeaseLost when a newer attempt owns it: then nothing was written."""
    text = turn.get("text") or (turn["context"]["text"] if "context" in turn else "")
    lease = Lease(
        run_id=turn["run_id"],
        thread_id=turn["thread_id"],
        attempt=turn["attempt"],
        tenant=turn["tenant"],
        user=turn["user"],
        text=text,
        wanted_role=turn.get("wanted_role"),
    )
    result = answered(turn)
    outcome = Outcome(
        answer=turn["answer"],
        result=result,
        role=turn["role"],
        adapter=turn["adapter"],
        usage=turn["usage"],
        latency_ms=round(sum(turn["timings"].values())),
        memories=_memories(turn, text, roles),
        kind="step" if turn.get("tool_calls") else "turn",
        private=turn["role"] is not None and roles[turn["role"]].memory == "private",
        exchange=exchange(turn["context"]["text"] if "context" in turn else text, turn["answer"]),
    )
    fault("before_commit")
    await ledger.finish(lease, outcome)
    fault("after_commit")
    writer({"event": "done", **result})
    return {"status": "done"}


def answered(turn: Turn) -> Json:
    """The turn as a caller sees it; the same JSON is stored and returned again for the same idempotency key."""
    calls = turn.get("tool_calls")
    return {
        "run_id": turn["run_id"],
        "thread_id": turn["thread_id"],
        "output": turn["answer"],
        "role": turn["role"],
        "adapter": turn["adapter"],
        "tier": turn["selection"]["tier"],
        "reason": turn["selection"]["reason"],
        "finish": turn["finish"],
        "usage": turn["usage"],
        "intent": turn["intent"],
        "selection": turn["selection"],
        "memory": turn["memory"],
        "memories": [{key: one[key] for key in SHOWN if key in one} for one in turn.get("memories", [])],
        "timings": turn["timings"],
        **({"tool_calls": calls, "after": (turn.get("given") or {}).get("after", [])} if calls else {}),
    }


def _memories(turn: Turn, text: str, roles: Mapping[str, Role]) -> list[NewMemory]:
    """The raw question and answer, in pieces, for every collection the role writes.

    A question asked back is not a memory, nor is what a front end asks on its own. Words are indexed with the
    turn's end; vectors are the outbox's, so that no embedder delays an answer's end.
    """
    if turn["selection"]["question"] or is_chore(text) or turn.get("tool_calls") or not remembers(turn):
        return []
    said = [("user", number, piece) for number, piece in enumerate(pieces(text))]
    said += [("assistant", number, piece) for number, piece in enumerate(pieces(spoken(turn["answer"])))]
    writes = roles[turn["role"]].writes if turn["role"] else Role().writes
    return [
        NewMemory(collection, ordinal, speaker, content, piece=number)
        for collection in dict.fromkeys(writes)
        for ordinal, (speaker, number, content) in enumerate(said)
    ]
