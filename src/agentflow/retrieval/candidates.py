"""Candidates of a scope that is read whole: the best by words and by meaning, and what was said around them.

Postgres chooses in the same way where a scope is too large for that (memory/postgres/statements.py).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

AROUND = 2
"""Places before and after a hit that come with it."""
_LONGEST = 1 << 20  # places of a session


def candidates(
    ids: NDArray[np.int64],
    sessions: NDArray[np.int64],
    positions: NDArray[np.int64],
    words: NDArray[np.float64],
    cosines: NDArray[np.floating],
    width: int,
    nearest: Sequence[int] | None = None,
) -> NDArray[np.int64]:
    """Rows of the `width` best by `words` (above 0) and by `cosines` (NaN: no vector), with their neighbours.

    `nearest` are ids of the best by meaning where another place knows them. Ties go to the older one.
    """
    meaning = _best(cosines, ids, width) if nearest is None else np.flatnonzero(np.isin(ids, nearest))
    seeds = np.union1d(_best(np.where(words > 0, words, np.nan), ids, width), meaning)
    keys = sessions.astype(np.int64) * _LONGEST + positions
    reached = keys[seeds][:, None] + np.arange(-AROUND, AROUND + 1)
    return np.flatnonzero(np.isin(keys, reached))


def _best(scores: NDArray[np.floating], ids: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    scored = np.flatnonzero(~np.isnan(scores))
    return scored[np.lexsort((ids[scored], -scores[scored]))[:width]]
