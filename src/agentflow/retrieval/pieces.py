"""Long texts in pieces that an embedder reads whole: cut between paragraphs, else sentences, else words."""

import re
from itertools import pairwise

PIECE_TOKENS = 220  # MiniLM reads 256 and drops the rest
_BORDERS = (r"\n\s*\n", r"\n", r"(?<=[.!?…])\s|(?<=[。！？])", r"\s")  # noqa: RUF001 - full stops of other scripts


def tokens(text: str) -> int:
    """About how many tokens a text has: a quarter of its bytes, which holds for other alphabets too."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def pieces(text: str, limit: int = PIECE_TOKENS) -> list[str]:
    """The text in order, in pieces of about `limit` tokens at most, without the space around them."""
    return [piece.strip() for piece in _cut(text, limit, _BORDERS) if piece.strip()]


def _cut(text: str, limit: int, borders: tuple[str, ...]) -> list[str]:
    if tokens(text) <= limit or len(text) == 1:
        return [text]
    if not borders:
        half = len(text) // 2
        return _cut(text[:half], limit, ()) + _cut(text[half:], limit, ())
    ends = [0, *(match.end() for match in re.finditer(borders[0], text)), len(text)]
    parts = (text[start:end] for start, end in pairwise(ends) if end > start)
    return _joined([small for part in parts for small in _cut(part, limit, borders[1:])], limit)


def _joined(parts: list[str], limit: int) -> list[str]:
    """Neighbours together while they fit, so that no piece is smaller than it must be."""
    found: list[str] = []
    for part in parts:
        if found and tokens(found[-1] + part) <= limit:
            found[-1] += part
        else:
            found.append(part)
    return found
