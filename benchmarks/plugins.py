"""The product's router behind the methods that evaluation tools call: fit, predict, one.

`Router(encoder)` is given its embeddings, so that only routing is measured; `Router(None)` and
`WithEmbedder()` embed for themselves, exactly as the graph does.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentflow.embedders.onnx import MINILM, open_encoder
from agentflow.embedders.weights import find_weights
from agentflow.routing.classifier import NOTHING, Classifier, Example, fit
from agentflow.settings import environment
from agentflow.settings.routing import RouterSettings

Encoder = Callable[[Sequence[str]], NDArray[np.float32]]


class Router:
    """Roles are the labels. A text with two labels keeps the first in order of the alphabet."""

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder or own_embedder()
        self._settings = RouterSettings()
        self._fitted: Classifier

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        role_of: dict[str, str] = {}
        for role, text in sorted(zip(map(str, labels), texts, strict=True)):
            role_of.setdefault(text, role)
        known = list(role_of)
        vectors = dict(zip(known, self._encoder(known), strict=True))
        self._fitted = fit(
            [Example(role, "", text) for text, role in role_of.items()], vectors, self._settings
        )

    def predict(self, texts: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
        """The best role of each text, and how much it is in scope (higher is more)."""
        looked_at = [text[: self._settings.text_limit] for text in texts]
        scored = self._fitted.score(self._encoder(looked_at), looked_at)
        best = scored.chances[:, int(NOTHING in self._fitted.roles) :].argmax(axis=1)
        names = [role for role in self._fitted.roles if role != NOTHING]
        return [names[place] for place in best], scored.scope

    def one(self, text: str) -> str:
        """One decision, as a turn makes it."""
        return self.predict([text])[0][0]


class WithEmbedder(Router):
    """The whole path of a message, embedding included."""

    def __init__(self) -> None:
        super().__init__(None)


def own_embedder() -> Encoder:
    """The embedder that agentflow.yaml gets by default: MiniLM in ONNX Runtime, int8."""
    cache = environment.read().cache
    return open_encoder(find_weights(MINILM, print), "int8", cache).encode
