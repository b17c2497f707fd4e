"""What goes by itself, and what stays."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from agentflow.protocols import NewMemory, Owner, Scope
from agentflow.records.checkpoints import TurnSaver
from agentflow.records.connections import Connections
from agentflow.records.memory import rights
from agentflow.records.memory.forget import Forgetting
from agentflow.records.memory.holdings import Holdings
from agentflow.records.memory.retention import Retention
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.writing import Archive
from agentflow.settings import Collection

ANN, SEEN = rights.Owner(0, "ann"), Owner(0, "ann")
DAY = 86400.0
HERS = Scope(0, "conversations", "ann")


def retention(
    connections: Connections, *, ttl: float | None = None, keep: float | None = 7 * DAY
) -> Retention:
    collections = {"conversations": Collection(ttl=ttl)}
    return Retention(connections, Forgetting(connections), collections, keep)


async def remembered(connections: Connections, *texts: str) -> None:
    scopes = Scopes(connections, {}, "test", 2)
    items = [(UUID(int=n), NewMemory("conversations", n, "user", text)) for n, text in enumerate(texts)]
    await Archive(connections, scopes).add(HERS, 1, 0, items)


async def changed(connections: Connections, statement: str) -> None:
    async with connections.background() as connection:
        await connection.execute(statement.encode())


async def left(connections: Connections) -> list[str]:
    found = await rights.Rights(connections, Scopes(connections, {}, "test", 2)).listed(ANN, rights.Filter())
    return [one["content"] for one in found]


async def test_expired_memories_are_forgotten_with_their_words_and_pinned_ones_stay(
    connections: Connections,
) -> None:
    await remembered(connections, "old dog", "pinned dog", "young dog")
    await changed(
        connections,
        "update memory set pinned = content like 'pinned%', "
        "expires_at = case when content not like 'young%' then now() - interval '1 minute' end",
    )
    assert (await retention(connections).sweep())["memories"] == 1
    assert await left(connections) == ["young dog", "pinned dog"]
    async with connections.background() as connection:
        cursor = await connection.execute("select count(*), (select sum(n_docs) from scope) from memory")
        assert await cursor.fetchone() == (2, 2)


async def test_a_collection_may_give_its_memories_a_time(connections: Connections) -> None:
    await remembered(connections, "old dog", "young dog")
    await changed(
        connections, "update memory set created_at = now() - interval '91 days' where content like 'old%'"
    )
    assert (await retention(connections).sweep())["memories"] == 0
    assert (await retention(connections, ttl=90 * DAY).sweep())["memories"] == 1
    assert await left(connections) == ["young dog"]


async def stored(connections: Connections, thread: str, number: int, days: float, **versions: str) -> None:
    """A checkpoint of `days` ago with these channels, too large for its row; new versions bring their blobs."""
    moment = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    values = {"channel_values": {key: ["text" * 100] for key in versions}, "channel_versions": versions}
    checkpoint = {"v": 4, "id": f"{number:04}", "ts": moment, **values, "versions_seen": {}}
    put = await TurnSaver(connections, SEEN).aput(config, checkpoint, {}, versions)
    await TurnSaver(connections, SEEN).aput_writes(put, [("a", "x")], f"task-{number}")


async def counts(connections: Connections) -> tuple[int, int, int]:
    async with connections.background() as connection:
        cursor = await connection.execute(
            "select (select count(*) from langgraph.checkpoints), (select count(*) from langgraph.checkpoint_blobs), "
            "(select count(*) from langgraph.checkpoint_writes)"
        )
        return await cursor.fetchone()


async def test_of_old_checkpoints_the_latest_stays_with_all_that_it_names(connections: Connections) -> None:
    await stored(connections, "t1", 1, 30, a="1", b="1")
    await stored(connections, "t1", 2, 20, a="2", b="1")
    await stored(connections, "t1", 3, 10, a="3", b="1")
    await stored(connections, "t2", 4, 10, a="1")
    assert await counts(connections) == (4, 5, 4)
    assert (await retention(connections).sweep())["checkpoints"] == 2
    assert await counts(connections) == (2, 3, 2)
    saver = TurnSaver(connections, SEEN)
    kept = await saver.aget_tuple({"configurable": {"thread_id": "t1", "checkpoint_ns": ""}})
    assert kept.checkpoint["channel_values"] == {"a": ["text" * 100], "b": ["text" * 100]}


async def test_young_checkpoints_stay_and_none_goes_where_all_are_kept(connections: Connections) -> None:
    await stored(connections, "t1", 1, 30, a="1")
    await stored(connections, "t1", 2, 1, a="2")
    await stored(connections, "t1", 3, 0, a="3")
    assert (await retention(connections, keep=None).sweep())["checkpoints"] == 0
    assert (await retention(connections).sweep())["checkpoints"] == 1
    assert (await counts(connections))[0] == 2


async def test_holdings_count_what_is_there_and_owed(connections: Connections) -> None:
    await remembered(connections, "old dog", "young dog")
    told = await Holdings(connections).now(ANN)
    (one,) = told["collections"]
    assert (one["memories"], one["turns"], one["owed"], told["owed"]["vectors"]) == (2, 2, 2, 2)
    assert one["bytes"] > 100
    assert (await Holdings(connections).now(rights.Owner(0, "bob")))["collections"] == []
    everybodys = await Holdings(connections).now(rights.Owner(0, "bob", shared=True))
    assert everybodys["collections"][0]["memories"] == 2
    assert "agentflow.memory" in [table["table"] for table in everybodys["tables"]]
