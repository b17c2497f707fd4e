"""Generate: the base model speaks with the role's adapter."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from langgraph.types import StreamWriter

from agentflow.brief import brief
from agentflow.errors import ColdAdapter, GenerationFailed
from agentflow.protocols import Engine, Keeper, Ledger, MemoryHome, Owner, Said, searched_scopes
from agentflow.settings.schema import Role
from agentflow.telemetry.traces import Spans
from agentflow.turn import Json, Recollection, Spoken, Turn


async def generate(  # noqa: PLR0913 - what it needs of the world, by name
    turn: Turn,
    writer: StreamWriter,
    *,
    engine: Engine,
    keeper: Keeper,
    ledger: Ledger,
    home: MemoryHome,
    roles: Mapping[str, Role],
    spans: Spans,
) -> Spoken:
    """Hold the adapter, stream the answer as `token` events.

    Raises AdapterError, EngineDown, EngineTimeout or GenerationFailed.
    """
    question = turn["selection"]["question"]
    if question:
        writer({"event": "token", "text": question})
        return {
            "answer": question,
            "finish": "stop",
            "usage": {"prompt_tokens": 0, "completion_tokens": 0},
            "adapter": turn["adapter"],
            "selection": turn["selection"],
        }
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
        _held(keeper, turn, spans) as voice,
        aclosing(engine.generate(prompt, adapter=voice.adapter)) as pieces,
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
        "adapter": voice.adapter,
        "selection": voice.selection,
    }


async def _memories(turn: Turn, home: MemoryHome, roles: Mapping[str, Role]) -> list[Recollection]:
    """What recall found; read again by id when the run was resumed and texts are gone."""
    known = turn.get("memories")
    if known is not None or not turn["memory_ids"]:
        return known or []
    role = roles[turn["role"]] if turn["role"] else Role()
    reads = role.reads
    owner = Owner(turn["tenant"], turn["user"])
    beside = await home.beside(owner, role=turn["role"], thread=turn["thread_id"], collections=reads)
    private_to = turn["role"] if role.memory == "private" else None
    scopes = searched_scopes(owner, reads, beside.scopes, private_to=private_to)
    return [one for scope in scopes for one in await home.fetch(scope, turn["memory_ids"])]


@dataclass(frozen=True)
class _Voice:
    """By which adapter the answer is given, and the selection that says so."""

    adapter: str | None
    selection: Json


@asynccontextmanager
async def _held(keeper: Keeper, turn: Turn, spans: Spans) -> AsyncIterator[_Voice]:
    """The adapter that select chose, or what the role wants instead if it is not ready in time.

    A fallback here lends its adapter only: what was recalled and how the role speaks stays as it is.
    """
    role, selection = turn["role"], turn["selection"]
    cold = selection.get("cold") or {}
    if role is None or (cold.get("do") == "base" and cold.get("role") == role):
        yield _Voice(None, selection)
        return
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        try:
            with spans.load(role):
                adapter = await stack.enter_async_context(keeper.hold(role, name=turn["adapter"]))
        except ColdAdapter:
            outlook = keeper.outlook(role, waited=time.monotonic() - began)
            told = {"role": role, "do": outlook.do, "eta": outlook.eta, "budget": outlook.budget}
            selection = {**selection, "cold": {**told, "overrun": True}}
            if outlook.do not in ("base", "fallback"):
                raise
            adapter = None
            if outlook.role is not None:
                adapter = await stack.enter_async_context(keeper.hold(outlook.role))
        yield _Voice(adapter, selection)
