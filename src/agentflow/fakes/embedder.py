"""An embedder without weights: hashed letter triples. Texts that share words are near each other."""

import zlib
from collections.abc import Sequence

import numpy as np

from agentflow.errors import EmbedderError
from agentflow.protocols import Vectors


class FakeEmbedder:
    """Deterministic and instant; `failing` makes every call raise EmbedderError."""

    id = "fake-triples-256"
    dim = 256

    def __init__(self) -> None:
        self.failing = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See Embedder.embed."""
        if self.failing:
            raise EmbedderError("The fake embedder was told to fail.")
        return (
            np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, self.dim), np.float32)
        )

    async def close(self) -> None:
        """Nothing is held."""

    def _vector(self, text: str) -> Vectors:
        vector = np.full(self.dim, 1e-3, np.float32)
        padded = f"  {text.casefold()}  "
        for start in range(len(padded) - 2):
            vector[zlib.crc32(padded[start : start + 3].encode("utf-8", "surrogatepass")) % self.dim] += 1.0
        return vector / np.float32(np.linalg.norm(vector))
