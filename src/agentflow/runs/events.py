"""The events of one run of the protocol, for any number of readers; a bounded window of them is kept."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from agentflow.errors import AgentflowError
from agentflow.runs.encoding import encoded

WINDOW = 1 << 20
"""Bytes of events kept for readers that are behind; one that is further behind is cut off and may come back."""

READ, LOGGED = 16 << 10, 64 << 10
"""Bytes that are kept although everybody has read them; more while they may not be in the log yet."""


class Event(NamedTuple):
    """`seq` counts from 1 within the run, `at` is milliseconds since 1970, `data` JSON."""

    seq: int
    at: int
    name: str
    data: bytes

    @property
    def id(self) -> str:
        """What a client sends back as Last-Event-ID."""
        return f"{self.at}-{self.seq}"


def seq_of(event_id: str, *, digits: int = 9) -> int:
    """The sequence number in an id of ours; 0 (everything) for `-1`, `-` and what is not one of ours."""
    number = event_id.rpartition("-")[2]
    return int(number) if number.isdecimal() and event_id[:1].isdigit() and len(number) <= digits else 0


class Behind(AgentflowError):
    """The reader did not keep up; it can come back with its last event's id."""


@dataclass
class Stream:
    """Grows until `close`. `kept` is called with every event, for the log of runs that can be resumed.

    Before the first reader comes, a window of events is kept; then those that a reader has still to read, and few
    more: a thousand streams are held at once.
    """

    run_id: str
    window: int = WINDOW
    clock: Callable[[], float] = time.time
    kept: Callable[[Event], None] | None = None
    events: deque[Event] = field(default_factory=deque)
    last: int = 0
    closed: bool = False
    _size: int = 0
    _gone: int = 0
    _places: dict[object, int] = field(default_factory=dict)
    _read: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, name: str, data: object) -> None:
        """Append an event."""
        # A copy: what orjson returns holds on to the buffer it was written in, several KiB for a small event.
        event = Event(self.last + 1, int(self.clock() * 1000), name, bytes(memoryview(encoded(data))))
        self.take(event)
        if self.kept is not None:
            self.kept(event)

    def take(self, event: Event) -> None:
        """Append an event that was made elsewhere."""
        self.last = event.seq
        self.events.append(event)
        self._size += len(event.data)
        self._trim()
        self._wake()

    def _trim(self) -> None:
        """Leave out what is beyond the window, and what everybody has read."""
        few = READ if self.kept is None else LOGGED
        read = min(self._places.values(), default=self._gone + len(self.events)) if self._read else self._gone
        while len(self.events) > 1 and (self._size > self.window or (self._size > few and self._gone < read)):
            self._size -= len(self.events.popleft().data)
            self._gone += 1

    def go_on(self, last: int) -> None:
        """Numbers go on above `last`: an earlier attempt, here or elsewhere, has told events up to there."""
        self.last = max(self.last, last)

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self.events[0].seq if self.events else self.last + 1

    def close(self) -> None:
        """No more events."""
        self.closed = True
        self._wake()

    async def follow(self, after: int = 0, *, idle: float | None = None) -> AsyncIterator[list[Event]]:
        """Every event with a higher number, as many at once as there are; nothing after `idle` seconds without any.

        Raises Behind when some of them are no longer kept.
        """
        reader, place = object(), self._gone + sum(event.seq <= after for event in self.events)
        self._read = True
        try:
            while True:
                self._places[reader] = place
                changed = self._changed
                if place < self._gone:
                    raise Behind(f"Reading run {self.run_id} is too slow; continue with Last-Event-ID.")
                come = list(islice(self.events, place - self._gone, None))
                place += len(come)
                # A mirror may still be behind a reader who comes from the run's own process.
                ready = [event for event in come if event.seq > after]
                if ready:
                    yield ready
                elif not come and self.closed:
                    return
                elif not come and not await _set(changed, idle):
                    yield []
        finally:
            del self._places[reader]

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _set(event: asyncio.Event, within: float | None) -> bool:
    """Wait for the event; False when it did not come within so many seconds."""
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
