"""What a run streams, in the words of the event protocol (langchain-protocol's types). Pure."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow.runs.subgraphs import Subgraphs, Told
from agentflow.runs.wanted import Mode
from agentflow.turn import Json

MODES: tuple[Mode, ...] = (
    "values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "tools",
)  # fmt: skip
"""What a run is asked for whose events are told this way."""
CHANNELS = {"input.requested": "input", "input.answered": "input"}
BLOCKS: dict[str, tuple[Json, str, str]] = {
    "text": ({"type": "text"}, "text", "text-delta"),
    "reasoning": ({"type": "reasoning"}, "reasoning", "reasoning-delta"),
    "call": ({"type": "tool_call_chunk"}, "args", "tool-call-delta"),
}
"""What a block of a kind begins with, which of its fields grows, and by which delta."""


@dataclass
class Telling:
    """One run's events, one by one. Remembers the messages under way, and states that wait for their checkpoint."""

    messages: dict[str, "Message"] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    states: dict[tuple[str, ...], Any] = field(default_factory=dict)
    subgraphs: Subgraphs = field(default_factory=Subgraphs)

    def hear(self, name: str, data: Any) -> Iterator[Told]:
        """The events of one event of the run, `name` being its mode and, behind bars, its namespace."""
        mode, *names = name.split("|")
        yield from self.subgraphs.heard(mode, names, data)
        if mode == "checkpoints":
            yield mode, names, _checkpoint(data)
        yield from self._state(names)
        if mode == "values":
            self.states[tuple(names)] = data
        elif mode == "messages":
            for one in self._chunk(*data):
                yield mode, names, one
        elif mode in ("updates", "custom", "tasks", "tools"):
            for one in _plain(mode, data):
                yield mode, names, one

    def ended(self, how: str = "completed") -> Iterator[Told]:
        """What is still open at the run's end, which is `how`."""
        for names in list(self.states):
            yield from self._state(list(names))
        for found in list(self.messages.values()):
            for one in self._ended(found):
                yield "messages", [], one
        yield from self.subgraphs.left((), how)

    def _state(self, names: list[str]) -> Iterator[Told]:
        """LangGraph tells a state before its checkpoint, the protocol's clients read the checkpoint first."""
        if tuple(names) in self.states:
            yield "values", names, self.states.pop(tuple(names))

    def _chunk(self, message: Json, metadata: Json) -> Iterator[Json]:
        found = str(message.get("id"))
        if found in self.done or message.get("type") not in ("ai", "AIMessageChunk"):
            return
        known = self.messages.get(found)
        if known is None:
            known = self.messages[found] = Message(found)
            yield known.begun(metadata)
        yield from known.hear(message)
        if message["type"] == "ai" or message.get("chunk_position") == "last":
            yield from self._ended(known)

    def _ended(self, message: "Message") -> Iterator[Json]:
        yield from message.ended()
        self.done.add(message.id)
        del self.messages[message.id]


@dataclass
class Message:
    """One message of a model: blocks that begin, grow and end."""

    id: str
    blocks: dict[str, Json] = field(default_factory=dict)
    usage: Json | None = None

    def begun(self, metadata: Json) -> Json:
        """Its beginning."""
        plain = {key: one for key, one in metadata.items() if isinstance(one, str | int | float)}
        return {"event": "message-start", "role": "ai", "metadata": plain, **self._named()}

    def hear(self, chunk: Json) -> Iterator[Json]:
        """The events of more of it."""
        self.usage = chunk.get("usage_metadata") or self.usage
        for kind, place, grown, more in _pieces(chunk):
            key = f"{kind} {place}"
            begins, growing, delta = BLOCKS[kind]
            if key not in self.blocks:
                self.blocks[key] = {**begins, **more, growing: ""}
                yield self._block(key, "content-block-start", {"content": dict(self.blocks[key])})
            if grown:
                self.blocks[key][growing] += grown
                yield self._block(key, "content-block-delta", {"delta": {"type": delta, growing: grown}})

    def ended(self) -> Iterator[Json]:
        """Its end; a message without a word still has a block."""
        if not self.blocks:
            yield from self.hear({"content": [{"type": "text", "text": ""}]})
        for key, block in self.blocks.items():
            yield self._block(key, "content-block-finish", {"content": _finished(block)})
        spent = {"usage": self.usage} if self.usage else {}
        yield {"event": "message-finish", "reason": "stop", **spent, **self._named()}

    def _named(self) -> Json:
        return {"id": self.id, "message_id": self.id}

    def _block(self, key: str, event: str, more: Json) -> Json:
        return {"event": event, "message_id": self.id, "index": list(self.blocks).index(key), **more}


