"""Vectors searched outside Postgres: filled, kept in step, missed by nobody, mended."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import numpy as np
import psycopg
import pytest

from agentflow.errors import HomeDown
from agentflow.fakes.vectors import FakeVectors
from agentflow.memory.faiss import FaissHome
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Scope, VectorHome
from agentflow.records.connections import Connections, open_connections
from agentflow.records.memory.indexes import build
from agentflow.records.memory.places import Places
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.vectors import Spot, VectorRecord
from agentflow.records.memory.writing import Archive
from agentflow.retrieval.codes import coded
from agentflow.settings import Collection

MINE = Scope(0, "conversations", "default")
RANDOM = np.random.default_rng(3)


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(database, size=8)
    yield opened
    await opened.close()


@pytest.fixture
def scopes(connections: Connections) -> Scopes:
    return Scopes(connections, {"conversations": Collection()}, "test", 2)


async def stored(connections: Connections, scopes: Scopes, number: int, *, first: int = 0) -> list[int]:
    """Ids of that many new memories with vectors."""
    vectors = RANDOM.normal(size=(number, 2)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [
        (UUID(int=first + n), NewMemory("conversations", n, "Ann", f"text {first + n}", vector))
        for n, vector in enumerate(vectors)
    ]
    archive = Archive(connections, scopes)
    return sorted((await archive.add(MINE, await archive.session(), 0, items)).values())


def places(connections: Connections, home: VectorHome, worker: str = "test") -> Places:
    return Places(VectorRecord(connections, worker), {"conversations": home})


async def rows(connections: Connections, query: str) -> list[tuple[object, ...]]:
    async with connections.background() as connection:
        return list(await (await connection.execute(query.encode())).fetchall())


async def spot(connections: Connections) -> Spot:
    return (await VectorRecord(connections, "test").spots(["conversations"]))[0]


def held(home: FakeVectors) -> list[int]:
    return sorted(one for scope in home.scopes.values() for one in scope)


async def test_a_place_is_filled_and_hears_of_every_change(connections: Connections, scopes: Scopes) -> None:
    home = FakeVectors()
    ids = await stored(connections, scopes, 5)
    told = places(connections, home)
    await told.settle()
    assert held(home) == ids
    more = await stored(connections, scopes, 2, first=5)
    await PostgresMemory(connections, scopes).forget(MINE, ids[:2])
    await rows(connections, f"update memory set embedding = null where id = {ids[2]} returning 1")  # noqa: S608
    await told.settle()
    assert held(home) == [*ids[3:], *more]


async def test_searching_goes_on_in_postgres_until_the_place_serves(
    connections: Connections, scopes: Scopes
) -> None:
    home = FakeVectors()
    told, vector = places(connections, home), np.float32([1, 0])
    memory = PostgresMemory(connections, scopes, told)
    await stored(connections, scopes, 20)
    before = await memory.search(MINE, "7", vector, 5)
    await told.settle()
    home.told.clear()
    assert await memory.search(MINE, "7", vector, 5) == before
    home.down = True
    with pytest.raises(HomeDown, match="a dictionary"):
        await memory.search(MINE, "7", vector, 5)
    assert (await memory.search(MINE, "7", None, 5))[0]["content"] == "text 7"


async def test_what_is_written_while_a_place_is_filled_is_not_missed(
    connections: Connections, scopes: Scopes, database: str
) -> None:
    """A transaction that began before the place was known ends after the filling would have passed it."""
    home = FakeVectors()
    told = places(connections, home)
    (first,) = await stored(connections, scopes, 1)
    with psycopg.connect(database, options="-c search_path=agentflow,public") as late:
        late.execute("update memory set embedding = null")
        late.execute("update memory set embedding = %s", coded(np.float32([[1, 0]])))
        assert await told.follow() == 1
        assert held(home) == []
        late.commit()
    await told.settle()
    assert held(home) == [first]


async def test_a_change_that_commits_behind_a_later_one_is_not_missed(
    connections: Connections, scopes: Scopes, database: str
) -> None:
    home = FakeVectors()
    told = places(connections, home)
    ids = await stored(connections, scopes, 1)
    await told.settle()
    with psycopg.connect(database, options="-c search_path=agentflow,public") as late:
        late.execute(f"delete from memory where id = {ids[0]}")  # noqa: S608
        more = await stored(connections, scopes, 1, first=1)
        await told.follow()
        late.commit()
    await told.settle()
    assert held(home) == more


async def test_filling_goes_on_where_a_killed_process_was(connections: Connections, scopes: Scopes) -> None:
    home = FakeVectors(lasting=True)
    ids = await stored(connections, scopes, 1200)
    first = places(connections, home)
    first.clock = iter(range(0, 10**6, 11)).__next__
    home.put, put = dying(home.put, after=1), home.put  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await first.settle()
    home.put = put  # type: ignore[method-assign]
    await rows(connections, "update vector_place set lease_until = now() returning 1")
    home.told.clear()
    await places(connections, home, "another").settle()
    assert held(home) == ids
    assert [one for _, one in home.told] == ids[500:]


def dying(put, *, after: int):
    """The process ends in the middle."""
    calls = []

    async def limited(scope, ids, vectors) -> None:
        calls.append(scope)
        if len(calls) > after:
            raise RuntimeError
        await put(scope, ids, vectors)

    return limited


async def test_two_processes_do_not_tell_one_place(connections: Connections, scopes: Scopes) -> None:
    home = FakeVectors(lasting=True)
    await stored(connections, scopes, 3)
    await asyncio.gather(*(places(connections, home, f"worker {n}").settle() for n in range(3)))
    assert len(home.told) == 3


async def test_a_process_that_only_asks_finds_the_place_that_another_tells(
    connections: Connections, scopes: Scopes
) -> None:
    home, vector = FakeVectors(lasting=True), np.float32([1, 0])
    await stored(connections, scopes, 3)
    await places(connections, home, "teller").settle()
    asking = places(connections, home, "asking")
    place = await scopes.find(0, "conversations", "default")
    assert await asking.nearest("conversations", place, vector, 3) is None
    await asking.follow()
    assert len(await asking.nearest("conversations", place, vector, 3) or []) == 3


async def test_a_place_that_lost_its_content_is_filled_again(
    connections: Connections, scopes: Scopes
) -> None:
    home = FakeVectors(lasting=True)
    ids = await stored(connections, scopes, 3)
    first = places(connections, home)
    await first.settle()
    await first.close()
    home.scopes.clear()
    await places(connections, home).settle()
    assert held(home) == ids


async def test_an_emptied_folder_is_another_place_and_filled_again(
    connections: Connections, scopes: Scopes, tmp_path: Path
) -> None:
    await stored(connections, scopes, 3)
    home = FaissHome(2, tmp_path / "vectors")
    told = places(connections, home)
    await told.settle()
    for file in (tmp_path / "vectors").iterdir():
        file.unlink()
    await told.settle()
    place = await scopes.find(0, "conversations", "default")
    assert await home.count(place.scope_id) == 3
    assert await rows(connections, "select place from vector_place") == [(home.place,)]
    await told.close()


async def test_a_folder_whose_name_is_broken_is_another_place(tmp_path: Path) -> None:
    (tmp_path / "place").write_bytes(b"\0" * 12)
    home = FaissHome(2, tmp_path)
    await home.open()
    assert re.fullmatch(f"faiss in {tmp_path} #[0-9a-f]{{12}}", home.place)


@pytest.mark.parametrize("broken", ["npz", "faiss"])
async def test_a_broken_file_is_filled_again(
    connections: Connections, scopes: Scopes, tmp_path: Path, broken: str
) -> None:
    await stored(connections, scopes, 3)
    told = places(connections, FaissHome(2, tmp_path))
    await told.settle()
    await told.close()
    place = await scopes.find(0, "conversations", "default")
    (tmp_path / f"{place.scope_id}.{broken}").write_bytes(b"no vectors at all")
    home = FaissHome(2, tmp_path)
    again = places(connections, home)
    await again.settle()
    assert await home.count(place.scope_id) == 3
    await again.close()


async def test_a_proof_counts_and_mends(connections: Connections, scopes: Scopes) -> None:
    home = FakeVectors()
    ids = await stored(connections, scopes, 6)
    told = places(connections, home)
    await told.settle()
    whole = await told.prove(await spot(connections))
    scope = next(number for number, items in home.scopes.items() if items)
    home.scopes[scope].pop(ids[0])
    home.scopes[scope][10**6] = np.float32([1, 0])
    assert await told.prove(await spot(connections)) == whole
    assert (whole.items, held(home)) == (6, ids)
    (status,) = await told.record.status()
    assert (status.items, status.digest, status.waiting) == (6, whole.digest.hex(), 0)


async def test_an_index_tells_places_nothing(connections: Connections, scopes: Scopes) -> None:
    home = FakeVectors()
    ids = await stored(connections, scopes, 3)
    told = places(connections, home)
    await told.settle()
    home.told.clear()
    await build(connections, (await spot(connections)).collection, 2)
    await told.settle()
    assert (held(home), home.told) == (ids, [])


async def test_a_log_that_everybody_has_heard_is_pruned(connections: Connections, scopes: Scopes) -> None:
    home = FakeVectors(lasting=True)
    told = places(connections, home)
    await told.settle()
    await stored(connections, scopes, 3)
    await told.settle()
    await told.close()
    await stored(connections, scopes, 1, first=3)
    await told.record.prune()
    assert len(await rows(connections, "select from vector_log")) <= 4
    await rows(connections, "update vector_place set updated_at = now() - interval '8 days' returning 1")
    await told.record.prune()
    assert await rows(connections, "select place from vector_place") == []
    assert await rows(connections, "select from vector_log") == []


async def test_without_places_nothing_is_noted(connections: Connections, scopes: Scopes) -> None:
    await stored(connections, scopes, 3)
    assert await rows(connections, "select from vector_log") == []


async def test_a_move_is_live_and_empties_the_former_place(connections: Connections, scopes: Scopes) -> None:
    here, there = FakeVectors("here"), FakeVectors("there")
    told, vector = places(connections, here), np.float32([1, 0])
    memory = PostgresMemory(connections, scopes, told)
    ids = await stored(connections, scopes, 5)
    await told.settle()
    before = await memory.search(MINE, "3", vector, 5)
    await told.move("conversations", there)
    there.down = True
    await told.follow()
    assert await memory.search(MINE, "3", vector, 5) == before
    assert (held(here), told.homes) == (ids, {"conversations": here})
    assert list(told.trouble) == ["there"]
    there.down = False
    await told.settle()
    assert told.trouble == {}
    assert (held(here), held(there), told.homes) == ([], ids, {"conversations": there})
    assert await memory.search(MINE, "3", vector, 5) == before
    assert [one.place for one in await told.record.status()] == ["there"]


async def test_a_move_back_to_postgres_leaves_nothing_behind(
    connections: Connections, scopes: Scopes
) -> None:
    home = FakeVectors()
    told = places(connections, home)
    await stored(connections, scopes, 5)
    await told.settle()
    await told.move("conversations", None)
    assert (held(home), told.homes, await told.record.status()) == ([], {}, [])
    assert len(await PostgresMemory(connections, scopes, told).search(MINE, "3", np.float32([1, 0]), 5)) == 5


async def test_another_move_gives_up_the_one_under_way(connections: Connections, scopes: Scopes) -> None:
    first, second = FakeVectors("first", down=True), FakeVectors("second")
    told = Places(VectorRecord(connections, "test"))
    ids = await stored(connections, scopes, 2)
    await told.move("conversations", first)
    await told.follow()
    first.down = False
    await told.move("conversations", second)
    await told.settle()
    assert (held(first), held(second)) == ([], ids)
