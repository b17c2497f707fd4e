"""What clients call stream modes, and what LangGraph gives for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, BaseMessageChunk

from agentflow.turn import Json

MODES = (
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events",
    "tools",
)  # fmt: skip
ALWAYS = ("values", "updates")
"""Asked of LangGraph in any case: they tell the result and whether the run was interrupted."""


def asked(modes: Sequence[str]) -> list[Any]:
    """The modes to ask LangGraph for."""
    translated = ["messages" if one == "messages-tuple" else one for one in modes if one != "events"]
    return list(dict.fromkeys([*translated, *ALWAYS]))


def asked_of_ours(modes: Sequence[str]) -> list[Any]:
    """The same of our own graph: its tokens are among its custom events."""
    kept = [one for one in modes if one not in ("messages", "messages-tuple", "events")]
    return list(dict.fromkeys([*kept, "custom", *ALWAYS]))


@dataclass
class Translation:
    """Chunks of a graph to events of the protocol; remembers which messages have been begun."""

    modes: frozenset[str]
    begun: dict[str, BaseMessage] = field(default_factory=dict)

    def events(self, names: Sequence[str], mode: str, chunk: Any) -> Iterator[tuple[str, Any]]:
        """(event name, data) of one chunk from the graph or, with `names`, from a subgraph."""
        suffix = "".join(f"|{one}" for one in names)
        if mode == "messages":
            for name, data in self._messages(*chunk):
                yield name + suffix, data
        elif mode in self.modes:
            yield mode + suffix, chunk

    def token(self, text: str, message_id: str, metadata: Json) -> Iterator[tuple[str, Any]]:
        """Events of a piece of an answer that no chat model of LangChain made."""
        yield from self._messages(AIMessageChunk(content=text, id=message_id), metadata)

    def _messages(self, message: BaseMessage, metadata: Json) -> Iterator[tuple[str, Any]]:
        if "messages-tuple" in self.modes:
            yield "messages", [message, metadata]
        if "messages" not in self.modes:
            return
        known = self.begun.get(str(message.id))
        if known is None:
            yield "messages/metadata", {str(message.id): {"metadata": metadata}}
        whole = message
        if isinstance(message, BaseMessageChunk) and isinstance(known, BaseMessageChunk):
            whole = known + message
        self.begun[str(message.id)] = whole
        complete = not isinstance(message, BaseMessageChunk)
        yield ("messages/complete" if complete else "messages/partial"), [_as_message(whole)]


def _as_message(message: BaseMessage) -> Json:
    shown = message.model_dump()
    return {**shown, "type": "ai"} if shown["type"] == "AIMessageChunk" else shown
