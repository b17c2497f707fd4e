"""Postings: eight bytes a word and memory, in blocks, for scopes that are too large to be read whole."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.memory.postgres.statements import EXACT, Reach
from agentflow.protocols import NewMemory, Scope
from agentflow.records.connections import Connections, open_connections
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.postings import COUNT, ENTRY, ITEM, LENGTH, LONG, SEALED, WHOLE, packed, settle
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.writing import Archive

MINE = Scope(0, "conversations", "default")
NUMBERS = st.tuples(st.integers(1, 2**39 - 1), st.integers(1, 32_767), st.integers(1, 32_767))
PACK = f"""
select {ENTRY.format(item="i", count="c", length="l")}
from unnest(%s::bigint[], %s::smallint[], %s::smallint[]) u(i, c, l)
"""  # noqa: S608 - constants
UNPACK = f"""
select {ITEM.format(entry="e")}, {COUNT.format(entry="e")}, {LENGTH.format(entry="e")} from unnest(%s) e
"""  # noqa: S608 - constants
ENTRIES = "select term, entry >> 24, block from posting cross join unnest(entries) entry order by 1, 2"
WRONG = """
select (select count(*) from (
          select p.scope_id, p.term from posting p group by 1, 2
          having sum(p.df) <> sum(cardinality(p.entries)) or sum(p.df) = 0) x),
       (select coalesce(sum(octet_length(bow)) / 6, 0) from memory) - (select coalesce(sum(df), 0) from posting),
       (select coalesce(sum(cardinality(entries)), 0) from posting)
         - (select count(*) from (select distinct term, entry >> 24 from posting cross join unnest(entries) entry) x)
