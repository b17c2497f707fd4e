"""Graph values as JSON: messages, interrupts, models and whatever else a node may return."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import orjson
from langgraph.types import Interrupt
from pydantic import BaseModel

OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
NUL = b"\\u0000"


def encoded(value: object) -> bytes:
    """JSON in UTF-8. What has no form in JSON is shown by its `repr`."""
    try:
        return orjson.dumps(value, default=plain, option=OPTIONS)
    except TypeError:  # integers beyond 64 bits, which orjson refuses
        return json.dumps(value, default=plain, ensure_ascii=False).encode()


def storable(value: object) -> str:
    """JSON text that Postgres takes: a NUL character, which it refuses, is left out."""
    return encoded(value).replace(NUL, b"").decode()


def interrupt_shown(one: Interrupt) -> dict[str, Any]:
    """An interrupt as clients see it."""
    return {"value": one.value, "id": one.id}


def plain(value: object) -> Any:
    """The next simpler form of a value that JSON does not know."""
    for kind, simpler in SIMPLER:
        if isinstance(value, kind):
            return simpler(value)
    if isinstance(value, list | tuple | set | frozenset):
        return value._asdict() if hasattr(value, "_asdict") else list(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return repr(value)


SIMPLER: tuple[tuple[type[Any], Callable[[Any], Any]], ...] = (
    (Interrupt, interrupt_shown),
    (BaseModel, BaseModel.model_dump),
    (Mapping, dict),
    (str, str),
    (int, int),
    (float, float),
    (bytes, lambda value: value.decode(errors="replace")),
)
