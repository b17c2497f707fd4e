"""The events of one run, for any number of readers, from the first event or from the last."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from agentflow.errors import AgentflowError
from agentflow.protocols import RunRecord
from agentflow.runs.events import Stream
from agentflow.runs.graphs import Outcome
from agentflow.telemetry.metrics import TurnMeter
from agentflow.turn import Json


@dataclass
class Feed:
    """Grows until `close`; every reader sees every event in order.

    Of a run of the LangGraph protocol the events are in `stream`, and `outcome` is what it has come to; `place` is
    the run's in its thread. `placed`: of a run that began elsewhere, set once it is known which events will come.
    """

    run_id: str
    thread_id: str
    stream: Stream | None = None
    place: int = 0
    placed: asyncio.Event | None = None
    outcome: Outcome = field(default_factory=Outcome)
    events: list[Json] = field(default_factory=list)
    result: Json | None = None
    error: AgentflowError | None = None
    closed: bool = False
    meter: TurnMeter | None = None
    readers: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, record: RunRecord) -> "Feed":
        """The feed of a run as the ledger shows it."""
        return cls(record.run_id, record.thread_id)

    def add(self, event: Json) -> None:
        """Append an event; `done` carries the result."""
        if event["event"] == "done":
            self.result = {key: value for key, value in event.items() if key != "event"}
        self.events.append(event)
        self.count(event)
        self._wake()

    def count(self, event: Json) -> None:
        """Let the meter hear an event of a turn, whoever else does."""
        if self.meter is not None:
            self.meter(event)

    def close(self, error: AgentflowError | None = None) -> None:
        """No more events. An error after the result changes nothing for the reader."""
        self.error = None if self.result is not None or self.outcome.written else error
        self.closed = True
        if self.placed is not None:
            self.placed.set()
        if self.stream is not None:
            self.stream.close()
        if self.meter is not None:
            self.meter.end(self.error)
        self._wake()

    async def follow(self) -> AsyncGenerator[Json, None]:
        """Every event so far and to come."""
        position = 0
        self.readers += 1
        try:
            while True:
                changed = self._changed
                while position < len(self.events):
                    position += 1
                    yield self.events[position - 1]
                if self.closed:
                    return
                await changed.wait()
        finally:
            self.readers -= 1

    async def finished(self) -> Json:
        """The result, as soon as it is written. Raises the error that ended the run."""
        async with aclosing(self.follow()) as events:
            async for _ in events:
                if self.result is not None:
                    return self.result
        raise self.error or AgentflowError("The turn ended without a result.")

    async def ended(self) -> None:
        """Wait until there is nothing more to come."""
        async for _ in self.follow():
            pass

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
