"""All runs of a thread as one stream, for whoever listens to the thread."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from agentflow.runs.events import Behind, Event
from agentflow.runs.feed import Feed

WAITING = 64
"""Runs that a listener may be behind."""


@dataclass
class LiveThreads:
    """Listeners by thread. Runs of a thread follow each other, so their events need no merging."""

    listeners: dict[str, list[asyncio.Queue[Feed]]] = field(default_factory=dict)

    def begun(self, feed: Feed) -> None:
        """Tell the thread's listeners of a run."""
        for queue in self.listeners.get(feed.thread_id, ()):
            if not queue.full():
                queue.put_nowait(feed)

    async def follow(
        self, thread_id: str, running: list[Feed], *, idle: float
    ) -> AsyncIterator[tuple[Feed, list[Event]] | None]:
        """Events of the thread's runs from now on, with their run; None after `idle` seconds without any."""
        queue: asyncio.Queue[Feed] = asyncio.Queue(WAITING)
        self.listeners.setdefault(thread_id, []).append(queue)
        try:
            for feed in running:
                async for found in _events(feed, feed.stream.last if feed.stream else 0, idle):
                    yield found
            while True:
                try:
                    async with asyncio.timeout(idle):
                        feed = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                async for found in _events(feed, 0, idle):
                    yield found
        finally:
            self.listeners[thread_id].remove(queue)
            if not self.listeners[thread_id]:
                del self.listeners[thread_id]


async def _events(feed: Feed, after: int, idle: float) -> AsyncIterator[tuple[Feed, list[Event]] | None]:
    if feed.stream is None:
        return
    try:
        async for events in feed.stream.follow(after, idle=idle):
            yield (feed, events) if events else None
    except Behind:
        return
