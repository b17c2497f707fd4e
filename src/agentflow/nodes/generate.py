"""Generate: the base model speaks with the role's adapter."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext

from langgraph.types import StreamWriter

from agentflow.brief import brief
from agentflow.errors import GenerationFailed
from agentflow.protocols import Engine, Keeper, Ledger, MemoryHome, Said, Scope
from agentflow.settings.schema import Role
from agentflow.turn import Generated, Recollection, Turn


async def generate(
    turn: Turn,
    writer: StreamWriter,
    *,
    engine: Engine,
    keeper: Keeper,
    ledger: Ledger,
    home: MemoryHome,
    roles: Mapping[str, Role],
) -> Generated:
    """Hold the adapter, stream the answer as `token` events.

    Raises AdapterError, EngineDown, EngineTimeout or GenerationFailed.
    """
    question = turn["selection"]["question"]
    if question:
        writer({"event": "token", "text": question})
        return {"answer": question, "finish": "stop", "usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    context = turn.get("context") or await ledger.context(turn["run_id"], tenant=turn["tenant"], messages=10)
    memories = await _memories(turn, home, roles)
    role = roles[turn["role"]] if turn["role"] else Role()
    prompt = brief(
        turn.get("text") or context["text"],
        role=role,
        able=engine.capabilities,
        given=turn.get("given"),
        history=context["history"],
        memories=memories,
    )
    said = Said()
    async with (
        _held(keeper, turn["role"]) as adapter,
        aclosing(engine.generate(prompt, adapter=adapter)) as pieces,
    ):
        async for piece in pieces:
            said.hear(piece)
            if piece.text:
                writer({"event": "token", "text": piece.text})
            if piece.tool_calls:
                writer({"event": "tool_calls", "deltas": list(piece.tool_calls)})
    if said.finish is None or said.usage is None:
        raise GenerationFailed("The engine broke off before the end of its answer; ask again.", retry_after=1)
    return {
        "answer": "".join(said.texts),
        "finish": said.finish,
        "usage": said.usage,
        "tool_calls": said.calls(),
    }


async def _memories(turn: Turn, home: MemoryHome, roles: Mapping[str, Role]) -> list[Recollection]:
    """What recall found; read again by id when the run was resumed and texts are gone."""
    known = turn.get("memories")
    if known is not None or not turn["memory_ids"]:
        return known or []
    reads = roles[turn["role"]].reads if turn["role"] else Role().reads
    scopes = [Scope(turn["tenant"], collection, turn["user"]) for collection in reads]
    return [one for scope in scopes for one in await home.fetch(scope, turn["memory_ids"])]


def _held(keeper: Keeper, role: str | None) -> AbstractAsyncContextManager[str | None]:
    return nullcontext(None) if role is None else keeper.hold(role)
