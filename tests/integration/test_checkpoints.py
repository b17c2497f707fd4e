"""Checkpoints are thin, plain, and never the record."""

from functools import partial

import psycopg
import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentflow import graph as graphs
from agentflow.errors import GenerationFailed
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.fakes.engine import FakeEngine
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import Owner, Request
from agentflow.records.checkpoints import TurnSaver
from agentflow.records.connections import Connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.scopes import Scopes
from agentflow.records.own_checkpoints import OwnSaver
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.routing.intents import Intents
from agentflow.runs.attempts import Attempts
from agentflow.runs.graphs import fenced
from agentflow.runs.worker import Worker
from agentflow.settings import Settings


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def worker(connections: Connections, engine: FakeEngine) -> Worker:
    """A worker whose only stand-ins are engine and embedder."""
    embedder, settings = FakeEmbedder(), Settings()
    scopes = Scopes(connections, settings.collections, embedder.id, embedder.dim)
    ledger = PostgresLedger(connections, scopes, worker="test")
    classifier = Intents(embedder, [], settings.router)
    await classifier.open()
    keeper = AdapterKeeper(engine, {}, Budgets(1))
    home = PostgresMemory(connections, scopes)
    needs = graphs.Needs(ledger, classifier, embedder, home, engine, keeper, [], settings, graphs.no_fault)
    saver = partial(OwnSaver, connections)
    return Worker(ledger, Attempts(ledger, graphs.build(needs), saver, 30))


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
    assert size[0] < 250_000


def bound(worker: Worker, thread: str):
    """The graph over the thread's checkpoints, and the thread's config."""
    graph = worker.attempts.graph.copy({"checkpointer": worker.attempts.saver(Owner(0, "default"))})
    return graph, {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


async def test_a_finished_turns_checkpoint_has_its_values_from_its_run(worker: Worker, database: str) -> None:
    result = await (await worker.start(Request(text="hello"))).finished()
    await worker.close(grace=5)
    graph, config = bound(worker, result["thread_id"])
    state = await graph.aget_state(config)
    kept = ("run_id", "thread_id", "role", "adapter", "selection", "intent", "memory", "finish", "usage")
    assert {key: state.values[key] for key in kept} == {key: result[key] for key in kept}
    assert list(state.values["timings"]) == [*result["timings"], "remember"]
    assert (state.values["status"], state.values["memory_ids"], state.next) == ("done", [], ())
    with psycopg.connect(database, options="-c search_path=langgraph") as connection:
        (stored,) = connection.execute("select checkpoint from checkpoints").fetchone()
    assert set(stored) == {"v", "ts", "turn"}


async def test_a_turn_that_fails_after_one_that_ended_keeps_all_it_had(
    worker: Worker, engine: FakeEngine
) -> None:
    result = await (await worker.start(Request(text="hello"))).finished()
    engine.failure = GenerationFailed("no")
    feed = await worker.start(Request(text="again", thread_id=result["thread_id"]))
    with pytest.raises(GenerationFailed):
        await feed.finished()
    await worker.close(grace=5)
    graph, config = bound(worker, result["thread_id"])
    state = await graph.aget_state(config)
    assert (state.values["run_id"], state.next) == (feed.run_id, ("generate",))


async def test_a_finished_turns_state_may_be_changed(worker: Worker) -> None:
    result = await (await worker.start(Request(text="hello"))).finished()
    await worker.close(grace=5)
    graph, config = bound(worker, result["thread_id"])
    await graph.aupdate_state(config, {"role": "coder"})
    state = await graph.aget_state(config)
    assert (state.values["role"], state.values["selection"], state.next) == ("coder", result["selection"], ())


async def test_nothing_but_plain_data_is_revived(connections: Connections) -> None:
    loose = JsonPlusSerializer(allowed_msgpack_modules=True)
    dangerous = loose.dumps_typed(Request(text="a type of ours"))
    assert TurnSaver(connections, Owner(0)).serde.loads_typed(dangerous) != Request(text="a type of ours")


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, None, True, {"b": 0.25}]},
        [-0.0],
        [1e300],
        {1: "a"},
        ["\0"],
        ["word " * 99],
        [[[[1]]]],
    ],
)
async def test_a_value_comes_back_as_it_was_beside_its_checkpoint_or_in_it(
    connections: Connections, value
) -> None:
    saver = TurnSaver(connections, Owner(0, "ann"))
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    values = {"channel_values": {"a": value}, "channel_versions": {"a": "1"}, "versions_seen": {}}
    put = await saver.aput(config, {"v": 4, "id": "1", "ts": "", **values}, {}, {"a": "1"})
    found = await saver.aget_tuple(put)
    assert repr(found.checkpoint["channel_values"]["a"]) == repr(value)


async def test_small_values_are_part_of_a_checkpoints_row(connections: Connections, database: str) -> None:
    saver = TurnSaver(connections, Owner(0, "ann"))
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    values = {"channel_values": {"a": {"ms": 0.25}, "b": ["word " * 99]}, "versions_seen": {}}
    versions = {"a": "1", "b": "1"}
    await saver.aput(
        config, {"v": 4, "id": "1", "ts": "", **values, "channel_versions": versions}, {}, versions
    )
    with psycopg.connect(database, options="-c search_path=langgraph") as connection:
        assert connection.execute("select channel from checkpoint_blobs").fetchall() == [("b",)]


async def test_a_turn_takes_less_than_27_kilobytes_with_its_words_and_its_checkpoint(
    worker: Worker, database: str
) -> None:
    async def said(numbers: range, thread: str | None) -> str:
        for number in numbers:
            text = " ".join(f"w{number * 31 % 200 + place}" for place in range(45))
            thread = (await (await worker.start(Request(text=text, thread_id=thread))).finished())[
                "thread_id"
            ]
        return thread

    def grown() -> int:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("vacuum")
            found = connection.execute(
                "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' "
                "and relnamespace in ('agentflow'::regnamespace, 'langgraph'::regnamespace)"
            )
            return int(found.fetchone()[0])

    thread = await said(range(10), None)
    before = grown()
    await said(range(10, 50), thread)
    await worker.close(grace=5)
    assert (grown() - before) / 40 < 27_000


async def test_an_attempt_that_another_has_replaced_writes_no_more_steps(worker: Worker, connections) -> None:
    lease = (await worker.ledger.accept(Request(text="hi", user="ann"))).lease
    await worker.ledger.fail(lease, {}, final=False)
    newer = await worker.ledger.claim(lease.run_id)
    stale, current = (fenced(TurnSaver(connections, lease.owner), one) for one in (lease, newer))
    config = {"configurable": {"thread_id": lease.thread_id, "checkpoint_ns": ""}}
    mine = await current.aput(config, step("1"), {}, {"a": "1"})
    late = await stale.aput(mine, step("2"), {}, {"a": "2"})
    for saver, place in ((stale, late), (stale, mine), (current, mine)):
        await saver.aput_writes(place, [("a", repr(saver.attempt))], "task")
    found = await TurnSaver(connections, lease.owner).aget_tuple(config)
    assert (found.checkpoint["id"], found.pending_writes) == ("1", [("task", "a", repr(current.attempt))])


def step(number: str) -> dict:
    """A checkpoint with one value that has a row of its own."""
    values = {"channel_values": {"a": ["word " * 99]}, "channel_versions": {"a": number}, "versions_seen": {}}
    return {"v": 4, "id": number, "ts": "", **values}
