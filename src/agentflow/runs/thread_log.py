"""The event protocol of newer clients: one numbered log per thread, told from the streams of its runs."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from agentflow.runs.events import Stream
from agentflow.runs.feed import Feed
from agentflow.runs.protocol import error_shown
from agentflow.runs.telling import Telling

THREADS = 256
"""Threads whose last run is remembered; the longest unused is forgotten first."""


@dataclass
class ThreadLog:
    """Events of a thread: `method`, namespace and data under a number that grows."""

    thread_id: str
    clock: Callable[[], float] = time.time
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream(self.thread_id)

    def tell(self, method: str, data: Any, namespace: list[str] | None = None, *, run_id: str = "") -> None:
        """Append an event. Clients learn a run's id from the id of an event that begins or ends it."""
        seq = self.stream.last + 1
        name = f"synth:{run_id}:{seq}" if run_id else f"{self.thread_id}-{seq}"
        params = {"namespace": namespace or [], "timestamp": int(self.clock() * 1000), "data": data}
        event = {"type": "event", "event_id": name, "seq": seq, "method": method}
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
    log.tell(
        "lifecycle", {"event": "running", "graph_name": graph, "run_id": feed.run_id}, run_id=feed.run_id
    )
    telling = Telling()
    if feed.stream is not None:
        async for events in feed.stream.follow():
            for event in events:
                for method, namespace, data in telling.hear(event.name, orjson.loads(event.data)):
                    log.tell(method, data, namespace)
    for method, namespace, data in telling.ended():
        log.tell(method, data, namespace)
    _end(log, feed, graph)


def _end(log: ThreadLog, feed: Feed, graph: str) -> None:
    for one in feed.outcome.interrupts:
        log.tell("input.requested", {"interrupt_id": one.id, "value": one.value, "payload": one.value})
    ended = "interrupted" if feed.outcome.interrupted else "completed"
    failure = {} if feed.error is None else {"error": error_shown(feed.error)["message"]}
    shown = {"event": "failed" if failure else ended, **failure, "graph_name": graph, "run_id": feed.run_id}
    log.tell("lifecycle", shown, run_id=feed.run_id)
