"""Memories in Postgres: exact counts, sessions, languages, partitions."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Outcome, Request, Scope
from agentflow.records.connections import Connections, open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.check import MemoryCheck
from agentflow.records.memory.indexes import VectorIndexes, build
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.writing import Archive
from agentflow.settings import Collection

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
MINE = Scope(0, "conversations", "default")
COUNTS = """
select (select count(*) from memory), (select sum(n_docs) from scope), (select sum(sum_len) from scope),
       (select sum(doc_len) from memory), (select sum(cardinality(entries)) from posting),
       (select sum(df) from posting), (select sum(octet_length(bow)) / 6 from memory)
"""


@pytest.fixture
async def connections(posted_database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(posted_database, size=8)
    yield opened
    await opened.close()


@pytest.fixture
def scopes(connections: Connections) -> Scopes:
    return Scopes(connections, {"conversations": Collection()}, "test", 2)


async def said(
    connections: Connections, scopes: Scopes, *texts: str, thread: str | None = None, **more: float
) -> str:
    """A turn with these memories; returns its thread."""
    ledger = PostgresLedger(connections, scopes, worker="test", **more)
    lease = (await ledger.accept(Request(text="hi", thread_id=thread))).lease
    assert lease is not None
    items = [NewMemory("conversations", place, "user", text, piece=place) for place, text in enumerate(texts)]
    await ledger.finish(lease, Outcome("hi", {}, None, None, USAGE, 1, items))
    return lease.thread_id


async def rows(connections: Connections, query: str) -> list[tuple[object, ...]]:
    async with connections.background() as connection:
        return list(await (await connection.execute(query.encode())).fetchall())


async def found(connections: Connections, scopes: Scopes, text: str) -> list[str]:
    return [one["content"] for one in await PostgresMemory(connections, scopes).search(MINE, text, None, 9)]


def assert_exact(counts: tuple[object, ...]) -> None:
    items, documents, length, lengths, postings, frequencies, terms = counts
    assert (documents, length, postings, frequencies) == (items, lengths, terms, terms)


async def test_counts_stay_exact_whatever_is_written_at_the_same_time(
    connections: Connections, scopes: Scopes
) -> None:
    await asyncio.gather(*(said(connections, scopes, f"dog number {n}", "a dog") for n in range(24)))
    (counts,) = await rows(connections, COUNTS)
    assert_exact(counts)
    assert counts[0] == 48


async def test_an_archive_written_twice_is_there_once(connections: Connections, scopes: Scopes) -> None:
    archive = Archive(connections, scopes)
    session = await archive.session()
    items = [(UUID(int=n), NewMemory("conversations", n, "Ann", f"dog {n}")) for n in range(3)]
    first = await archive.add(MINE, session, 0, items)
    assert [*first] == sorted(first, key=lambda source: first[source]) == [UUID(int=n) for n in range(3)]
    assert await archive.add(MINE, session, 0, items) == {}
    (counts,) = await rows(connections, COUNTS)
    assert_exact(counts)


async def test_memories_from_before_the_words_are_indexed_once(
    connections: Connections, scopes: Scopes
) -> None:
    await said(connections, scopes, "My dog is called Rex")
    await rows(connections, "update memory set bow = null, doc_len = 1 returning 1")
    await rows(
        connections,
        "with p as (delete from posting) update scope set n_docs = 0, sum_len = 0 returning 1",
    )
    await rows(
        connections,
        "insert into outbox (kind, item_id, collection_id) select 'index', id, collection_id "
        "from memory, generate_series(1, 2) returning 1",
    )
    await Outbox(connections, FakeEmbedder()).drain()
    assert await found(connections, scopes, "dogs") == ["My dog is called Rex"]
    (counts,) = await rows(connections, COUNTS)
    assert_exact(counts)


async def test_a_session_ends_with_a_pause_and_counts_anew(connections: Connections, scopes: Scopes) -> None:
    thread = await said(connections, scopes, "one", "two")
    await said(connections, scopes, "three", thread=thread)
    await said(connections, scopes, "four", thread=thread, pause=0.0)
    placed = await rows(
        connections, "select seq, dense_rank() over (order by session_id) from memory order by id"
    )
    assert placed == [(0, 1), (1, 1), (2, 1), (0, 2)]


@pytest.mark.parametrize(
    ("text", "asked", "lang"),
    [
        ("У моей собаки есть красный мячик", "Какого цвета мячики собак?", "russian"),
        ("Meine Katze mag die alten Häuser", "Welches Haus mag sie?", "german"),
        ("J'ai vendu les chevaux hier", "Qui a un cheval ?", "french"),
        ("Los perros duermen en la cocina", "¿Dónde duerme el perro?", "spanish"),
        ("我的狗叫雷克斯", "狗叫什么", "simple"),
    ],
)
async def test_forms_of_a_word_find_each_other(
    connections: Connections, scopes: Scopes, text: str, asked: str, lang: str
) -> None:
    await said(connections, scopes, "The weather was fine yesterday")
    await said(connections, scopes, text)
    assert (await found(connections, scopes, asked))[0] == text
    assert (lang,) in await rows(connections, "select lang from memory")


async def test_a_hidden_or_expired_memory_is_not_found(connections: Connections, scopes: Scopes) -> None:
    await said(connections, scopes, "a hidden dog", "an expired dog", "a dog")
    await rows(
        connections,
        "update memory set hidden = content like 'a hidden%', "
        "expires_at = case when content like 'an exp%' then now() end returning 1",
    )
    assert await found(connections, scopes, "dog") == ["a dog"]


async def test_a_collection_with_an_index_answers_as_before_and_takes_new_memories(
    connections: Connections, scopes: Scopes, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, vectors = (
        Archive(connections, scopes),
        np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32),
    )
    items = [
        (UUID(int=n), NewMemory("conversations", n * 9, "Ann", f"text {n}", v)) for n, v in enumerate(vectors)
    ]
    await archive.add(MINE, await archive.session(), 0, items)
    before = await PostgresMemory(connections, scopes).search(MINE, "7", vectors[3], 5)
    place = await scopes.find(0, "conversations", "default")
    assert [await build(connections, place.collection_id, 2) for _ in range(2)] == [True, False]
    scopes.known.clear()
    monkeypatch.setattr("agentflow.memory.postgres.home.LARGE", 1)
    assert await PostgresMemory(connections, scopes).search(MINE, "7", vectors[3], 5) == before
    await said(connections, scopes, "a new dog")
    assert await found(connections, scopes, "dog") == ["a new dog"]
    (counts,) = await rows(connections, COUNTS)
    assert_exact(counts)


async def crowd(connections: Connections, scopes: Scopes) -> NDArray[np.float32]:
    """One user with 1,200 memories and one with 40, whose vectors lie among them; returns the few."""
    random, archive = np.random.default_rng(2), Archive(connections, scopes)
    vectors = random.normal(size=(1240, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for user, mine in (("many", range(1200)), ("few", range(1200, 1240))):
        items = [(UUID(int=n), NewMemory("conversations", n * 9, "Ann", f"{n}", vectors[n])) for n in mine]
        await archive.add(Scope(0, "conversations", user), await archive.session(), 0, items)
    place = await scopes.find(0, "conversations", "few")
    await VectorIndexes(connections, scopes.indexed).grow(large=1000)
    assert scopes.indexed == {place.collection_id}
    return vectors[1200:]


async def test_the_check_tells_how_much_of_the_nearest_the_index_finds(connections: Connections) -> None:
    scopes = Scopes(connections, {}, "test", 16)
    await crowd(connections, scopes)
    told = await MemoryCheck(connections, scopes, SimpleNamespace(homes={})).look(0)
    (found,) = told["recall"]
    assert (found["by"], found["items"], found["recall"] > 0.9, told["mismatches"]) == (
        "index",
        1200,
        True,
        [],
    )


@pytest.mark.parametrize("large", [100, 1], ids=["searched exactly", "searched by the index"])
async def test_a_user_with_few_memories_among_many_finds_all_of_the_nearest(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    scopes = Scopes(connections, {}, "test", 16)
    vectors = await crowd(connections, scopes)
    monkeypatch.setattr("agentflow.memory.postgres.home.LARGE", large)
    home, shares = PostgresMemory(connections, scopes), []
    for asked in vectors[:10]:
        nearest = {str(1200 + n) for n in np.argsort(-vectors @ asked)[:10]}
        found = await home.search(Scope(0, "conversations", "few"), "?", asked, 10)
        shares.append(len(nearest & {one["content"] for one in found}) / 10)
    assert np.mean(shares) >= 0.95


async def test_an_index_that_was_not_finished_is_built_again(
    connections: Connections, scopes: Scopes
) -> None:
    place = await scopes.find(0, "conversations", "default")
    assert await build(connections, place.collection_id, 2)
    async with connections.maintenance() as owner:
        await owner.execute(
            "update pg_index set indisvalid = false where indexrelid = 'memory_c1_hnsw'::regclass"
        )
    assert await build(connections, place.collection_id, 2)
    assert not await build(connections, place.collection_id, 2)


async def test_a_vector_of_another_size_does_not_enter_an_index(
    connections: Connections, scopes: Scopes
) -> None:
    place = await scopes.find(0, "conversations", "default")
    await build(connections, place.collection_id, 2)
    archive = Archive(connections, scopes)
    item = NewMemory("conversations", 0, "Ann", "three", np.float32([1, 0, 0]))
    with pytest.raises(psycopg.errors.DataException, match="expected 2 dimensions, not 3"):
        await archive.add(MINE, 1, 0, [(UUID(int=1), item)])


async def test_counts_stay_exact_when_items_are_forgotten_while_others_come(
    connections: Connections, scopes: Scopes
) -> None:
    home = PostgresMemory(connections, scopes)
    await said(connections, scopes, *(f"dog number {n}" for n in range(12)))
    ids = [row[0] for row in await rows(connections, "select id from memory order by id limit 8")]
    writes = (said(connections, scopes, f"a new dog {n}") for n in range(8))
    await asyncio.gather(*writes, home.forget(MINE, ids[:4]), home.forget(MINE, ids[2:]))
    (counts,) = await rows(connections, COUNTS)
    assert_exact(counts)
    assert counts[0] == 12
