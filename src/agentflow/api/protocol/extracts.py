"""Single values out of a thread, by paths such as `values.messages[-1].content`. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from agentflow.errors import BadInput
from agentflow.turn import Json

PATHS = 10
_STEP = re.compile(r"\[(-?\d{1,9})\]|([^.\[\]]+)")


def extracted(thread: Json, paths: Mapping[str, str]) -> Json:
    """What stands at each path, under its alias; None where nothing does. Raises BadInput for too many."""
    if len(paths) > PATHS:
        raise BadInput(f"extract names at most {PATHS} paths.", field="extract")
    return {alias: _at(thread, path) for alias, path in paths.items()}


def _at(found: Any, path: str) -> Any:
    for place, key in _STEP.findall(path):
        found = _item(found, int(place)) if place else found.get(key) if isinstance(found, dict) else None
    return found


def _item(found: Any, place: int) -> Any:
    inside = isinstance(found, list) and -len(found) <= place < len(found)
    return found[place] if inside else None
