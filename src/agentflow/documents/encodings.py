"""Bytes to text: Unicode as it says of itself, and older encodings as far as they can be told apart."""

import re

FEW = 0.2
"""Share of letters beyond ASCII up to which a text is taken for one in Latin letters."""
ZEROS = 0.05
"""Share of zeros in every second place from which on bytes are taken for UTF-16: that of its spaces, and more."""
OLDER = [
    "cp1251",
    "koi8_r",
    "cp1250",
    "cp1253",
    "cp1255",
    "cp1256",
    "cp932",
    "gb18030",
    "big5",
    "cp949",
    "euc_jp",
]
_LETTERS = re.compile(rb"[A-Za-z\x80-\xff]")
# Bytes that are letters in the Windows encoding of Central Europe and signs in that of the West.
_SIGN_IN_WORD = re.compile(r"[a-z][\u00a1-\u00bf][a-z]")


def unicode(data: bytes) -> str | None:
    """UTF-8, or UTF-16 with its mark or with the zeros that it has in every second place."""
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ["utf-16"] if marked else ["utf-8-sig", *_wide(data)]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if marked or "\0" not in text:
            return text
    return None


def _wide(data: bytes) -> list[str]:
    places = data[0::2], data[1::2]
    zeros = [place.count(0) / max(len(place), 1) for place in places]
    if max(zeros) < ZEROS or min(zeros) > 0:
        return []
    return ["utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"]


def foreign(data: bytes) -> str | None:
    """Text in Windows' encoding of the West, or in another one that it looks like; None: it is no text."""
    if b"\0" in data:
        return None
    beyond = [letter for letter in _LETTERS.findall(data) if letter >= b"\x80"]
    if len(beyond) <= FEW * len(_LETTERS.findall(data)):
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            return _guessed(data)
        if not _SIGN_IN_WORD.search(text):
            return text
    return _guessed(data)


def _guessed(data: bytes) -> str | None:
    try:
        from charset_normalizer import from_bytes  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    best = from_bytes(data, cp_isolation=OLDER).best()
    return None if best is None else str(best)
