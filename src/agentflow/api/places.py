"""Which door a path belongs to: a handful of names, whatever is asked for."""

DOORS = {
    "invoke": "invoke",
    "v1": "openai",
    "memory": "memory",
    "residency": "residency",
    "mcp": "mcp",
    "a2a": "a2a",
}
PROTOCOL = ("threads", "runs", "assistants", "store", "info", "ok")
BESIDE = ("mcp", "a2a", ".well-known")
"""Doors that speak protocols of their own, and refuse like the LangGraph Server's."""


def door(path: str) -> str:
    """Which door a path belongs to: a handful of names, whatever is asked for."""
    first = path.strip("/").partition("/")[0]
    return "protocol" if first in PROTOCOL else DOORS.get(first, "house")


def tells_detail(path: str) -> bool:
    """Whether errors below a path are `{"detail": "..."}`, as clients of the LangGraph Server know them."""
    return path.strip("/").partition("/")[0] in (*PROTOCOL, *BESIDE)
