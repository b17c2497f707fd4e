"""Remember: answer, memories and the end of the turn, in one statement."""

from collections.abc import Callable, Mapping

from langgraph.types import StreamWriter

from agentflow.errors import EmbedderError
from agentflow.protocols import Embedder, Lease, Ledger, NewMemory, Outcome, Vectors
from agentflow.settings.schema import Role
from agentflow.turn import Json, Remembered, Turn


async def remember(
    turn: Turn,
    writer: StreamWriter,
    *,
    ledger: Ledger,
    embedder: Embedder,
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
        memories=await _memories(turn, text, embedder, roles),
    )
    fault("before_commit")
    await ledger.finish(lease, outcome)
    fault("after_commit")
    writer({"event": "done", **result})
    return {"status": "done"}


def answered(turn: Turn) -> Json:
    """The turn as a caller sees it; the same JSON is stored and returned again for the same idempotency key."""
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
        "memories": [
            {key: one[key] for key in ("id", "collection", "speaker", "said_at", "score", "content")}
            for one in turn.get("memories", [])
        ],
        "timings": turn["timings"],
    }


async def _memories(turn: Turn, text: str, embedder: Embedder, roles: Mapping[str, Role]) -> list[NewMemory]:
    """Question and answer for every collection the role writes; a question asked back is not a memory."""
    if turn["selection"]["question"]:
        return []
    vector = await _known_vector(text, embedder)
    writes = roles[turn["role"]].writes if turn["role"] else Role().writes
    return [
        memory
        for collection in writes
        for memory in (
            NewMemory(collection, 0, "user", text, vector),
            NewMemory(collection, 1, "assistant", turn["answer"], None),
        )
        if memory.content.strip()
    ]


async def _known_vector(text: str, embedder: Embedder) -> Vectors | None:
    """The vector recall has computed a moment ago; the outbox fills it in if the embedder is down."""
    try:
        vectors = await embedder.embed([text])
    except EmbedderError:
        return None
    vector: Vectors = vectors[0]
    return vector
