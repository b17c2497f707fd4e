"""What a client sent, in OpenAI's two forms, as one transcript. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from agentflow.api.openai.functions import called, ident
from agentflow.api.openai.wrapping import unwrapped
from agentflow.errors import BadInput
from agentflow.prompt import ChatMessage
from agentflow.turn import Json

TEXTS = ("text", "input_text", "output_text")
SYSTEM = ("system", "developer")
Pair = tuple[str, str]
"""A message and its answer."""


@dataclass(frozen=True)
class Transcript:
    """System prompts joined, the messages before the user's last one, that one, and what came after it.

    `text` is the user's own; what a front end has put around it, passages of documents above all, is in `system`.
    `closing` is a system prompt that stands at the very end: a note for the answer, or an order in place of a message.
    """

    system: str
    before: list[ChatMessage]
    text: str
    after: list[ChatMessage]
    closing: str = ""

    def turns(self) -> list[Pair]:
        """Messages and answers before the last message.

        Tool calls and their results are left out: the whole of an answer is what was said to the user. A message
        without an answer is none, and of several in a row the last is the one that was answered.
        """
        said = [one for one in self.before if one["role"] in ("user", "assistant") and one["content"].strip()]
        groups = [(speaker, [_own(one) for one in group]) for speaker, group in groupby(said, _speaker)]
        pairs = pairwise(groups)
        return [(asked[1][-1], "\n\n".join(answer[1])) for asked, answer in pairs if asked[0] == "user"]

    @property
    def answered(self) -> bool:
        """Whether the last message has its answer already: the client wants more of it, or something else."""
        last = self.after[-1] if self.after else None
        return last is not None and last["role"] == "assistant" and not last.get("tool_calls")


def _speaker(message: ChatMessage) -> str:
    return message["role"]


def read(messages: Sequence[Mapping[str, Any]]) -> Transcript:
    """The messages of a chat completion. Raises BadInput for a message that is none, and where no user speaks."""
    found = [_message(one, f"messages.{place}") for place, one in enumerate(messages)]
    system = "\n\n".join(one["content"] for one in found if one["role"] == "system" and one["content"])
    talk = [one for one in found if one["role"] != "system"]
    closing = found[-1]["content"] if found and found[-1]["role"] == "system" and talk else ""
    last = max((place for place, one in enumerate(talk) if one["role"] == "user"), default=None)
    if last is None:
        return Transcript(system, [], "", talk, closing)
    asked = unwrapped(talk[last]["content"])
    orders = "\n\n".join(filter(None, (system, asked.around)))
    return Transcript(orders, talk[:last], asked.own, talk[last + 1 :], closing)


def from_items(given: str | Sequence[Any], instructions: str | None) -> list[Json]:
    """The `input` of a response as the messages of a chat completion; items that are not talk are left out."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    for place, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise BadInput(f"input.{place} is no item.", field=f"input.{place}", value=item)
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role", "user"), "content": item.get("content")})
        elif kind == "function_call":
            _called(messages, item)
        elif kind == "function_call_output":
            content = item.get("output")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    return messages


def words(content: Any, field: str) -> str:
    """The text of a message: a string, parts, `[]` or null. Raises BadInput for pictures and sound."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    return "\n".join(filter(None, (_part(one, field) for one in content)))


def _part(part: Any, field: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and (kind in TEXTS or kind is None):
        return str(part.get("text") or "")
    if isinstance(part, Mapping) and kind == "refusal":
        return str(part.get("refusal") or "")
    raise BadInput(f"{field} holds a part of type {kind!r}; agentflow reads text.", field=field, value=kind)


def _own(message: ChatMessage) -> str:
    return unwrapped(message["content"]).own if message["role"] == "user" else message["content"]


def _message(given: Mapping[str, Any], field: str) -> ChatMessage:
    role = given.get("role")
    content = words(given.get("content"), field)
    if role in SYSTEM:
        return {"role": "system", "content": content}
    if role == "user":
        return {"role": "user", "content": content}
    if role == "assistant":
        calls = _calls(given.get("tool_calls") or called(given), field)
        message: ChatMessage = {"role": "assistant", "content": content}
        return {**message, "tool_calls": calls} if calls else message
    if role in ("tool", "function"):
        found = str(given.get("tool_call_id") or ("" if role == "tool" else ident(given.get("name"))))
        return {"role": "tool", "content": content, "tool_call_id": found}
    known = "system, developer, user, assistant and tool"
    raise BadInput(f"{field}.role is {role!r}; roles are {known}.", field=f"{field}.role", value=role)


def _calls(given: Any, field: str) -> list[Json]:
    if not isinstance(given, list):
        raise BadInput(f"{field}.tool_calls is no list.", field=f"{field}.tool_calls")
    return [_call(one, field) for one in given]


def _call(call: Any, field: str) -> Json:
    """A tool call as engines read it; what else a client put there is left out."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise BadInput(f"{field}.tool_calls holds a call without a function.", field=f"{field}.tool_calls")
    arguments = function.get("arguments")
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": {
            "name": str(function.get("name") or ""),
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
        },
    }


def _called(messages: list[Json], item: Mapping[str, Any]) -> None:
    """Calls of one answer stand in one message."""
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
