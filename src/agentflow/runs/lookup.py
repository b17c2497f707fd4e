"""A search in memory without a turn: everything that a turn would see, and what it would leave out, with why."""

import asyncio
from collections.abc import Sequence

from agentflow.errors import BadInput
from agentflow.nodes.recall import meaning, searched
from agentflow.protocols import Embedder, MemoryHome, Scope
from agentflow.settings.schema import MemorySettings
from agentflow.turn import Json

MOST = 100


async def lookup(
    text: str,
    scopes: Sequence[Scope],
    *,
    k: int,
    home: MemoryHome,
    embedder: Embedder,
    memory: MemorySettings,
) -> Json:
    """The `k` best of each scope, best first; `recalled` tells whether a turn would show it.

    Raises BadInput for a question without words, DatabaseDown.
    """
    if not text.strip():
        raise BadInput("The question is empty; say what to look for.", field="q", value=text)
    vector = await meaning(text, embedder, memory)
    answers = await asyncio.gather(*(searched(home, scope, text, vector, min(k, MOST)) for scope in scopes))
    hits = [(scope, one) for scope, (found, _) in zip(scopes, answers, strict=True) for one in found]
    hits.sort(key=lambda hit: -hit[1]["score"])
    return {
        "memory": "full" if vector is not None and all(whole for _, whole in answers) else "degraded",
        "memories": [
            {**one, **_only(scope), "recalled": one["score"] >= memory.min_score} for scope, one in hits[:k]
        ],
    }


def _only(scope: Scope) -> Json:
    """Who alone is shown what a set holds."""
    kept = {"only_role": scope.role, "only_thread": scope.thread}
    return {key: value for key, value in kept.items() if value is not None}
