"""Runs of the LangGraph protocol as the worker executes them: their streams, their log, their end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from agentflow.ending import end
from agentflow.errors import AgentflowError, DatabaseDown, LeaseLost
from agentflow.protocols import Lease, Ledger
from agentflow.records.protocol.accepting import Accepting
from agentflow.records.protocol.events import EventLog, Row
from agentflow.records.protocol.runs import Ending, Runs
from agentflow.runs.events import Event, Stream
from agentflow.runs.feed import Feed
from agentflow.runs.graphs import GraphRuns, Outcome
from agentflow.runs.limit import within
from agentflow.runs.registry import OWN
from agentflow.runs.wakes import Wakes
from agentflow.turn import Json

log = structlog.get_logger(__name__)
FLUSH = 0.05
"""Seconds between two writes of a run's events."""
PAUSE = 1.0
"""Seconds until a lost database is tried again."""
LOGGED = 8 << 20
"""Bytes of one run's events that are logged; its end is told in any case."""
AHEAD = 1000
"""Numbers left out before a new attempt: the last one has told its own readers more than it could log."""


@dataclass
class Owed:
    """Events that are still to be logged, and how much the run may still log."""

    events: list[Event] = field(default_factory=list)
    room: int = LOGGED
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def keep(self, event: Event) -> None:
        """Note an event; nothing more once the run has logged as much as it may."""
        self.room -= len(event.data)
        if self.room >= 0:
            self.events.append(event)
            self.wanted.set()

    async def pay(self, append: Callable[[list[Row]], Awaitable[None]]) -> None:
        """Log them; each is owed until that is committed. A write broken off is done again, and adds nothing twice."""
        async with self.writing:
            due = list(self.events)
            if due:
                await append([(one.seq, one.at, one.name, one.data) for one in due])
                del self.events[: len(due)]
            if not self.events:
                self.wanted.clear()


@dataclass
class ProtocolRuns:
    """What the worker asks for a run that has `work`."""

    ledger: Ledger
    runs: Runs
    accepting: Accepting
    graphs: GraphRuns
    log: EventLog
    wakes: Wakes
    owed: dict[str, Owed] = field(default_factory=dict)

    def begin(self, feed: Feed, work: Json, *, watched: bool = False, attempt: int = 1) -> None:
        """Give the feed a stream, logged where somebody elsewhere may read it; its first event is there at once.

        Of a later attempt the first number is not known yet: `placed` is set when it is.
        """
        feed.stream = Stream(feed.run_id)
        if watched or work.get("stream_resumable"):
            self.watched(feed)
        if attempt == 1:
            feed.stream.add("metadata", {"run_id": feed.run_id, "attempt": attempt})
        else:
            feed.placed = asyncio.Event()

    def watched(self, feed: Feed) -> None:
        """Log the feed's events from now on; of a run that has not begun, all of them."""
        if feed.stream is None or feed.stream.kept is not None:
            return
        feed.stream.kept = self.owed.setdefault(feed.run_id, Owed()).keep
        for event in feed.stream.events if feed.stream.last == 1 else ():
            feed.stream.kept(event)

    def left(self, run_id: str) -> None:
        """The run has ended, or another process works on it: what was to be logged here is dropped."""
        self.owed.pop(run_id, None)

    async def execute(self, feed: Feed, lease: Lease, *, seconds: float) -> None:
        """Run to the committed end; what is logged is logged before that. EngineTimeout after `seconds`."""
        stream = feed.stream or Stream(feed.run_id)
        if lease.attempt > 1:
            await self._again(feed, stream, lease)
        flushing = asyncio.create_task(self._flushing(lease))
        try:
            work = self.graphs.execute(
                lease, stream, feed.outcome, counted=feed.count, before_end=lambda: self._flush(lease)
            )
            await within(seconds, work)
            feed.outcome.written = True
        except (DatabaseDown, LeaseLost):
            raise
        except AgentflowError as error:
            stream.add("error", error_shown(error))
            raise
        finally:
            await end([flushing])
            await self._flushed(lease)

    async def _again(self, feed: Feed, stream: Stream, lease: Lease) -> None:
        """Another attempt begins: above what the last one has told, and with nothing of what it came to."""
        stream.go_on(await self.log.last(lease.owner, lease.run_id) + AHEAD)
        if feed.placed is not None:
            feed.placed.set()
        feed.outcome = Outcome()
        stream.add("metadata", {"run_id": lease.run_id, "attempt": lease.attempt})

    async def stopped(self, feed: Feed, lease: Lease, how: str) -> None:
        """Write the end of a run that was asked to stop. Raises LeaseLost."""
        await self.graphs.stopped(lease, how, feed.outcome.told)
        feed.outcome.written = True

    async def failed(self, feed: Feed, lease: Lease, error: Json) -> None:
        """Write why the run failed, and how far its thread has come. Raises LeaseLost and DatabaseDown."""
        if (lease.work or {}).get("on_completion") == "delete":
            await self.runs.forget_thread(lease)
        elif lease.graph == OWN:
            await self.ledger.fail(lease, error, final=True)
        else:
            await self.runs.finish(lease, Ending("error", "error", feed.outcome.state(), error=error))

    async def _flushing(self, lease: Lease) -> None:
        owed = self.owed.setdefault(lease.run_id, Owed())
        while True:
            await owed.wanted.wait()
            await asyncio.sleep(FLUSH if await self._flushed(lease) else PAUSE)

    async def _flush(self, lease: Lease) -> None:
        if owed := self.owed.get(lease.run_id):
            await owed.pay(partial(self.log.append, lease))

    async def _flushed(self, lease: Lease) -> bool:
        try:
            await self._flush(lease)
        except DatabaseDown as error:
            log.warning("events of a run are not logged yet", run_id=lease.run_id, reason=error.message)
            return False
        return True


def error_shown(error: AgentflowError) -> Json:
    """A run's error as its readers see it."""
    kind = getattr(error, "kind", type(error).__name__)
    return {"error": kind, "message": error.message}
