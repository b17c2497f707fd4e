"""One order out of words and meaning.

Both scores become z-scores over the pool of candidates and are added: magnitudes carry the evidence that
reciprocal ranks throw away. Then a text gains from its neighbours in the conversation, and from the best
text of its session. Relevance is another matter: z-scores are relative to the pool, so whether anything
is worth showing is judged on cosines and on the share of the question's words that were found.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from agentflow.retrieval.bm25 import Floats, Integers, contributions

_STRIDE = 1 << 20  # above any position within a session
REACH = ((1, 0.2), (2, 0.1))  # distance to a neighbour, share of its score


@dataclass(frozen=True)
class Weights:
    """How the parts add up; defaults from five LoCoMo conversations, checked on ten."""

    cosine: float = 1.3
    question: float = 0.3
    session: float = 0.3
    coverage: float = 0.5


@dataclass(frozen=True)
class Pool:
    """Candidates, one row each: both arms' best and what was said around them.

    `cosines` is NaN for rows without a vector. `found` counts the question's terms in each row (see
    bm25.counts), `weights` are those terms' idf, `owed` is the idf of the question's words in all, found
    anywhere or not.
    """

    ids: Integers
    sessions: Integers
    positions: Integers
    cosines: Floats
    questions: NDArray[np.bool_]
    lengths: Integers
    found: Floats
    weights: Floats
    mean_length: float
    owed: float


class Parts(TypedDict):
    """Why a text has its place: the scores, and what was added to them."""

    bm25: float
    cosine: float | None
    fused: float
    question: float
    neighbours: float
    session: float
    matched: list[int]


@dataclass(frozen=True)
class Ranked:
    """A row of the pool. `relevance` is absolute: comparable between questions; `parts` explains `row`'s place."""

    row: int
    relevance: float
    parts: Parts


def ranked(pool: Pool, k: int, weights: Weights | None = None) -> list[Ranked]:
    """The best `k` rows, best first; ties go to the older one."""
    chosen = weights or Weights()
    if not len(pool.ids) or k <= 0:
        return []
    bm25 = contributions(pool.found, pool.lengths, pool.weights, pool.mean_length).sum(axis=1)
    penalty = -chosen.question * pool.questions
    own = _z(bm25) + chosen.cosine * _z_known(pool.cosines) + penalty
    keys = pool.sessions * _STRIDE + pool.positions
    around = _neighbours(keys, own)
    bonus = chosen.session * _best_of_session(pool.sessions, own + around)
    fused = own + around + bonus
    relevance = _relevance(pool, keys, chosen)
    order = np.lexsort((pool.ids, -fused))[:k]
    return [
        Ranked(
            int(row),
            round(float(relevance[row]), 4),
            {
                "bm25": round(float(bm25[row]), 3),
                "cosine": None if np.isnan(pool.cosines[row]) else round(float(pool.cosines[row]), 4),
                "fused": round(float(fused[row]), 3),
                "question": round(float(penalty[row]), 3),
                "neighbours": round(float(around[row]), 3),
                "session": round(float(bonus[row]), 3),
                "matched": np.flatnonzero(pool.found[row]).tolist(),
            },
        )
        for row in order
    ]


def _z(scores: Floats) -> Floats:
    standardised: Floats = (scores - scores.mean()) / (scores.std() + 1e-9)
    return standardised


def _z_known(scores: Floats) -> Floats:
    """Rows whose score is not known yet are taken for average."""
    known = ~np.isnan(scores)
    found = np.zeros(len(scores))
    if known.any():
        found[known] = _z(scores[known])
    return found


def _neighbours(keys: Integers, scores: Floats) -> Floats:
    """What the texts one and two places before and after add; those outside the pool add nothing."""
    order = np.argsort(keys, kind="stable")
    ordered, values = keys[order], scores[order]
    gained = np.zeros(len(keys))
    for distance, share in REACH:
        here, there = _at_distance(ordered, distance)
        np.add.at(gained, here, share * values[there])
        np.add.at(gained, there, share * values[here])
    found = np.empty(len(keys))
    found[order] = gained
    return found


def _at_distance(ordered: Integers, distance: int) -> tuple[Integers, Integers]:
    """Pairs of rows whose keys differ by `distance`."""
    there = np.searchsorted(ordered, ordered + distance)
    there[there == len(ordered)] = 0
    here = np.flatnonzero(ordered[there] == ordered + distance)
    return here, there[here]


def _best_of_session(sessions: Integers, scores: Floats) -> Floats:
    distinct, member = np.unique(sessions, return_inverse=True)
    best = np.full(len(distinct), -np.inf)
    np.maximum.at(best, member, scores)
    found: Floats = best[member]
    return found


def _relevance(pool: Pool, keys: Integers, weights: Weights) -> Floats:
    """The best cosine and the best share of the question's words, each among the text and its neighbours.

    Where nothing around has a vector yet, words alone must do.
    """
    coverage = ((pool.found > 0) * pool.weights).sum(axis=1) / max(pool.owed, 1e-9)
    covered = _best_around(keys, np.minimum(coverage, 1.0))
    near = _best_around(keys, np.where(np.isnan(pool.cosines), -np.inf, pool.cosines))
    known = np.where(np.isinf(near), weights.coverage * covered, near)
    relevance: Floats = known + weights.coverage * covered
    return relevance


def _best_around(keys: Integers, scores: Floats) -> Floats:
    order = np.argsort(keys, kind="stable")
    ordered, values = keys[order], scores[order]
    best = values.copy()
    for distance, _ in REACH:
        here, there = _at_distance(ordered, distance)
        np.maximum.at(best, here, values[there])
        np.maximum.at(best, there, values[here])
    found = np.empty(len(keys))
    found[order] = best
    return found
