"""Words near in meaning: learnt once, looked up in a search."""

from collections.abc import Sequence

import numpy as np
import pytest

from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.memory.postgres.statements import EXACT, INDEXED, VAST
from agentflow.protocols import NewMemory, Outcome, Request, Scope, Vectors
from agentflow.records.connections import Connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.forget import Forgetting, Selector
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.vocabulary import READ

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
MINE = Scope(0, "conversations", "default")
MEANINGS = {"hobby": [1, 0.1, 0], "painting": [1, 0.2, 0], "sailing": [1, 0.3, 0], "kettle": [0, 0, 1]}


class Dictionary(FakeEmbedder):
    """Knows what a few words mean; all else means the same."""

    dim = 3

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self.failing:
            return await super().embed(texts)
        found = np.float32([MEANINGS.get(text, [0.1, 0.1, 0.1]) for text in texts])
        return found / np.linalg.norm(found, axis=1, keepdims=True)


async def said(connections: Connections, *texts: str, user: str = "default") -> Scopes:
    scopes = Scopes(connections, {}, "test", 3)
    ledger = PostgresLedger(connections, scopes, worker="test")
    for text in texts:
        lease = (await ledger.accept(Request(text="hi", user=user))).lease
        assert lease is not None
        item = NewMemory("conversations", 0, "user", text)
        await ledger.finish(lease, Outcome("hi", {}, None, None, USAGE, 1, [item]))
    return scopes


async def words(connections: Connections) -> list[tuple[object, ...]]:
    async with connections.background() as connection:
        cursor = await connection.execute("select word, embedding is not null from word order by word")
        return list(await cursor.fetchall())


async def test_a_question_finds_what_its_words_are_near_to(connections: Connections) -> None:
    scopes = await said(connections, "My hobby", "She was painting", "The kettle boils", "sailing")
    await Outbox(connections, Dictionary()).drain()
    found = await PostgresMemory(connections, scopes).search(MINE, "hobby", None, 9)
    assert [one["content"] for one in found] == ["My hobby", "She was painting", "sailing"]
    assert [(one["why"]["related"] > 0, one["why"]["matched"]) for one in found] == [
        (False, ["hobby"]),
        (True, []),
        (True, []),
    ]


async def test_words_are_learnt_once_and_only_those_that_mean_something(connections: Connections) -> None:
    outbox = Outbox(connections, Dictionary())
    for _ in range(2):
        await said(connections, "It was the 3rd kettle, я 10 kettles")
        await outbox.drain()
    assert await words(connections) == [("kettle", True)]
    assert await outbox.learn() == 0


async def test_words_wait_for_an_embedder_that_is_down(connections: Connections) -> None:
    embedder = Dictionary()
    outbox = Outbox(connections, embedder)
    await said(connections, "kettle")
    await outbox.drain(limit=1)
    async with connections.background() as connection:
        await connection.execute("update word set embedding = null")
    embedder.failing = True
    assert (await outbox.learn(), await words(connections)) == (0, [("kettle", False)])
    embedder.failing = False
    assert (await outbox.learn(), await words(connections)) == (1, [("kettle", True)])


async def test_other_languages_are_left_alone(connections: Connections) -> None:
    await said(connections, "Ich habe einen Kessel")
    await Outbox(connections, Dictionary()).drain()
    assert await words(connections) == []


def test_every_neighbour_that_a_search_asks_for_is_written() -> None:
    assert all(reach.near <= READ for reach in (EXACT, INDEXED, VAST))


@pytest.mark.parametrize("posted", [False, True], ids=["read whole", "with postings"])
async def test_words_that_nobody_else_says_are_forgotten_with_their_memory(
    connections: Connections, posted: bool
) -> None:
    async with connections.maintenance() as owner:
        await owner.execute(f"alter table scope alter posted set default {posted}".encode())
    await said(connections, "painting a kettle", user="ann")
    await said(connections, "sailing with hobbies", "kettle", user="bob")
    await Outbox(connections, Dictionary()).drain()
    receipt = await Forgetting(connections).forget(Owner(0, "bob"), Selector("text", "sailing"))
    assert receipt["counts"]["words"] == 2
    assert await words(connections) == [("kettle", True), ("painting", True)]
    async with connections.background() as connection:
        left = await (await connection.execute("select nearest from word where nearest <> '{}'")).fetchall()
    assert left == []


async def test_a_word_keeps_its_nearest_and_no_more(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they are learnt in many batches."""
    embedder = Dictionary()
    names = [f"w{chr(97 + n)}" * 2 for n in range(14)]
    for place, name in enumerate(names):
        monkeypatch.setitem(MEANINGS, name, [1, place / 20, 0])
    await said(connections, " ".join(names))
    outbox = Outbox(connections, embedder)
    await outbox.drain(limit=3)
    while await outbox.learn(limit=3):
        pass
    async with connections.background() as connection:
        cursor = await connection.execute("select word, nearest from word where word = any(%s)", (names,))
        kept = dict(await cursor.fetchall())
    assert {len(nearest) for nearest in kept.values()} == {READ}
    assert all(nearest == sorted(set(nearest), reverse=True) for nearest in kept.values())