def _pieces(chunk: Json) -> Iterator[tuple[str, Any, str, Json]]:
    """Kind, place, what is new, and what else is known of a block, in a chunk or a whole message."""
    content = chunk.get("content") or []
    for one in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if isinstance(one, dict) and one.get("type") in ("text", "reasoning"):
            yield one["type"], one.get("index", 0), str(one.get(one["type"]) or ""), {}
    calls = chunk.get("tool_call_chunks") or [
        {**one, "args": json.dumps(one.get("args") or {}), "index": place}
        for place, one in enumerate(chunk.get("tool_calls") or ())
    ]
    for one in calls:
        place = one.get("index")
        named = {"id": one.get("id"), "name": one.get("name")}
        yield "call", 0 if place is None else place, str(one.get("args") or ""), named


def _finished(block: Json) -> Json:
    """A block at its end: a tool call's arguments are read."""
    if block["type"] != "tool_call_chunk":
        return block
    try:
        return {**block, "type": "tool_call", "args": json.loads(block["args"] or "{}")}
    except ValueError:
        return {**block, "type": "invalid_tool_call", "error": "The arguments are no JSON."}


def _plain(mode: str, data: Any) -> Iterator[Any]:
    if mode == "updates" and isinstance(data, dict):
        for node, values in data.items():
            if node != "__interrupt__":
                yield {"node": node, "values": values}
    elif mode == "custom":
        named = isinstance(data, dict) and isinstance(data.get("name"), str) and "payload" in data
        yield data if named else {"payload": data}
    else:
        yield data


def _checkpoint(data: Json) -> Json:
    """Where a run could be taken up again."""
    places = {"id": data.get("config"), "parent_id": data.get("parent_config")}
    shown = {key: ((one or {}).get("configurable") or {}).get("checkpoint_id") for key, one in places.items()}
    metadata = data.get("metadata") or {}
    known = {key: one for key, one in shown.items() if one}
    return {**known, "step": metadata.get("step", -1), "source": metadata.get("source", "loop")}


@dataclass(frozen=True)
class Wanted:
    """What a subscriber wants to hear."""

    channels: frozenset[str]
    namespaces: tuple[tuple[str, ...], ...] = ()
    depth: int | None = None

    def takes(self, event: Json) -> bool:
        """Whether this event is for it."""
        params = event["params"]
        channel = CHANNELS.get(event["method"], event["method"])
        named = isinstance(params["data"], dict) and f"{channel}:{params['data'].get('name')}"
        return bool({channel, named} & self.channels) and self._inside(params["namespace"])

    def _inside(self, namespace: Sequence[str]) -> bool:
        """Without namespaces all are wanted; a prefix's segment without an id stands for every id."""
        return not self.namespaces or any(self._below(prefix, namespace) for prefix in self.namespaces)

    def _below(self, prefix: Sequence[str], namespace: Sequence[str]) -> bool:
        if len(prefix) > len(namespace):
            return False
        fits = all(
            one in (found, found.partition(":")[0]) for one, found in zip(prefix, namespace, strict=False)
        )
        return fits and (self.depth is None or len(namespace) - len(prefix) <= self.depth)
