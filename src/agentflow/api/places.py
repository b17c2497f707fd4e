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


def door(path: str) -> str:
    """Which door a path belongs to: a handful of names, whatever is asked for."""
    first = path.strip("/").partition("/")[0]
    return "protocol" if first in PROTOCOL else DOORS.get(first, "house")
