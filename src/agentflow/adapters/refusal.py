"""How a file is refused: its field, its value and the way out, printable wherever they came from."""

import reprlib
from typing import NoReturn

from agentflow.errors import InvalidAdapter


def refuse(field: str, value: object, what: str, way_out: str, cause: Exception | None = None) -> NoReturn:
    """Names and values come from strangers' files: they are shortened, and printable as UTF-8."""
    shown = printable(value) if isinstance(value, str) else value
    if not isinstance(shown, str | int | float | None):
        shown = reprlib.repr(shown)
    message = f"{printable(field)}: {shown!r} {what}. {way_out}"
    raise InvalidAdapter(message, field=printable(field), value=shown) from cause


def printable(text: str) -> str:
    return text[:300].encode("utf-8", "backslashreplace").decode("utf-8")
