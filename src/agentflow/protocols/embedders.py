"""Texts to vectors."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Texts to unit vectors. `id` changes whenever the vectors would (it includes the weights' hash)."""

    @property
    def id(self) -> str: ...
    @property
    def dim(self) -> int: ...
    async def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], rows of length 1. Raises EmbedderError."""
        ...

    async def close(self) -> None: ...
