"""One token out of a row of logits."""

import numpy as np
from numpy.typing import NDArray


class Sampler:
    """Temperature and nucleus sampling (Holtzman et al. 2020) with a generator of its own per answer."""

    def __init__(self, *, temperature: float, top_p: float, seed: int | None) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._random = np.random.default_rng(seed)

    def draw(self, logits: NDArray[np.float32]) -> int:
        """A token's index, drawn from the smallest set of likeliest tokens that holds `top_p` of the mass."""
        scaled = (logits.astype(np.float64) - logits.max()) / self._temperature
        order = np.argsort(-scaled, kind="stable")
        mass = np.cumsum(np.exp(scaled[order]))
        kept = int(np.searchsorted(mass, self._top_p * mass[-1])) + 1
        nucleus = mass[: min(kept, len(mass))]
        place = np.searchsorted(nucleus, self._random.random() * nucleus[-1], side="right")
        return int(order[min(int(place), len(nucleus) - 1)])
