"""The older form of tools, `functions` and `function_call`, in terms of the newer one and back. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.errors import BadInput
from agentflow.turn import Json


def as_tools(functions: Sequence[Json]) -> list[Json]:
    """Functions as tools."""
    return [{"type": "function", "function": one} for one in functions]


def called(message: Mapping[str, Any]) -> list[Json]:
    """The call in an assistant's message of the older form as tool calls. Raises BadInput."""
    call = message.get("function_call")
    if not call:
        return []
    if not isinstance(call, Mapping):
        raise BadInput("function_call of a message is an object of name and arguments.", field="messages")
    return [{"id": ident(call.get("name")), "type": "function", "function": dict(call)}]


def ident(name: Any) -> str:
    """What a call and its result are matched by, where clients only name the function."""
    return f"call_{name or ''}"


def message(told: Json) -> Json:
    """An answer's message, or what a stream adds to it, in the older form."""
    calls = told.get("tool_calls")
    if not calls:
        return told
    kept = {key: one for key, one in told.items() if key != "tool_calls"}
    return {**kept, "function_call": calls[0]["function"]}


def finish(reason: str | None) -> str | None:
    """Why an answer ended, in the older form."""
    return "function_call" if reason == "tool_calls" else reason
