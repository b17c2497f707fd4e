"""All runs of a thread as one stream, whichever processes work on them, from any place on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentflow.protocols import Owner
from agentflow.records.protocol.listeners import LISTENED, Listeners, RunInThread
from agentflow.runs.events import Event, seq_of
from agentflow.runs.following import Following
from agentflow.runs.wakes import Wakes, woken

BITS = 25
"""Bits of an event's number below its run's place, in the one number that an id holds."""


class Place(NamedTuple):
    """A reader's place in a thread: the run's, and the last event seen of it; None: the run's events from now on."""

    run: int
    event: int | None = 0


@dataclass(frozen=True)
class Part:
    """Something of a run: its events, or its end (`run` then is as it ended). Neither: it is told of."""

    run: RunInThread
    events: Sequence[Event] = ()
    ended: bool = False


@dataclass
class ThreadStreams:
    """Streams over a thread's runs. Runs of a thread follow each other, so their events need no merging."""

    listeners: Listeners
    following: Following
    wakes: Wakes
    clock: Callable[[], float] = time.monotonic
    listened: dict[str, float] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """The process ends: who listens here goes on elsewhere, with the last id."""
        self.over.set()
        self.wakes.everybody()

    async def now(self, owner: Owner, thread_id: str) -> Place:
        """The place of a reader who wants what comes from now on."""
        await self._listen(owner, thread_id)
        places = await self.listeners.places(owner, thread_id)
        return Place(places.coming) if places.open is None else Place(places.open, None)

    async def latest(self, owner: Owner, thread_id: str) -> Place:
        """The place of a reader who wants the open runs, or else the last one, from its beginning."""
        await self._listen(owner, thread_id)
        places = await self.listeners.places(owner, thread_id)
        return Place(places.open or places.last or places.coming)

    async def place(self, owner: Owner, run_id: str) -> int:
        """Where a run stands in its thread; 0 where it is gone."""
        run = await self.listeners.now(owner, run_id)
        return 0 if run is None else run.place

    async def follow(
        self, owner: Owner, thread_id: str, place: Place, *, idle: float
    ) -> AsyncIterator[Part | None]:
        """What the thread's runs tell beyond a place, across runs; None after `idle` seconds without anything.

        Raises Behind when the reader was too slow for a run that is not logged.
        """
        with self.wakes.on(begun(thread_id)) as event:
            while not self.over.is_set():
                await self._listen(owner, thread_id)
                for run in await self.listeners.runs(owner, thread_id, place.run):
                    after = place.event if run.place == place.run else 0
                    async for part in self._told(owner, run, after, idle):
                        yield part
                        if self.over.is_set():
                            return
                        if part is None:
                            await self._listen(owner, thread_id)
                    place = Place(run.place + 1)
                if not await woken(event, within=idle):
                    yield None

    async def _told(
        self, owner: Owner, run: RunInThread, after: int | None, idle: float
    ) -> AsyncIterator[Part | None]:
        """One run to its end, also where it goes over to another process meanwhile."""
        yield Part(run)
        while not self.over.is_set():
            feed = self.following.feed(run.run_id, run.thread_id, owner)
            async for events in self.following.events(feed, owner, after, idle=idle):
                after = events[-1].seq if events else after
                yield Part(run, events) if events else None
            now = await self.listeners.now(owner, run.run_id)
            if now is None or not now.going:
                yield Part(now or run, ended=True)
                return

    async def _listen(self, owner: Owner, thread_id: str) -> None:
        """Say that somebody listens, well before it is forgotten; all listeners here say it together."""
        said, now = self.listened.get(thread_id, float("-inf")), self.clock()
        if now - said < LISTENED / 3:
            return
        self.listened = {one: at for one, at in self.listened.items() if now - at < LISTENED}
        if await self.listeners.listen(owner, thread_id, again=thread_id in self.listened):
            self.listened[thread_id] = now


def begun(thread_id: str) -> str:
    """What wakes who waits for the thread's next run."""
    return f"begun {thread_id}"


def number(run: int, event: int) -> int:
    """An event's number within its thread: it grows from run to run, and says the same in every process."""
    return run << BITS | event


def place_of(event_id: str) -> Place:
    """The place behind an id whose number is of that kind; of others the beginning."""
    found = seq_of(event_id, digits=16)
    return Place(found >> BITS, found & ((1 << BITS) - 1))
