"""What every home of memories does: one suite for the fake and for each place where vectors may be."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from agentflow.fakes.ledger import FakeLedger
from agentflow.fakes.pinecone import serve
from agentflow.memory.faiss import FaissHome
from agentflow.memory.langchain import LangChainHome
from agentflow.memory.pinecone import PineconeHome, PineconePlace
from agentflow.memory.postgres import PostgresMemory
from agentflow.memory.qdrant import QdrantHome
from agentflow.protocols import Ledger, MemoryHome, NewMemory, Outcome, Request, Scope, VectorHome
from agentflow.records.connections import open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.places import Places
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.vectors import VectorRecord
from agentflow.settings import Collection

MINE, EVES = Scope(0, "conversations", "default"), Scope(0, "conversations", "eve")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


@dataclass
class World:
    """A ledger, the memories it writes, and a way to let their vectors arrive where they are searched."""

    ledger: Ledger
    home: MemoryHome
    settle: Callable[[], Awaitable[object]]


async def nothing() -> None:
    """Vectors are where they belong."""


def vector_home(name: str, folder: Path, address: str) -> VectorHome | None:
    """Where the collection's vectors are searched; None: in Postgres."""
    homes: dict[str, Any] = {
        "postgres": lambda: None,
        "with postings": lambda: None,
        "faiss": lambda: FaissHome(2),
        "faiss files": lambda: FaissHome(2, folder),
        "qdrant": lambda: QdrantHome(2, "test"),
        "pinecone": lambda: PineconeHome(2, "test", PineconePlace("key", host=address, timeout=5)),
        "langchain": lambda: LangChainHome(
            lambda _, given: InMemoryVectorStore(given), "InMemoryVectorStore"
        ),
    }
    return homes[name]()


@pytest.fixture(
    params=["fake", "postgres", "with postings", "faiss", "faiss files", "qdrant", "pinecone", "langchain"]
)
async def world(
    request: pytest.FixtureRequest, fresh_database: Callable[[], str], tmp_path: Path
) -> AsyncIterator[World]:
    if request.param == "fake":
        ledger = FakeLedger()
        yield World(ledger, ledger.memory, nothing)
        return
    database = fresh_database()
    if request.param == "with postings":
        with psycopg.connect(database) as connection:
            connection.execute("alter table agentflow.scope alter posted set default true")
    with serve(2) as (address, _):
        connections = await open_connections(database, size=4)
        scopes = Scopes(connections, {"conversations": Collection()}, "test", 2)
        home = vector_home(request.param, tmp_path, address)
        homes = {"conversations": home} if home else {}
        places = Places(VectorRecord(connections, "test"), homes, {"conversations": 5.0})
        memory = PostgresMemory(connections, scopes, places)
        yield World(PostgresLedger(connections, scopes, worker="test"), memory, places.settle)
        await places.close()
        await connections.close()


async def remembered(world: World, *texts: str | tuple[str, list[float]], user: str = "default") -> None:
    """A finished turn with these memories."""
    lease = (await world.ledger.accept(Request(text="hi", user=user))).lease
    assert lease is not None
    pairs = [(one, None) if isinstance(one, str) else (one[0], np.float32(one[1])) for one in texts]
    items = [
        NewMemory("conversations", place, "user", text, vector, piece=place)
        for place, (text, vector) in enumerate(pairs)
    ]
    await world.ledger.finish(lease, Outcome("hi", {}, None, None, USAGE, 1, items))
    await world.settle()


async def found(world: World, text: str, vector: list[float] | None = None) -> list[str]:
    near = None if vector is None else np.float32(vector)
    return [one["content"] for one in await world.home.search(MINE, text, near, 9)]


