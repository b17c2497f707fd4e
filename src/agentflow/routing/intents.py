"""The owner of the fitted classifier: opens it, asks it, replaces it while requests go on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentflow.protocols import Embedder, Message, Vectors
from agentflow.routing.roles import RoleExamples
from agentflow.routing.words import length
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Json


class Intents:
    """Roles told apart by their descriptions and examples."""

    def __init__(
        self,
        embedder: Embedder,
        roles: Sequence[RoleExamples],
        settings: RouterSettings,
        cache_dir: Path | None = None,
    ) -> None:
        self._embedder = embedder
        self._roles = tuple(roles)
        self._settings = settings
        self._cache_dir = cache_dir
        self._examples: list[tuple[str, str]] = []
        self._vectors: Vectors = np.zeros((0, embedder.dim), np.float32)

    async def open(self) -> None:
        """Fit, or read what was fitted before. Raises ConfigError and EmbedderError."""
        self._examples = sorted((role.name, text) for role in self._roles for _, text in role.texts())
        if self._examples:
            self._vectors = await self._embedder.embed([text for _, text in self._examples])

    async def classify(self, message: Message) -> Json:
        if not self._examples:
            return {"ranking": [], "in_scope": False}
        query = (await self._embedder.embed([self._looked_at(message)]))[0]
        similarity = self._vectors @ query
        best: dict[str, float] = {}
        for (role, _), value in zip(self._examples, similarity.tolist(), strict=True):
            best[role] = max(best.get(role, -1.0), value)
        order = sorted(best, key=lambda role: (-best[role], role))
        return {
            "ranking": [{"role": role, "score": round(max(best[role], 0.0), 4)} for role in order],
            "in_scope": best[order[0]] > 0.25,
        }

    def _looked_at(self, message: Message) -> str:
        text = message.text[: self._settings.text_limit]
        return f"{message.previous[-1]}\n{text}" if message.previous and length(text) < 4 else text
