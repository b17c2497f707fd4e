"""Recall: what earlier turns said that matters now."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest

import structlog

from agentflow.errors import EmbedderError, HomeDown
from agentflow.prompt import ChatMessage
from agentflow.protocols import Embedder, Ledger, MemoryHome, Owner, Scope, Vectors, searched_scopes
from agentflow.retrieval.origin import is_chore
from agentflow.retrieval.pieces import tokens
from agentflow.settings.schema import MemorySettings, Role
from agentflow.turn import Recalled, Recollection, Turn, remembers

log = structlog.get_logger(__name__)
MOST_REPEATED = 200  # hits that the prompt's own history may repeat
SHORT = 40  # characters; a text this short may be part of another by chance


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

    An embedder or a place of vectors that is down or slow costs the meaning, not the words. Raises DatabaseDown.
    """
    context = turn.get("context") or await ledger.context(
        turn["run_id"], tenant=turn["tenant"], messages=memory.history
    )
    text = turn.get("text") or context["text"]
    if memory.recall == 0 or turn["selection"]["question"] or is_chore(text) or not remembers(turn):
        return {"memory": "off", "memory_ids": [], "memories": []}
    role = roles[turn["role"]] if turn["role"] else Role()
    reads = list(dict.fromkeys(role.reads))
    owner = Owner(turn["tenant"], turn["user"])
    vector, beside = await asyncio.gather(
        meaning(text, embedder, memory, run_id=turn["run_id"]),
        home.beside(owner, role=turn["role"], thread=turn["thread_id"], collections=reads),
    )
    history = (turn.get("given") or {}).get("history") or context["history"]
    k = memory.recall + min(len(history), MOST_REPEATED)
    private_to = turn["role"] if role.memory == "private" else None
    scopes = searched_scopes(owner, reads, beside.scopes, private_to=private_to)
    searches = (searched(home, scope, text, vector, k) for scope in scopes)
    answers = await asyncio.gather(*searches)
    pinned = _pinned(beside.pinned, history, memory)
    kept = pinned + _kept([found for found, _ in answers], pinned, history, memory)
    return {
        "memory": "full"
        if vector is not None and all(by_meaning for _, by_meaning in answers)
        else "degraded",
        "memory_ids": [one["id"] for one in kept],
        "memories": kept,
    }


async def meaning(
    text: str, embedder: Embedder, memory: MemorySettings, *, run_id: str | None = None
) -> Vectors | None:
    """The text's vector, or None from an embedder that is down or slow."""
    try:
        async with asyncio.timeout(memory.embed_within):
            vectors = await embedder.embed([text])
    except (EmbedderError, TimeoutError) as error:
        reason = error.message if isinstance(error, EmbedderError) else f"over {memory.embed_within} s"
        log.warning("memory is searched by words only", reason=reason, run_id=run_id)
        return None
    vector: Vectors = vectors[0]
    return vector


async def searched(
    home: MemoryHome, scope: Scope, text: str, vector: Vectors | None, k: int
) -> tuple[list[Recollection], bool]:
    """What a scope has, and whether meaning could be asked for."""
    try:
        return await home.search(scope, text, vector, k), vector is not None
    except HomeDown as error:
        log.warning(
            "a collection is searched by words only", collection=scope.collection, reason=error.message
        )
        return await home.search(scope, text, None, k), False


def _pinned(
    found: Sequence[Recollection], history: Sequence[ChatMessage], memory: MemorySettings
) -> list[Recollection]:
    """Pinned memories have a budget of their own, and no question to be relevant to."""
    kept: list[Recollection] = []
    left = memory.pinned_tokens
    for one in found:
        cost = tokens(one["content"])
        if cost <= left and not _shown(one["content"], history):
            kept.append(one)
            left -= cost
    return kept


def _kept(
    found: Sequence[Sequence[Recollection]],
    pinned: Sequence[Recollection],
    history: Sequence[ChatMessage],
    memory: MemorySettings,
) -> list[Recollection]:
    """Relevant, one of each text, not in the history, within the budget: scopes take turns, best first."""
    kept: dict[str, Recollection] = {}
    there = {one["content"] for one in pinned}
    left = memory.tokens
    for one in _in_turns(found):
        cost = tokens(one["content"])
        unseen = one["content"] not in kept.keys() | there and not _shown(one["content"], history)
        if one["score"] >= memory.min_score and unseen and cost <= left and len(kept) < memory.recall:
            kept[one["content"]] = one
            left -= cost
    return list(kept.values())


def _in_turns(found: Sequence[Sequence[Recollection]]) -> Iterable[Recollection]:
    """Scores of different scopes are never compared."""
    return (one for one in chain.from_iterable(zip_longest(*found)) if one is not None)


def _shown(content: str, history: Sequence[ChatMessage]) -> bool:
    """Whether the prompt repeats a text, or the message it is a piece of."""
    return any(
        content == one["content"] or (len(content) > SHORT and content in one["content"]) for one in history
    )
