"""The outbox: vectors that a turn owes are paid once, or later."""

import numpy as np
import pytest

from agentflow.errors import SchemaMismatch
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Outcome, Request, Scope
from agentflow.records.connections import Connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.scopes import Scopes

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
MINE = Scope(0, "conversations", "default")


def scopes(connections: Connections, model: str = FakeEmbedder.id, dim: int = FakeEmbedder.dim) -> Scopes:
    return Scopes(connections, {}, model, dim)


async def remembered(connections: Connections, text: str) -> None:
    ledger = PostgresLedger(connections, scopes(connections), worker="test")
    lease = (await ledger.accept(Request(text="hi"))).lease
    assert lease is not None
    item = NewMemory("conversations", 0, "user", text, None)
    await ledger.finish(lease, Outcome("hi", {}, None, None, USAGE, 1, [item]))


async def test_an_owed_vector_is_filled_in_and_found(connections: Connections) -> None:
    embedder = FakeEmbedder()
    outbox = Outbox(connections, embedder)
    await remembered(connections, "My dog is called Rex")
    assert (await outbox.waiting())[0] == 1
    assert await outbox.drain() == 1
    assert (await outbox.waiting())[0] == 0
    home = PostgresMemory(connections, scopes(connections))
    found = await home.search(MINE, "?", (await embedder.embed(["My dog is called Rex"]))[0], 1)
    assert [(one["content"], one["score"]) for one in found] == [
        ("My dog is called Rex", pytest.approx(1, abs=0.01))
    ]


async def test_an_embedder_that_is_down_delays_the_vector_and_keeps_the_reason(
    connections: Connections,
) -> None:
    embedder = FakeEmbedder()
    outbox = Outbox(connections, embedder)
    await remembered(connections, "My dog is called Rex")
    embedder.failing = True
    await outbox.drain()
    async with connections.background() as connection:
        cursor = await connection.execute("select attempts, last_error, not_before > now() from outbox")
        assert await cursor.fetchall() == [(1, "The fake embedder was told to fail.", True)]
    assert await outbox.drain() == 0


async def test_two_relays_send_a_row_once(connections: Connections) -> None:
    await remembered(connections, "once")
    async with connections.background() as first, first.transaction():
        await first.execute("select from outbox for update skip locked")
        assert await Outbox(connections, FakeEmbedder()).drain() == 0


async def test_a_collection_refuses_vectors_of_another_embedder(connections: Connections) -> None:
    await remembered(connections, "hi")
    home = PostgresMemory(connections, scopes(connections, "another", 2))
    with pytest.raises(SchemaMismatch, match="holds vectors of fake"):
        await home.search(MINE, "hi", np.float32([1, 0]), 1)
