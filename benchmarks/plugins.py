"""The product's parts behind the methods that evaluation tools call: the router, the RAM tier's policy.

`Router(encoder)` is given its embeddings, so that only routing is measured; `Router(None)` and
`WithEmbedder()` embed for themselves, exactly as the graph does.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentflow.embedders.onnx import MINILM, open_encoder
from agentflow.embedders.weights import find_weights
from agentflow.residency.worth import MEGABYTE, AgedWorth
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


class RamPolicy:
    """The product's RAM policy as simulators call it: a tier capped in entries.

    `cost[a]` are the seconds to bring adapter `a` back, `size[a]` its size in units of 32 MB. `victim`
    raises ValueError when nothing may leave.
    """

    in_bytes = False

    def __init__(
        self, cap: int, cost: Sequence[float], size: Sequence[float] | None = None, nextuse: object = None
    ) -> None:
        del cap, nextuse  # the policy counts what is resident, and does not know the future
        self._worth = AgedWorth(in_bytes=self.in_bytes)
        self._cost, self._size = cost, size

    def access(self, a: int, t: float) -> None:
        self._worth.access(str(a), seconds=self._cost[a], octets=self._octets(a), now=t)

    def insert(self, a: int, t: float) -> None:
        self._worth.insert(str(a), seconds=self._cost[a], octets=self._octets(a), now=t)

    def evict(self, a: int) -> None:
        self._worth.evict(str(a))

    def admit(self, a: int, victim: int, t: float) -> bool:
        del a, victim, t
        return True

    def victim(self, ok: Callable[[int], bool], t: float) -> int:
        del t
        found = self._worth.victim(lambda name: ok(int(name)))
        if found is None:
            raise ValueError("nothing may leave")
        return int(found)

    def _octets(self, a: int) -> float:
        return (1.0 if self._size is None else float(self._size[a])) * 32 * MEGABYTE


class RamPolicyInBytes(RamPolicy):
    """The same for a tier capped in bytes."""

    in_bytes = True
