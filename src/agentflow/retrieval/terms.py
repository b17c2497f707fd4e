"""Texts to terms: the words that are searched for, in any script, stemmed by language.

Words are runs of letters, digits and marks after NFKC and case folding; scripts that are written without
spaces become overlapping pairs of characters, and a picture (emoji) is a word. A term is the signed 32-bit
hash of a stem: postings of numbers are smaller and sort faster than texts, and a collision only adds a
little noise.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import pairwise
from threading import get_ident

import numpy as np
import Stemmer
from numpy.typing import NDArray

from agentflow.retrieval.stopwords import MONTHS, STOP_WORDS

ENTRY = np.dtype([("term", "<i4"), ("count", "<i2")])
PLAIN = "simple"
DETECTED = tuple(STOP_WORDS)
GENERIC_SPEAKERS = ("user", "assistant")
_MOST = 32_767  # counts and lengths are smallint columns

_SCRIPTS = {
    "GREEK": "greek",
    "ARABIC": "arabic",
    "DEVANAGARI": "hindi",
    "TAMIL": "tamil",
    "ARMENIAN": "armenian",
}
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecd\u1000-\u103f\u1100-\u11ff\u1780-\u17d3"  # Thai, Lao, Burmese, Jamo, Khmer
    "\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"  # Han and Hangul
)
_PICTURE = "\u2600-\u27bf\U0001f000-\U0001f3fa\U0001f400-\U0001faff"
_LATIN_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"'s\b")
_TYPOGRAPHY = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2026", "''\"\"--.")


@dataclass(frozen=True)
class Bag:
    """What is indexed of one text: distinct terms in ascending order, how often each occurs, how many in all.

    `terms` int32 [n], `counts` int16 [n]; `length` is at least 1, so that no formula divides by zero.
    """

    terms: NDArray[np.int32]
    counts: NDArray[np.int16]
    length: int

    def packed(self) -> bytes:
        """Six bytes per term, little-endian: what the column `bow` holds."""
        entries = np.empty(len(self.terms), ENTRY)
        entries["term"], entries["count"] = self.terms, self.counts
        return entries.tobytes()


@dataclass(frozen=True)
class Question:
    """A question's terms under every language that a scope may hold.

    `terms[i]` is a stem of the word `words[places[i]]` under `languages[i]`. `own` are the places of the
    words that count in the question's own language.
    """

    words: tuple[str, ...]
    terms: tuple[int, ...]
    languages: tuple[str, ...]
    places: tuple[int, ...]
    own: frozenset[int]

    def under(self, languages: Collection[str]) -> dict[int, int]:
        """Distinct terms under the given languages, each with the place of its word."""
        rows = zip(self.terms, self.languages, self.places, strict=True)
        return {term: place for term, language, place in rows if language in languages}


def words(text: str) -> list[str]:
    """The words of a text, folded, in order."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = _POSSESSIVE.sub(" ", folded.translate(_TYPOGRAPHY))
    if folded.isascii() or max(folded) < "\u0300":
        return _LATIN_WORD.findall(folded)
    found: list[str] = []
    for spaced, unspaced in _word().findall(folded):
        found += _pairs(unspaced) if unspaced else [spaced]
    return found


def stems(found: Sequence[str], language: str) -> list[str]:
    """The stems of the words that carry content. An unknown language is neither stemmed nor thinned out."""
    stop = STOP_WORDS.get(language, frozenset())
    kept = [word for word in found if word not in stop]
    if language not in _known():
        return kept
    stemmed: list[str] = _stemmer(language, get_ident()).stemWords(kept)
    return stemmed


def term(stem: str) -> int:
    """The number that stands for a stem."""
    return zlib.crc32(stem.encode("utf-8", "surrogatepass")) - 2**31


def bag(text: str, language: str) -> Bag:
    """What is indexed of a text."""
    counted = Counter(map(term, stems(words(text), language)))
    numbers = np.array(sorted(counted), np.int32)
    counts = np.array([min(counted[int(one)], _MOST) for one in numbers], np.int16)
    return Bag(numbers, counts, min(max(1, counted.total()), _MOST))


def question(text: str, languages: Sequence[str]) -> Question:
    """A question, stemmed under each of `languages` and its own."""
    found = tuple(dict.fromkeys(words(text)))
    mine = language_of(text)
    rows: dict[tuple[int, str], int] = {}
    for language in dict.fromkeys((mine, *languages)):
        places = [place for place, word in enumerate(found) if word not in STOP_WORDS.get(language, ())]
        stemmed = stems([found[place] for place in places], language)
        for place, stem in zip(places, stemmed, strict=True):
            rows.setdefault((term(stem), language), place)
    stop = STOP_WORDS.get(mine, frozenset())
    return Question(
        words=found,
        terms=tuple(number for number, _ in rows),
        languages=tuple(language for _, language in rows),
        places=tuple(rows.values()),
        own=frozenset(place for place, word in enumerate(found) if word not in stop),
    )


def language_of(text: str, otherwise: str = "english") -> str:
    """The language whose function words are most frequent; by script where there are none; else `otherwise`."""
    found = words(text)
    hits = {name: sum(word in stop for word in found) for name, stop in STOP_WORDS.items()}
    best = max(DETECTED, key=lambda name: (hits[name], name == otherwise))
    return best if hits[best] else _by_script(found, otherwise)


def keyword_text(content: str, *, speaker: str, said_at: datetime | None, language: str) -> str:
    """What the words are taken from: the day, who spoke (if a name), the words themselves."""
    month = MONTHS.get(language, MONTHS["english"])
    day = f"[{said_at.day} {month[said_at.month - 1]} {said_at.year}] " if said_at else ""
    return day + embedded_text(content, speaker=speaker)


def embedded_text(content: str, *, speaker: str) -> str:
    """What is embedded. A name is content; "user" and "assistant" are not."""
    return content if speaker in GENERIC_SPEAKERS or not speaker else f"{speaker}: {content}"


def asks(content: str) -> bool:
    """Whether a text ends as a question; answers are preferred over questions."""
    return content.rstrip().endswith(("?", "\uff1f", "\u061f"))


def _pairs(run: str) -> list[str]:
    return [left + right for left, right in pairwise(run)] or [run]


def _by_script(found: Iterable[str], otherwise: str) -> str:
    """By the first letter that is not Latin."""
    foreign = next((char for word in found for char in word if ord(char) > 0x24F and char.isalpha()), "")
    if not foreign:
        return otherwise
    script = unicodedata.name(foreign, "").split(" ")[0]
    return "russian" if script == "CYRILLIC" else _SCRIPTS.get(script, PLAIN)


@cache
def _word() -> re.Pattern[str]:
    """Words of letters in Python's sense lack combining marks, without which Indic words would fall apart."""
    marks = "".join(map(chr, _marks()))
    return re.compile(rf"((?:(?![{_UNSPACED}])[^\W_{marks}][{marks}]*)+|[{_PICTURE}])|([{_UNSPACED}]+)")


def _marks() -> Iterable[int]:
    """Combining marks outside the scripts written without spaces."""
    unspaced = re.compile(f"[{_UNSPACED}]")
    planes = (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))
    return (
        code for code in planes if unicodedata.category(chr(code))[0] == "M" and not unspaced.match(chr(code))
    )


@cache
def _known() -> frozenset[str]:
    return frozenset(Stemmer.algorithms())


@cache
def _stemmer(language: str, _thread: int) -> "Stemmer.Stemmer":
    """One per thread: a stemmer keeps state."""
    return Stemmer.Stemmer(language)
