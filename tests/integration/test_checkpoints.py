"""Checkpoints are thin, plain, and never the record."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentflow import graph as graphs
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.fakes.engine import FakeEngine
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import Owner, Request
from agentflow.records.checkpoints import TurnSaver
from agentflow.records.connections import Connections, open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.scopes import Scopes
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.routing.intents import Intents
from agentflow.runs.worker import Worker
from agentflow.settings import Settings


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(database, size=4)
    yield opened
    await opened.close()


@pytest.fixture
async def worker(connections: Connections) -> Worker:
    """A worker whose only stand-ins are engine and embedder."""
    embedder, engine, settings = FakeEmbedder(), FakeEngine(), Settings()
    scopes = Scopes(connections, settings.collections, embedder.id, embedder.dim)
    ledger = PostgresLedger(connections, scopes, worker="test")
    classifier = Intents(embedder, [], settings.router)
    await classifier.open()
    keeper = AdapterKeeper(engine, {}, Budgets(1))
    home = PostgresMemory(connections, scopes)
    needs = graphs.Needs(ledger, classifier, embedder, home, engine, keeper, [], settings, graphs.no_fault)
    return Worker(ledger, graphs.build(needs), lambda owner: TurnSaver(connections, owner), 30)


async def test_a_thread_keeps_one_small_checkpoint_per_turn_without_a_word_of_the_conversation(
    worker: Worker, database: str
) -> None:
    thread = None
    for number in range(20):
        feed = await worker.start(Request(text=f"unmistakable words {number}", thread_id=thread))
        thread = (await feed.finished())["thread_id"]
    await worker.close(grace=5)
    with psycopg.connect(database, options="-c search_path=langgraph") as connection:
        assert connection.execute("select count(*) from checkpoints").fetchone() == (20,)
        dumped = connection.execute("select checkpoint::text, metadata::text from checkpoints").fetchall()
        blobs = connection.execute("select blob from checkpoint_blobs where blob is not null").fetchall()
        size = connection.execute(
            "select sum(pg_total_relation_size(c)) from unnest(array['checkpoints', 'checkpoint_blobs',"
            " 'checkpoint_writes']::regclass[]) c"
        ).fetchone()
    everything = str(dumped) + str(blobs)
    assert "unmistakable" not in everything
    assert size is not None
    assert size[0] < 1_000_000


async def test_nothing_but_plain_data_is_revived(connections: Connections) -> None:
    loose = JsonPlusSerializer(allowed_msgpack_modules=True)
    dangerous = loose.dumps_typed(Request(text="a type of ours"))
    assert TurnSaver(connections, Owner(0)).serde.loads_typed(dangerous) != Request(text="a type of ours")
