"""The end of a run of the protocol is written, whatever the database does at that moment."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentflow.errors import DatabaseDown, LeaseLost
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Lease
from agentflow.records.connections import Connections, open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.scopes import Scopes
from agentflow.records.protocol.accepting import Accepting, NewRun
from agentflow.records.protocol.runs import Ending, Runs
from agentflow.runs.multitask import decide


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


async def begun(connections: Connections) -> Lease:
    new = NewRun("five_steps", "00000000-0000-4000-8000-000000000001", {}, 0, "ann")
    lease = (await Accepting(connections, decide, "t").accept(new)).lease
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
