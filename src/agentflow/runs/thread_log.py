"""The event protocol of newer clients: one numbered log per thread, told from the streams of its runs."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from agentflow.runs.events import Stream
from agentflow.runs.feed import Feed
from agentflow.runs.protocol import error_shown
from agentflow.runs.wanted import Mode
from agentflow.turn import Json

MODES: tuple[Mode, ...] = ("values", "updates", "messages-tuple", "custom", "tasks")
"""What a run is asked for whose events are told this way."""
THREADS = 256
"""Threads whose last run is remembered; the longest unused is forgotten first."""
CHANNELS = {"input.requested": "input"}


@dataclass
class ThreadLog:
    """Events of a thread: `method`, namespace and data under a number that grows."""

    thread_id: str
    clock: Callable[[], float] = time.time
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream(self.thread_id)

    def tell(self, method: str, data: Any, namespace: list[str] | None = None) -> None:
        """Append an event."""
        seq = self.stream.last + 1
        params = {"namespace": namespace or [], "timestamp": int(self.clock() * 1000), "data": data}
        event = {"type": "event", "event_id": f"{self.thread_id}-{seq}", "seq": seq, "method": method}
        self.stream.add(method, {**event, "params": params})


@dataclass
class ThreadLogs:
    """Logs by owner and thread, in this process."""

    logs: OrderedDict[str, ThreadLog] = field(default_factory=OrderedDict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def of(self, owner: str, thread_id: str) -> ThreadLog:
        """The thread's log; begun where there is none."""
        key = f"{owner} {thread_id}"
        log = self.logs.setdefault(key, ThreadLog(thread_id))
        self.logs.move_to_end(key)
        while len(self.logs) > THREADS:
            self.logs.popitem(last=False)
        return log

    def follow(self, log: ThreadLog, feed: Feed, graph: str) -> None:
        """Tell the run's events as they come."""
        task = asyncio.create_task(_told(log, feed, graph))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def _told(log: ThreadLog, feed: Feed, graph: str) -> None:
    log.tell("lifecycle", {"event": "running", "graph_name": graph, "run_id": feed.run_id})
    messages = Messages()
    if feed.stream is not None:
        async for events in feed.stream.follow():
            for event in events:
                name, *namespace = event.name.split("|")
                for method, data in _translated(name, orjson.loads(event.data), messages):
                    log.tell(method, data, namespace)
    for data in messages.ended():
        log.tell("messages", data)
    _end(log, feed, graph)


def _end(log: ThreadLog, feed: Feed, graph: str) -> None:
    for one in feed.outcome.interrupts:
        log.tell("input.requested", {"interrupt_id": one.id, "value": one.value, "payload": one.value})
    shown: Json = {"graph_name": graph, "run_id": feed.run_id}
    if feed.error is not None:
        log.tell("lifecycle", {"event": "failed", "error": error_shown(feed.error)["message"], **shown})
    else:
        log.tell("lifecycle", {"event": "interrupted" if feed.outcome.interrupted else "completed", **shown})


def _translated(name: str, data: Any, messages: "Messages") -> Iterator[tuple[str, Any]]:
    if name == "messages":
        for one in messages.hear(*data):
            yield "messages", one
    elif name in ("values", "updates", "custom", "tasks", "checkpoints"):
        yield name, data


@dataclass
class Messages:
    """Chunks of messages as blocks that begin, grow and end; one message at a time."""

    current: str | None = None
    text: str = ""
    done: set[str] = field(default_factory=set)

    def hear(self, message: Json, metadata: Json) -> Iterator[Json]:
        """The events of one chunk."""
        found, text = str(message.get("id")), message.get("content")
        if found in self.done or message.get("type") not in ("ai", "AIMessageChunk"):
            return
        if found != self.current:
            yield from self.ended()
            self.current = found
            yield {
                "event": "message-start",
                "id": found,
                "message_id": found,
                "role": "ai",
                "metadata": metadata,
            }
            yield self._block("content-block-start", {"content": {"type": "text", "text": ""}})
        if isinstance(text, str) and text:
            self.text += text
            yield self._block("content-block-delta", {"delta": {"type": "text-delta", "text": text}})

    def ended(self) -> Iterator[Json]:
        """The end of the message that is under way, if one is."""
        if self.current is None:
            return
        yield self._block("content-block-finish", {"content": {"type": "text", "text": self.text}})
        yield {"event": "message-finish", "id": self.current, "message_id": self.current, "reason": "stop"}
        self.done.add(self.current)
        self.current, self.text = None, ""

    def _block(self, event: str, more: Json) -> Json:
        return {"event": event, "message_id": self.current, "index": 0, **more}


@dataclass(frozen=True)
class Wanted:
    """What a subscriber wants to hear."""

    channels: frozenset[str]
    namespaces: tuple[tuple[str, ...], ...] = ()
    depth: int | None = None

    def takes(self, event: Json) -> bool:
        """Whether this event is for it."""
        method, params = event["method"], event["params"]
        channel = CHANNELS.get(method, method)
        if channel == "custom" and isinstance(params["data"], dict):
            named = f"custom:{params['data'].get('name')}"
            return (channel in self.channels or named in self.channels) and self._inside(params["namespace"])
        return channel in self.channels and self._inside(params["namespace"])

    def _inside(self, namespace: list[str]) -> bool:
        within = self.namespaces or ((),)
        for prefix in within:
            beyond = len(namespace) - len(prefix)
            if tuple(namespace[: len(prefix)]) == prefix and (self.depth is None or beyond <= self.depth):
                return True
        return False
