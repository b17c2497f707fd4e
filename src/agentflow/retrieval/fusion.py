"""One order out of words and meaning.

Both scores become z-scores over the pool of candidates and are added: magnitudes carry the evidence that
reciprocal ranks throw away. Then a text gains from its neighbours in the conversation, most of all an answer from
its question, and from the best text of its session. Relevance is another matter: z-scores are relative to the
pool, so whether anything is worth showing is judged on cosines and on the share of the question's words found.
"""

from dataclasses import dataclass
from math import isnan
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from agentflow.retrieval.bm25 import Floats, Integers, contributions

_STRIDE = 1 << 20  # above any position within a session
REACH = ((1, 0.2), (2, 0.1))  # distance to a neighbour, share of its score


@dataclass(frozen=True)
class Weights:
    """How the parts add up; defaults from five LoCoMo conversations, checked on ten.

    `unseen` stands for the cosine that is missing where nothing around has a vector: with it, a relevance of
    0.5 keeps 95 % of the texts sought there and 15 % of those of a conversation about something else.
    """

    cosine: float = 1.3
    question: float = 0.3
    session: float = 0.3
    answer: float = 0.25
    related: float = 0.5
    coverage: float = 0.5
    unseen: float = 0.2


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
    related: "Related | None" = None


@dataclass(frozen=True)
class Related:
    """Words that mean nearly the same as the question's: `found` and `weights` (idf) as in a Pool, for each how
    near it is (`nearness`, 0 to 1) to the question's term numbered `origins`.
    """

    found: Floats
    weights: Floats
    nearness: Floats
    origins: Integers


class Parts(TypedDict):
    """Why a text has its place: the scores, and what was added to them."""

    bm25: float
    related: float
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
    hinted = chosen.related * _related(pool)
    own = _z(bm25 + hinted) + chosen.cosine * _z_known(pool.cosines) + penalty
    around = _around(pool, chosen)
    gained = around.sums(own)
    bonus = chosen.session * _best_of_session(pool.sessions, own + gained)
    fused = own + gained + bonus
    best = np.lexsort((pool.ids, -fused))[:k]
    relevance = _relevance(pool, around, chosen)
    columns = (relevance, bm25, hinted, pool.cosines, fused, penalty, gained, bonus)
    return [
        _explained(row, pool.found[row], column)
        for row, *column in zip(best, *(one[best] for one in columns), strict=True)
    ]


def _explained(row: np.int64, found: Floats, columns: list[np.float64]) -> Ranked:
    relevance, bm25, related, cosine, fused, penalty, gained, bonus = map(float, columns)
    parts: Parts = {
        "bm25": round(bm25, 3),
        "related": round(related, 3),
        "cosine": None if isnan(cosine) else round(cosine, 4),
        "fused": round(fused, 3),
        "question": round(penalty, 3),
        "neighbours": round(gained, 3),
        "session": round(bonus, 3),
        "matched": np.flatnonzero(found).tolist(),
    }
    return Ranked(int(row), round(relevance, 4), parts)


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


@dataclass(frozen=True)
class _Around:
    """Pairs of rows near each other in a session: row, neighbour, and what the neighbour's score is worth."""

    here: Integers
    there: Integers
    share: Floats

    def sums(self, scores: Floats) -> Floats:
        """What the texts one and two places before and after add; those outside the pool add nothing."""
        found = np.zeros(len(scores))
        np.add.at(found, self.here, self.share * scores[self.there])
        return found

    def best(self, scores: Floats) -> Floats:
        """The best score of each row and its neighbours."""
        found = scores.copy()
        np.maximum.at(found, self.here, scores[self.there])
        return found


def _around(pool: Pool, weights: Weights) -> _Around:
    keys = pool.sessions * _STRIDE + pool.positions
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    here: list[Integers] = []
    there: list[Integers] = []
    share: list[Floats] = []
    for distance, worth in REACH:
        after = np.searchsorted(ordered, ordered + distance)
        after[after == len(ordered)] = 0
        before = np.flatnonzero(ordered[after] == ordered + distance)
        earlier, later = order[before], order[after[before]]
        asked = np.where(pool.questions[earlier], weights.answer, 0.0) if distance == 1 else 0.0
        here += (earlier, later)
        there += (later, earlier)
        share += (np.full(len(before), worth), np.full(len(before), worth + asked))
    return _Around(np.concatenate(here), np.concatenate(there), np.concatenate(share))


def _related(pool: Pool) -> Floats:
    """For each of the question's terms the best of the words near it."""
    if pool.related is None or not len(pool.related.weights):
        return np.zeros(len(pool.ids))
    near = pool.related
    gains = contributions(near.found, pool.lengths, near.weights * near.nearness, pool.mean_length)
    order = np.argsort(near.origins, kind="stable")
    starts = np.flatnonzero(np.diff(near.origins[order], prepend=-1))
    found: Floats = np.maximum.reduceat(gains[:, order], starts, axis=1).sum(axis=1)
    return found


def _best_of_session(sessions: Integers, scores: Floats) -> Floats:
    distinct, member = np.unique(sessions, return_inverse=True)
    best = np.full(len(distinct), -np.inf)
    np.maximum.at(best, member, scores)
    found: Floats = best[member]
    return found


def _relevance(pool: Pool, around: _Around, weights: Weights) -> Floats:
    """The best cosine and the best share of the question's words, each among the text and its neighbours.

    Where nothing around has a vector yet, words alone must do.
    """
    coverage = (pool.found > 0) @ pool.weights / max(pool.owed, 1e-9)
    covered = around.best(np.minimum(coverage, 1.0))
    near = around.best(np.where(np.isnan(pool.cosines), -np.inf, pool.cosines))
    relevance: Floats = np.where(np.isinf(near), weights.unseen + covered, near + weights.coverage * covered)
    return relevance
