"""A run of the protocol is lost neither in its middle nor at its end, whatever the database does at that moment."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agentflow.errors import DatabaseDown, LeaseLost, TurnFailed
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Lease, Owner
from agentflow.records.connections import Connections, open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.scopes import Scopes
from agentflow.records.protocol.accepting import Accepting, NewRun
from agentflow.records.protocol.events import EventLog
from agentflow.records.protocol.runs import Ending, Runs
from agentflow.runs.attempts import Attempts
from agentflow.runs.events import Stream
from agentflow.runs.feed import Feed
from agentflow.runs.graphs import Outcome
from agentflow.runs.multitask import decide
from agentflow.runs.protocol import ProtocolRuns
from agentflow.runs.wakes import Wakes
from agentflow.runs.worker import Worker


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(database, size=2)
    yield opened
    await opened.close()


@dataclass(frozen=True)
class Shaky(Runs):
    """Loses its database: `before` the statement has reached it, or `after` its commit."""

    losses: list[str] = field(default_factory=list)

    async def _ended(self, *given: Any) -> object | None:
        when = self.losses.pop(0) if self.losses else None
        row = None if when == "before" else await super()._ended(*given)
        if when is not None:
            raise DatabaseDown("gone")
        return row


NEW = NewRun("five_steps", "00000000-0000-4000-8000-000000000001", {}, 0, "ann")


async def begun(connections: Connections) -> Lease:
    lease = (await Accepting(connections, decide, "t").accept(NEW)).lease
    assert lease is not None
    return lease


async def status(connections: Connections, lease: Lease) -> str:
    found = await Runs(connections).get(lease.run_id, thread_id=None, tenant=0, user="ann")
    return str(found["status"])


@pytest.mark.parametrize("losses", [["before"], ["after"], ["before", "after"]])
async def test_an_end_is_written_although_the_database_goes_away(connections, losses) -> None:
    lease = await begun(connections)
    await Shaky(connections, losses).finish(lease, Ending("success", state='{"a": 1}'))
    assert await status(connections, lease) == "success"


@pytest.mark.parametrize("loss", ["before", "after"])
async def test_a_run_that_leaves_nothing_does_so_although_the_database_goes_away(connections, loss) -> None:
    lease = await begun(connections)
    await Shaky(connections, [loss]).forget_thread(lease)
    assert await Runs(connections).open_ones(tenant=0, user="ann") == []


async def test_a_stale_attempt_ends_nothing_when_the_database_is_back(connections) -> None:
    lease = await begun(connections)
    scopes = Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)
    ledger = PostgresLedger(connections, scopes, worker="other")
    await ledger.fail(lease, {}, final=False)
    assert await ledger.claim(lease.run_id) is not None
    with pytest.raises(LeaseLost):
        await Shaky(connections, ["before"]).finish(lease, Ending("success"))
    assert await status(connections, lease) == "running"


@dataclass
class Acts:
    """Stands for graphs: tells the number of each attempt, and loses its database in some."""

    runs: Runs
    losing: tuple[int, ...] = ()

    async def execute(
        self, lease: Lease, stream: Stream, _outcome: Outcome, *, before_end: Any, **_heard: Any
    ) -> None:
        stream.add("values", lease.attempt)
        if lease.attempt in self.losing:
            raise DatabaseDown("gone")
        await before_end()
        await self.runs.finish(lease, Ending("success"))


def working(connections: Connections, *losing: int) -> Worker:
    scopes = Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)
    ledger, runs = PostgresLedger(connections, scopes, worker="t"), Runs(connections)
    acts: Any = Acts(runs, losing)
    accepting, log = Accepting(connections, decide, "t"), EventLog(connections)
    protocol = ProtocolRuns(ledger, runs, accepting, acts, log, Wakes())
    nothing: Any = None
    return Worker(ledger, Attempts(ledger, nothing, nothing, 30, protocol=protocol))


async def told(worker: Worker, feed: Feed, after: int = 0) -> list[tuple[int, str, Any]]:
    """What a reader hears from a number on."""
    events = worker.following.events(feed, Owner(0, "ann"), after)
    return [(one.seq, one.name, json.loads(one.data)) async for some in events for one in some]


async def test_a_run_that_lost_its_database_goes_on_for_its_readers_with_the_next_attempt(
    connections,
) -> None:
    worker = working(connections, 1)
    _, feed = await worker.submit(replace(NEW, work={"stream_resumable": True}))
    found = await told(worker, feed)
    names = [("metadata", {"run_id": feed.run_id, "attempt": 1}), ("values", 1)]
    again = [("metadata", {"run_id": feed.run_id, "attempt": 2}), ("values", 2)]
    assert [one[1:] for one in found] == names + again
    logged = await EventLog(connections).read(Owner(0, "ann"), feed.run_id, 0)
    assert [one[0] for one in logged] == [one[0] for one in found] == sorted({one[0] for one in found})
    assert feed.error is None
    await worker.close(grace=1)


async def test_a_database_that_goes_away_in_every_attempt_ends_the_run(connections) -> None:
    worker = working(connections, 1, 2, 3)
    _, feed = await worker.submit(NEW)
    await feed.ended()
    assert isinstance(feed.error, TurnFailed)
    await worker.close(grace=1)


async def test_who_comes_back_while_a_run_is_taken_over_hears_first_what_was_logged_before(
    connections,
) -> None:
    lease = await begun(connections)
    rows = [(number, 0, "values", b"0") for number in (1, 2, 3)]
    await EventLog(connections).append(lease, rows)
    async with connections.background() as connection:
        await connection.execute("update run set lease_until = now() - interval '1 second'")
    worker = working(connections)
    assert await worker.recover() == 1
    found = await told(worker, worker.follow(lease.run_id, lease.thread_id, lease.owner), after=1)
    assert [one[0] for one in found] == [2, 3, 1004, 1005]
    await worker.close(grace=1)


@dataclass(frozen=True)
class Unsteady(Runs):
    """Loses its database the first times that it is asked about a run elsewhere."""

    lost: list[str] = field(default_factory=lambda: ["watch", "going"])

    async def watch(self, run_id: str, *, tenant: int) -> bool:
        self._steady("watch")
        return await super().watch(run_id, tenant=tenant)

    async def going(self, run_id: str, *, tenant: int) -> bool:
        self._steady("going")
        return await super().going(run_id, tenant=tenant)

    def _steady(self, asked: str) -> None:
        if asked in self.lost:
            self.lost.remove(asked)
            raise DatabaseDown("gone")


async def test_who_follows_a_run_elsewhere_goes_on_when_the_database_is_back(connections) -> None:
    lease = await begun(connections)
    await EventLog(connections).append(lease, [(1, 0, "values", b"0")])
    worker = working(connections)
    worker.following.runs = Unsteady(connections)
    reading = asyncio.create_task(told(worker, worker.follow(lease.run_id, lease.thread_id, lease.owner)))
    while worker.following.runs.lost:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.02)
    await Runs(connections).finish(lease, Ending("success"))
    worker.heard("run", lease.run_id, "")
    assert [one[0] for one in await reading] == [1]
    await worker.close(grace=1)
