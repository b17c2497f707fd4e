"""Letters and words of any script as a short dense vector: hashed n-grams, weighted by rarity.

Where an embedder is weak (a language it has not seen, names, jargon) these features still tell texts apart.
All grams of all texts are hashed at once, so that one short text costs about 0.1 ms.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentflow.protocols import Vectors
from agentflow.routing.words import folded

WIDTH = 512
CHARS = (2, 3, 4)
_TOKEN = re.compile(r"[^\W_]+|[^\W\d_]|[\u2190-\u2bff\U0001f000-\U0001faff]")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SPACE = 32
_POWERS = [np.uint64(pow(int(_BASE), power, 1 << 64)) for power in range(max(CHARS))]

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Counted:
    """Distinct grams per text: text number, gram hash, how often; sorted by text, then hash."""

    row: NDArray[np.int64]
    gram: Hashes
    count: NDArray[np.float32]


@dataclass(frozen=True)
class Lexicon:
    """Grams of the examples and how rare each is. Unknown grams count only towards a text's length."""

    gram: Hashes
    rarity: NDArray[np.float32]
    unseen: float

    @staticmethod
    def of(texts: Sequence[str]) -> "Lexicon":
        """Rarity is log((1 + n) / (1 + texts with the gram)) + 1, as in smoothed tf-idf."""
        found = np.concatenate([part.gram for part in _counted(texts)])
        gram, texts_with = np.unique(found, return_counts=True)
        rarity = np.log((1 + len(texts)) / (1 + texts_with)) + 1
        return Lexicon(gram, rarity.astype(np.float32), float(np.log(1 + len(texts)) + 1))

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), WIDTH]: characters and words, each part of length at most 1, added up."""
        chars, words = _counted(texts)
        return self._sketch(chars, len(texts)) + self._sketch(words, len(texts))

    def _sketch(self, grams: Counted, rows: int) -> Vectors:
        if not self.gram.size or not grams.row.size:
            return np.zeros((rows, WIDTH), np.float32)
        place = np.minimum(np.searchsorted(self.gram, grams.gram), self.gram.size - 1)
        known = self.gram[place] == grams.gram
        weight = (1 + np.log(grams.count)) * np.where(known, self.rarity[place], self.unseen)
        length = np.sqrt(np.bincount(grams.row, weight * weight, rows))
        row, gram = grams.row[known], grams.gram[known]
        sign = 1.0 - 2.0 * (gram & np.uint64(1)).astype(np.float64)
        cell = row * WIDTH + (gram >> np.uint64(40)).astype(np.int64) % WIDTH
        summed = np.bincount(cell, sign * weight[known] / length[row], rows * WIDTH)
        return summed.reshape(rows, WIDTH).astype(np.float32)


def _counted(texts: Sequence[str]) -> tuple[Counted, Counted]:
    """Character grams (inside words, edges marked) and word grams (single words and pairs)."""
    spaced = [f" {' '.join(_TOKEN.findall(folded(text)))} " for text in texts]
    codes = np.frombuffer("".join(spaced).encode("utf-32-le"), np.uint32).astype(np.uint64)
    row = np.repeat(np.arange(len(texts)), [len(one) for one in spaced])
    blank = codes == _SPACE
    return _counts(*_char_grams(codes, row, blank)), _counts(*_word_grams(codes, row, blank))


def _char_grams(
    codes: Hashes, row: NDArray[np.int64], blank: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Hashes]:
    """Every run of CHARS characters that has no blank inside; a blank may stand at either end."""
    blanks = np.concatenate([[0], np.cumsum(blank)])
    hashed = codes.copy()
    rows, found = [], []
    for length in range(2, max(CHARS) + 1):
        hashed = hashed[:-1] + _POWERS[length - 1] * codes[length - 1 :]
        start = np.arange(hashed.size)
        inside = blanks[start + length - 1] - blanks[start + 1]
        letters = length - (blanks[start + length] - blanks[start])
        kept = (inside == 0) & (letters > 0)
        if length in CHARS:
            rows.append(row[: hashed.size][kept])
            found.append(hashed[kept] + np.uint64(length))
    return np.concatenate(rows), _mixed(np.concatenate(found))


def _word_grams(
    codes: Hashes, row: NDArray[np.int64], blank: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Hashes]:
    begins = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    if not begins.size:
        return begins, np.zeros(0, np.uint64)
    lengths = np.flatnonzero(~blank[:-1] & blank[1:]) + 1 - begins
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    powers = np.cumprod(np.full(int(lengths.max()), _BASE))
    letters = codes[~blank] * powers[place]
    single = _mixed(np.add.reduceat(letters, np.cumsum(lengths) - lengths))
    text = row[begins]
    together = text[:-1] == text[1:]
    pairs = _mixed((single[:-1] * _BASE + single[1:])[together])
    return np.concatenate([text, text[:-1][together]]), np.concatenate([single, pairs])


def _counts(row: NDArray[np.int64], gram: Hashes) -> Counted:
    order = np.lexsort((gram, row))
    row, gram = row[order], gram[order]
    if not row.size:
        return Counted(row, gram, np.zeros(0, np.float32))
    first = np.flatnonzero(np.concatenate([[True], (row[1:] != row[:-1]) | (gram[1:] != gram[:-1])]))
    count = np.diff(np.append(first, row.size)).astype(np.float32)
    return Counted(row[first], gram[first], count)


def _mixed(hashed: Hashes) -> Hashes:
    """Spread the entropy over all bits (two rounds of multiply and shift)."""
    hashed = (hashed ^ (hashed >> np.uint64(32))) * _MIX
    hashed = (hashed ^ (hashed >> np.uint64(29))) * _BASE
    return hashed ^ (hashed >> np.uint64(32))