"""


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(database, size=8)
    yield opened
    await opened.close()


@pytest.fixture
def scopes(connections: Connections) -> Scopes:
    return Scopes(connections, {}, "test", 2)


async def added(connections: Connections, scopes: Scopes, numbers: range, text: str = "dog {}") -> None:
    archive, random = Archive(connections, scopes), np.random.default_rng(1)
    items = [
        (UUID(int=n), NewMemory("conversations", n, "Ann", text.format(n), np.float32(random.normal(size=2))))
        for n in numbers
    ]
    await archive.add(MINE, await archive.session(), 0, items)


async def rows(connections: Connections, query: str) -> list[tuple[object, ...]]:
    async with connections.background() as connection:
        return list(await (await connection.execute(query.encode())).fetchall())


async def posted(connections: Connections) -> None:
    """Every scope has postings from now on."""
    await rows(
        connections,
        "insert into outbox (kind, payload) select 'post', jsonb_build_object('scope', id) from scope returning 1",
    )
    while await settle(connections):
        pass


@given(st.lists(NUMBERS, min_size=1))
def test_an_entry_is_packed_alike_here_and_there_and_loses_no_more_than_counts_above_255(
    postgres: str, numbers: list[tuple[int, int, int]]
) -> None:
    items, counts, lengths = (list(column) for column in zip(*numbers, strict=True))
    here = packed(np.array(items), np.array(counts), np.array(lengths)).tolist()
    with psycopg.connect(postgres) as connection:
        assert [one for (one,) in connection.execute(PACK, (items, counts, lengths))] == here
        unpacked = connection.execute(UNPACK, (here,)).fetchall()
    assert unpacked == list(zip(items, [min(count, 255) for count in counts], lengths, strict=True))


@pytest.mark.parametrize("vector", [None, np.float32([1, 0])], ids=["by words", "by both"])
@pytest.mark.parametrize("reach", [EXACT, Reach(own_postings=75)], ids=["all words", "rare words"])
async def test_a_scope_read_whole_is_searched_as_with_postings(
    connections: Connections, scopes: Scopes, monkeypatch: pytest.MonkeyPatch, vector, reach: Reach
) -> None:
    await added(connections, scopes, range(70), "dog {0} barks at number {0}")
    await added(connections, scopes, range(90, 160), "the cat {} sleeps")
    monkeypatch.setattr("agentflow.memory.postgres.home.EXACT", reach)
    home = PostgresMemory(connections, scopes)
    questions = ["cat 99", "does dog 7 bark?", "number", "nothing of it"]
    whole = [await home.search(MINE, question, vector, 20) for question in questions]
    await posted(connections)
    assert [await home.search(MINE, question, vector, 20) for question in questions] == whole
    assert [one["content"] for one in whole[0]][:1] == ["the cat 99 sleeps"]


async def test_a_scope_gets_postings_when_it_outgrows_being_read_whole(
    connections: Connections, scopes: Scopes
) -> None:
    await added(connections, scopes, range(WHOLE))
    assert (await settle(connections), await rows(connections, ENTRIES)) == (False, [])
    await added(connections, scopes, range(WHOLE, WHOLE + 1))
    home = PostgresMemory(connections, scopes)
    before = await home.search(MINE, "dog 17", None, 5)
    assert (await settle(connections), await settle(connections)) == (True, False)
    assert await home.search(MINE, "dog 17", None, 5) == before
    assert await rows(connections, WRONG) == [(0, 0, 0)]
    assert await rows(connections, "select posted from scope") == [(True,)]


async def test_a_scope_with_postings_has_vectors_that_pgvector_compares_and_only_such_a_one(
    connections: Connections, scopes: Scopes
) -> None:
    await added(connections, scopes, range(3))
    compared = "select count(embedding), count(vector) from memory"
    assert await rows(connections, compared) == [(3, 0)]
    await posted(connections)
    await added(connections, scopes, range(3, 5))
    assert await rows(connections, compared) == [(5, 5)]


async def test_vectors_that_arrive_while_a_scope_gets_postings_wait_for_them(
    connections: Connections, scopes: Scopes
) -> None:
    archive = Archive(connections, scopes)
    items = [(UUID(int=n), NewMemory("conversations", n, "Ann", f"dog {n}")) for n in range(3)]
    await archive.add(MINE, await archive.session(), 0, items)
    outbox = Outbox(connections, FakeEmbedder())
    await asyncio.gather(posted(connections), outbox.drain())
    assert await rows(connections, "select count(embedding), count(vector) from memory") == [(3, 3)]


async def test_sealing_loses_nothing_while_writers_go_on(connections: Connections, scopes: Scopes) -> None:
    await added(connections, scopes, range(1))
    await posted(connections)

    async def sealing() -> None:
        while True:
            await settle(connections)

    sealer = asyncio.create_task(sealing())
    await asyncio.gather(*(added(connections, scopes, range(n, n + 50)) for n in range(100, 1100, 50)))
    sealer.cancel()
    await posted(connections)
    assert await rows(connections, WRONG) == [(0, 0, 0)]
    sizes = await rows(connections, "select max(cardinality(entries)), max(block) >= 5 from posting")
    assert sizes == [(SEALED, True)]
    home = PostgresMemory(connections, scopes)
    assert (await home.search(MINE, "dog 512", None, 1))[0]["content"] == "dog 512"


async def test_a_long_block_is_told_to_be_sealed(connections: Connections, scopes: Scopes) -> None:
    await added(connections, scopes, range(1))
    await posted(connections)
    await added(connections, scopes, range(1, LONG - 1))
    assert not await settle(connections)
    await added(connections, scopes, range(LONG - 1, LONG))
    assert await settle(connections)


async def test_what_is_forgotten_leaves_every_block(connections: Connections, scopes: Scopes) -> None:
    await added(connections, scopes, range(300))
    await posted(connections)
    ids = [number for (number,) in await rows(connections, "select id from memory order by id")]
    home = PostgresMemory(connections, scopes)
    assert await home.forget(MINE, ids[1::2]) == 150
    assert await rows(connections, WRONG) == [(0, 0, 0)]
    assert {item for _, item, _ in await rows(connections, ENTRIES)} == set(ids[::2])
    assert await home.forget(MINE) == 150
    assert await rows(connections, "select * from posting") == []
