"""Memories as a LangGraph store: read, never written."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from agentflow.errors import BadInput
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.memory.store import MemoryStore
from agentflow.protocols import NewMemory, Owner, Scope
from agentflow.records.connections import open_connections
from agentflow.records.memory.rights import Rights
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.writing import Archive

HERS = ("memories", "conversations")


@pytest.fixture
async def store(database: str) -> AsyncIterator[MemoryStore]:
    connections = await open_connections(database, size=4)
    scopes = Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)
    for user, text in (
        ("ann", "My dog is called Rex"),
        ("ann", "I like chess"),
        ("bob", "My dog is called Tom"),
    ):
        item = NewMemory("conversations", 0, "user", text)
        source = UUID(int=hash(text) & ((1 << 64) - 1))
        await Archive(connections, scopes).add(Scope(0, "conversations", user), 1, 0, [(source, item)])
    home, rights = PostgresMemory(connections, scopes), Rights(connections, scopes)
    yield MemoryStore(home, rights, FakeEmbedder(), Owner(0, "ann"), ("conversations",))
    await connections.close()


async def test_a_search_finds_the_users_own_best_first(store: MemoryStore) -> None:
    found = await store.asearch(HERS, query="What is my dog called?", limit=5)
    assert found[0].value["content"] == "My dog is called Rex"
    assert found[0].namespace == HERS
    assert "My dog is called Tom" not in [one.value["content"] for one in found]


async def test_an_item_is_read_by_its_number(store: MemoryStore) -> None:
    (first, *_) = await store.asearch(HERS)
    assert (await store.aget(HERS, first.key)).value == first.value
    assert await store.aget(HERS, "999999") is None
    assert await store.aget(("elsewhere",), first.key) is None
    assert await store.alist_namespaces() == [HERS]


async def test_filters_choose_by_what_an_item_says_of_itself(store: MemoryStore) -> None:
    assert len(await store.asearch(("memories",), filter={"speaker": "user"})) == 2
    assert await store.asearch(("memories",), filter={"speaker": "assistant"}) == []


async def test_nothing_is_written_through_it(store: MemoryStore) -> None:
    with pytest.raises(BadInput, match="say them in a turn"):
        await store.aput(HERS, "1", {"content": "x"})
