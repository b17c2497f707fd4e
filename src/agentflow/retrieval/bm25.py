"""BM25 over packed bags of words.

Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009, with k1 = 0.9 and b = 0.4, which suit
short texts. memory/postgres/statements.py says the same in SQL; a test holds the two together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agentflow.retrieval.terms import ENTRY

K1, B = 0.9, 0.4
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def idf(documents: float, frequency: Floats) -> Floats:
    """How much a term tells that `frequency` of so many documents contain; positive for every term."""
    weights: Floats = np.log1p((documents - frequency + 0.5) / (frequency + 0.5))
    return weights


def counts(bags: bytes, sizes: NDArray[np.integer], terms: Sequence[int]) -> Floats:
    """How often each of `terms` occurs in each text: float64 [len(sizes), len(terms)].

    `bags` are packed bags one after the other, `sizes` their lengths in bytes.
    """
    asked = np.asarray(terms, np.int64)
    found = np.zeros((len(sizes), len(asked)))
    entries = np.frombuffer(bags, ENTRY)
    if not len(asked) or not len(entries):
        return found
    entries_terms = np.ascontiguousarray(entries["term"])
    few = np.zeros(1 << 16, np.bool_)  # by their lower half: most entries are none of the terms
    few[asked & 0xFFFF] = True
    hits = np.flatnonzero(few[entries_terms & 0xFFFF])
    order = np.argsort(asked)
    places = np.searchsorted(asked, entries_terms[hits], sorter=order)
    places = order[np.minimum(places, len(asked) - 1)]
    true = asked[places] == entries_terms[hits]
    hits, places = hits[true], places[true]
    rows = np.repeat(np.arange(len(sizes)), np.asarray(sizes) // ENTRY.itemsize)
    found[rows[hits], places] = entries["count"][hits]
    return found


def contributions(found: Floats, lengths: NDArray[np.integer], weights: Floats, mean_length: float) -> Floats:
    """What each term adds to each text's score: the shape of `found`; sum over axis 1 is BM25."""
    norm = K1 * (1 - B + B * np.asarray(lengths, np.float64) / max(mean_length, 1e-9))
    saturated: Floats = found * (K1 + 1) / (found + norm[:, None])
    return saturated * weights
