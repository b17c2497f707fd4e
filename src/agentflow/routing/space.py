"""Texts as the vectors that the classifier works in: meaning (embedding) beside letters (n-grams)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentflow.protocols import Vectors
from agentflow.routing.discriminant import Labels, class_means
from agentflow.routing.ngrams import Lexicon

USUAL = 0.5
HEAVIER = (1.0, 2.0)


@dataclass(frozen=True)
class Placed:
    """Texts in the space: `features` for lines, `unit` (rows of length 1 or 0) for nearness."""

    features: Vectors
    unit: Vectors


@dataclass(frozen=True)
class Space:
    """How texts become vectors. `letters` is the weight of n-grams beside the embedding's 1."""

    lexicon: Lexicon | None
    letters: float
    meaning: bool

    @property
    def name(self) -> str:
        """meaning, letters or hybrid, with the weight."""
        if self.lexicon is None:
            return "meaning"
        return f"hybrid:{self.letters:g}" if self.meaning else "letters"

    def place(self, vectors: Vectors, texts: Sequence[str]) -> Placed:
        """`vectors`: unit embeddings, [texts, dim]; only its shape counts where meaning is off."""
        if self.lexicon is None:
            return Placed(vectors, vectors)
        letters = self.lexicon.vectors(texts)
        if not self.meaning:
            return Placed(letters, unit(letters))
        return self.joined(vectors, letters)

    def joined(self, vectors: Vectors, letters: Vectors) -> Placed:
        """Both side by side; nearness is by meaning alone unless letters had to take over."""
        features = np.hstack([vectors, np.float32(self.letters) * letters])
        return Placed(features, vectors if self.letters <= USUAL else unit(features))


def choose_space(
    features: str, vectors: Vectors, texts: Sequence[str], labels: Labels
) -> tuple[Space, Placed]:
    """The space for `meaning`, `letters` or `hybrid`, and the texts in it.

    Hybrid weighs letters more where they tell the examples apart clearly better than the embedding does:
    then the embedder does not know the language.
    """
    if features == "meaning":
        return Space(None, 0.0, meaning=True), Placed(vectors, vectors)
    lexicon = Lexicon.of(texts)
    letters = lexicon.vectors(texts)
    if features == "letters":
        return Space(lexicon, 1.0, meaning=False), Placed(letters, unit(letters))
    weight = USUAL
    if _told_apart(letters, labels) > _told_apart(vectors, labels) + 0.05:
        weight = max(
            HEAVIER, key=lambda one: _told_apart(np.hstack([vectors, np.float32(one) * letters]), labels)
        )
    space = Space(lexicon, weight, meaning=True)
    return space, space.joined(vectors, letters)


def unit(rows: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Vectors = (rows / np.maximum(length, 1e-12)).astype(np.float32)
    return found


def _told_apart(features: Vectors, labels: Labels) -> float:
    """Share of (at most 1,000) examples whose own class's mean, without them, is the nearest by cosine."""
    rows = unit(features)
    counts = np.bincount(labels)
    means = class_means(rows, labels, counts.size).astype(np.float32)
    chosen = np.flatnonzero(counts[labels] > 1)[:: max(1, len(labels) // 1000)]
    if not chosen.size:
        return 0.0
    similar = rows[chosen] @ unit(means).T
    own = labels[chosen]
    rest = unit(means[own] * counts[own, None] - rows[chosen])
    similar[np.arange(chosen.size), own] = np.einsum("nd,nd->n", rest, rows[chosen])
    return float((similar.argmax(axis=1) == own).mean())