async def test_memories_are_found_nearest_first_in_their_scope_only(world: World) -> None:
    await remembered(world, ("far", [0, 1]), user="default")
    await remembered(world, ("near", [1, 0]), user="default")
    best, worst = await world.home.search(MINE, "?", np.float32([1, 0]), 9)
    assert [(one["content"], one["speaker"], one["score"]) for one in (best, worst)] == [
        ("near", "user", 1.0),
        ("far", "user", 0.0),
    ]
    plain = {key: value for key, value in worst.items() if key != "why"}
    assert await world.home.fetch(MINE, [worst["id"]]) == [{**plain, "score": 0.0}]
    for other in (Scope(0, "conversations", "eve"), Scope(1, "conversations", "default")):
        assert await world.home.search(other, "near", np.float32([1, 0]), 9) == []


async def test_a_memory_is_found_by_its_words_before_it_has_a_vector(
    world: World,
) -> None:
    await remembered(world, "My dog is called Rex", "The weather is fine")
    assert (await found(world, "Which dogs?"))[0] == "My dog is called Rex"
    assert (await found(world, "Which dogs?", [1, 0]))[0] == "My dog is called Rex"


async def test_words_and_meaning_add_up(world: World) -> None:
    await remembered(world, ("a red dog", [0, 1]))
    await remembered(world, ("a red house", [0.6, 0.8]))
    await remembered(world, ("a green house", [0.6, 0.8]))
    assert (await found(world, "red", [1, 0]))[0] == "a red house"


async def test_a_neighbour_of_what_is_found_comes_with_it(world: World) -> None:
    await remembered(world, "Where is my umbrella", "Behind the door")
    await remembered(world, "Good morning", "Hello there")
    assert await found(world, "umbrella") == ["Where is my umbrella", "Behind the door"]


async def test_a_place_is_explained(world: World) -> None:
    await remembered(world, ("Is my dog called Rex?", [1, 0]))
    (one,) = await world.home.search(MINE, "a dog, Rex, and a cat", np.float32([0.6, 0.8]), 9)
    why = one["why"]
    assert why.pop("bm25") > 0
    assert why.pop("cosine") == pytest.approx(0.6, abs=0.001)
    assert sorted(why.pop("matched")) == ["dog", "rex"]
    assert why == {"related": 0.0, "question": -0.3, "neighbours": 0.0, "session": -0.09, "fused": -0.39}


async def test_a_scope_without_memories_has_none(world: World) -> None:
    assert await found(world, "anything", [1, 0]) == []
    await remembered(world, "Rex")
    assert await world.home.search(MINE, "", None, 9) == []


async def test_what_is_forgotten_is_not_found_by_words_nor_by_meaning(world: World) -> None:
    await remembered(world, ("a red dog", [1, 0]), ("a red cat", [0, 1]))
    (dog, *_) = await world.home.search(MINE, "dog", None, 9)
    assert await world.home.forget(EVES, [dog["id"]]) == 0
    assert await world.home.forget(MINE, [dog["id"]]) == 1
    await world.settle()
    assert await found(world, "a red dog", [1, 0]) == ["a red cat"]
    assert await world.home.fetch(MINE, [dog["id"]]) == []
    assert await world.home.forget(MINE, [dog["id"]]) == 0


async def test_a_scope_is_forgotten_whole_and_the_others_stay(world: World) -> None:
    await remembered(world, ("a dog", [1, 0]), ("a cat", [0, 1]))
    await remembered(world, ("a dog", [1, 0]), user="eve")
    assert await world.home.forget(MINE) == 2
    await world.settle()
    assert await found(world, "dog", [1, 0]) == []
    assert [one["content"] for one in await world.home.search(EVES, "dog", np.float32([1, 0]), 9)] == [
        "a dog"
    ]


async def test_what_a_role_keeps_private_no_other_finds(world: World) -> None:
    lease = (await world.ledger.accept(Request(text="hi"))).lease
    item = NewMemory("conversations", 0, "user", "my doctor is Ann", np.float32([1, 0]))
    await world.ledger.finish(lease, Outcome("hi", {}, "nurse", None, USAGE, 1, [item], private=True))
    await world.settle()
    own = replace(MINE, role="nurse")
    for scope, contents in ((own, ["my doctor is Ann"]), (MINE, []), (replace(MINE, role="clerk"), [])):
        found = await world.home.search(scope, "doctor", np.float32([1, 0]), 9)
        assert [one["content"] for one in found] == contents
