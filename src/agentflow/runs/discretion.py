"""What clients are told of an exception in a graph: its text may hold what nobody outside shall read."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from agentflow.turn import Json

Shows = Callable[[str], Awaitable[bool]]
"""Whether the texts of a graph's exceptions are shown."""
_KIND = re.compile(r"[A-Za-z_][\w.]*(?=\(|$)")
INSIDE = ("payload", "data")


async def always(_graph: str) -> bool:
    """For servers that nobody else reaches."""
    return True


def kind_of(error: object) -> str:
    """The name of an exception, or of one that is told as `ValueError('...')`."""
    if isinstance(error, BaseException):
        return type(error).__name__
    named = _KIND.match(str(error))
    return named[0] if named else "Error"


def instead(graph: str, error: BaseException) -> str:
    """The message in place of the exception's own."""
    return (
        f"The graph {graph} raised {type(error).__name__}; what it said is in the server's log "
        "(server.graph_errors shows it to callers)."
    )


def discreet(told: Any) -> Any:
    """A chunk or state whose errors are names only, tasks within it included; what the graph says is left as it is."""
    if not isinstance(told, dict):
        return told
    shown: Json = dict(told)
    if shown.get("error") is not None:
        shown["error"] = kind_of(shown["error"])
    for name in INSIDE:
        if isinstance(shown.get(name), dict):
            shown[name] = discreet(shown[name])
    if isinstance(shown.get("tasks"), list):
        shown["tasks"] = [discreet(task) for task in shown["tasks"]]
    if isinstance(shown.get("state"), dict):
        shown["state"] = discreet(shown["state"])
    return shown
