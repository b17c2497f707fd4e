"""Counting and comparing words in any script."""

import re
import unicodedata
from collections.abc import Set as AbstractSet

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_UNSPACED = re.compile(r"[฀-໿က-႟ក-៿぀-ヿ㐀-鿿豈-﫿]")  # Thai to CJK: no spaces


def folded(text: str) -> str:
    """The text as it is compared: compatibility form, caseless, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a folded text."""
    return _WORD.findall(folded(text))


def length(text: str) -> int:
    """How many words; in scripts without spaces two characters count as one."""
    unspaced = len(_UNSPACED.findall(text))
    return len(words(_UNSPACED.sub(" ", text))) + (unspaced + 1) // 2


def is_reply(text: str, replies: AbstractSet[str]) -> bool:
    """True for what only answers: a single word, marks without letters, or nothing but words of `replies`."""
    found = words(text)
    return length(text) <= 1 or (len(found) <= 6 and all(word in replies for word in found))
