"""Recall: what earlier turns said that matters now."""

import asyncio
from collections.abc import Mapping

import structlog

from agentflow.errors import EmbedderError
from agentflow.protocols import Embedder, Ledger, MemoryHome, Scope
from agentflow.settings.schema import MemorySettings, Role
from agentflow.turn import Recalled, Recollection, Turn

log = structlog.get_logger(__name__)


async def recall(
    turn: Turn,
    *,
    ledger: Ledger,
    embedder: Embedder,
    home: MemoryHome,
    roles: Mapping[str, Role],
    memory: MemorySettings,
) -> Recalled:
    """The best memories of the role's collections, without those the prompt's history repeats anyway.

    An embedder that is down costs the memories, not the answer. Raises DatabaseDown.
    """
    if memory.recall == 0 or turn["selection"]["question"]:
        return {"memory_ids": [], "memories": []}
    context = turn.get("context") or await ledger.context(
        turn["run_id"], tenant=turn["tenant"], messages=memory.history
    )
    try:
        vector = (await embedder.embed([turn.get("text") or context["text"]]))[0]
    except EmbedderError as error:
        log.warning("memory is skipped", reason=error.message, run_id=turn["run_id"])
        return {"memory_ids": [], "memories": []}
    shown = {one["content"] for one in context["history"]}
    k = memory.recall + len(shown)
    found = await asyncio.gather(*(home.search(scope, vector, k) for scope in _scopes(turn, roles)))
    kept = _kept([one for items in found for one in items], shown, memory)
    return {"memory_ids": [one["id"] for one in kept], "memories": kept}


def _scopes(turn: Turn, roles: Mapping[str, Role]) -> list[Scope]:
    reads = roles[turn["role"]].reads if turn["role"] else Role().reads
    return [Scope(turn["tenant"], collection, turn["user"]) for collection in reads]


def _kept(found: list[Recollection], shown: set[str], memory: MemorySettings) -> list[Recollection]:
    """The best first, one of each text, above the threshold."""
    kept: dict[str, Recollection] = {}
    for one in sorted(found, key=lambda item: -item["score"]):
        if one["score"] >= memory.min_score and one["content"] not in shown:
            kept.setdefault(one["content"], one)
    return list(kept.values())[: memory.recall]
