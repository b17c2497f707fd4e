"""A run's events for its readers, whichever process works on it: from memory while at hand, else from the log."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from agentflow.ending import end
from agentflow.errors import AgentflowError, DatabaseDown
from agentflow.protocols import Owner
from agentflow.records.protocol.events import EventLog, Row
from agentflow.records.protocol.runs import Runs
from agentflow.runs.events import Behind, Event, Stream
from agentflow.runs.feed import Feed
from agentflow.runs.wakes import Wakes, woken

log = structlog.get_logger(__name__)
PATIENCE = 15.0
"""Seconds after which a run elsewhere is looked at although nothing was heard of it: its process may have died."""
PAUSE = 1.0
"""Seconds until a lost database is asked again."""
FLUSHED = 0.1
"""Seconds in which what a run has told is in the log."""


@dataclass
class Following:
    """`here` are the runs of this process. A mirror is the feed of a run elsewhere, one for all its readers here."""

    runs: Runs
    log: EventLog
    wakes: Wakes
    here: dict[str, Feed]
    mirrors: dict[str, Feed] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def feed(self, run_id: str, thread_id: str, owner: Owner) -> Feed:
        """The feed of a run, whoever works on it; of an ended one it is closed soon."""
        known = self.here.get(run_id) or self.mirrors.get(run_id)
        if known is not None:
            return known
        feed = self.mirrors[run_id] = Feed(run_id, thread_id, Stream(run_id), placed=asyncio.Event())
        self.tasks[run_id] = asyncio.create_task(self._mirrored(feed, owner))
        return feed

    async def events(
        self, feed: Feed, owner: Owner, after: int | None, *, idle: float | None = None
    ) -> AsyncIterator[list[Event]]:
        """Every event with a higher number until the run's end; None: from now on. Nothing after `idle` seconds.

        Raises Behind when the reader was too slow and the run is not logged.
        """
        if feed.stream is None:
            await feed.ended()
            return
        if feed.placed is not None:
            await feed.placed.wait()
        stream = feed.stream
        seen = stream.last if after is None else after
        while True:
            if stream.first > seen + 1:
                async for events in self._logged(owner, feed.run_id, seen):
                    seen = events[-1].seq
                    yield events
            try:
                async for events in stream.follow(max(seen, stream.first - 1), idle=idle):
                    seen = events[-1].seq if events else seen
                    yield events
            except Behind:
                if not await self._reaches(owner, feed, seen):
                    raise
            else:
                return

    async def known(self, owner: Owner, run_id: str) -> list[Event]:
        """What a run has told so far, as far as it is kept."""
        found = [event async for events in self._logged(owner, run_id, 0) for event in events]
        feed = self.here.get(run_id)
        more = feed.stream.events if feed is not None and feed.stream is not None else ()
        last = found[-1].seq if found else 0
        return [*found, *(event for event in more if event.seq > last)]

    async def mirror(self, feed: Feed, owner: Owner) -> None:
        """Tell here what another process has logged since."""
        if feed.stream is None:
            return
        async for events in self._logged(owner, feed.run_id, feed.stream.last):
            for event in events:
                feed.stream.take(event)

    async def close(self) -> None:
        """Leave what runs elsewhere."""
        await end(self.tasks.values())

    async def _reaches(self, owner: Owner, feed: Feed, seen: int) -> bool:
        """Whether the log goes on where the reader stopped; what was told just now is not in it yet."""
        await asyncio.sleep(FLUSHED)
        rows = await self.log.read(owner, feed.run_id, seen, limit=1)
        return bool(rows) and rows[0][0] == seen + 1

    async def _logged(self, owner: Owner, run_id: str, after: int) -> AsyncIterator[list[Event]]:
        while rows := await self._read(owner, run_id, after):
            after = rows[-1][0]
            yield [Event(*row) for row in rows]

    async def _read(self, owner: Owner, run_id: str, after: int) -> list[Row]:
        """What is logged; a database that went away is waited for."""
        while True:
            try:
                return await self.log.read(owner, run_id, after)
            except DatabaseDown as down:
                log.warning("events wait for their database", run_id=run_id, reason=down.message)
                await asyncio.sleep(PAUSE)

    async def _mirrored(self, feed: Feed, owner: Owner) -> None:
        try:
            while not await self._elsewhere(feed, owner):  # noqa: ASYNC110 - nothing tells when it is back
                await asyncio.sleep(PAUSE)
        except AgentflowError as error:
            log.warning("run cannot be followed", run_id=feed.run_id, reason=error.message)
        finally:
            self.mirrors.pop(feed.run_id, None)
            self.tasks.pop(feed.run_id, None)
            if feed.placed is not None:
                feed.placed.set()
            feed.close()

    async def _elsewhere(self, feed: Feed, owner: Owner) -> bool:
        """Follow a run that another process works on; False when the database went away before it had ended."""
        try:
            await self._followed(feed, owner)
        except DatabaseDown as down:
            log.warning("a run elsewhere waits for its database", run_id=feed.run_id, reason=down.message)
            return False
        return True

    async def _followed(self, feed: Feed, owner: Owner) -> None:
        with self.wakes.on(feed.run_id) as event:
            going = await self.runs.watch(feed.run_id, tenant=owner.tenant)
            if feed.stream is not None and feed.placed is not None and not feed.placed.is_set():
                feed.stream.last = await self.log.last(owner, feed.run_id)
                feed.placed.set()
            while going:
                going = await self.runs.going(feed.run_id, tenant=owner.tenant)
                await self.mirror(feed, owner)
                if going:
                    await woken(event, within=PATIENCE)
