"""What is borrowed from a pool comes back, whatever becomes of the borrower."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from agentflow.errors import DatabaseDown
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import NewMemory, Outcome, Owner, Request
from agentflow.records.connections import Connections, open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.portable import Portable
from agentflow.records.memory.rights import Owner as Person
from agentflow.records.memory.scopes import Scopes

MINE = Owner(0, "default")
LINE = b'{"uid": "%d", "collection": "c%d", "kind": "fact", "speaker": "user", "content": "x", "session": 1}'
BORROWERS = 24
Borrow = Callable[[Connections], Awaitable[None]]


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(database, size=2)
    yield opened
    await opened.close()


async def one_statement(connections: Connections) -> None:
    async with connections.use(MINE) as connection:
        await connection.execute("select pg_sleep(0.002)")


async def a_pipeline(connections: Connections) -> None:
    async with connections.use(MINE) as connection, connection.pipeline():
        await connection.execute("select pg_sleep(0.001)")
        await connection.execute("select 1")


async def a_transaction(connections: Connections) -> None:
    async with connections.use(MINE) as connection, connection.transaction():
        await connection.execute("select pg_sleep(0.001)")


async def dropped(work: Awaitable[None], after: float, then: float) -> None:
    """Cancelled, and again while it tidies up: the server does so for a client that has gone."""
    task = asyncio.ensure_future(work)
    for wait in (after, then):
        await asyncio.sleep(wait)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def all_are_back(connections: Connections) -> None:
    """As many borrowers at once as there are connections get one each, hold it until all have one, and own it."""
    full = asyncio.Barrier(2)

    async def hold() -> None:
        async with connections.use(MINE) as connection:
            await full.wait()
            found = await connection.execute("select agentflow.user_ref()")
            assert await found.fetchone() == ("default",)

    await asyncio.gather(hold(), hold())


@pytest.mark.parametrize("borrow", [one_statement, a_pipeline, a_transaction])
async def test_a_borrower_that_is_cancelled_twice_loses_no_connection(
    connections: Connections, borrow: Borrow
) -> None:
    moments = np.random.default_rng(3)

    async def client() -> None:
        for _ in range(20):
            await dropped(borrow(connections), moments.random() * 0.03, moments.random() * 0.003)

    await asyncio.gather(*(client() for _ in range(BORROWERS)))
    await all_are_back(connections)


async def test_a_connection_that_was_left_in_the_middle_is_not_lent_again(connections: Connections) -> None:
    async with connections.use(MINE) as connection:
        connection.pgconn.enter_pipeline_mode()
    async with connections.use(MINE) as connection:
        await connection.set_autocommit(value=False)
        await connection.execute("select 1")
    await all_are_back(connections)


async def test_a_busy_pool_is_waited_for_longer_than_a_lost_database(database: str) -> None:
    opened = await open_connections(database, size=2, patience=3.0)
    long = [asyncio.create_task(held(opened, 0.4)) for _ in range(18)]
    await asyncio.gather(*long)
    await opened.close()


async def test_a_process_that_was_paused_takes_a_busy_pool_for_no_lost_database(database: str) -> None:
    opened = await open_connections(database, size=2, patience=1.0)
    async with opened.use(MINE), opened.use(MINE):
        waiting = asyncio.create_task(one_statement(opened))
        await asyncio.sleep(0.01)
        time.sleep(1.2)  # noqa: ASYNC251 - nothing of this process goes on meanwhile
        await asyncio.sleep(0.01)
    await waiting
    await opened.close()


async def test_a_pool_from_which_nothing_comes_back_is_a_lost_database(database: str) -> None:
    opened = await open_connections(database, size=2, patience=0.2)
    async with opened.use(MINE), opened.use(MINE):
        with pytest.raises(DatabaseDown, match=r"no connection came back within 0\.2 s"):
            await one_statement(opened)
    await one_statement(opened)
    await opened.close()


async def held(connections: Connections, seconds: float) -> None:
    async with connections.use(MINE) as connection:
        await connection.execute("select pg_sleep(%s)", (seconds,))


async def test_a_borrower_cancelled_in_the_queue_leaves_its_turn_to_the_next(
    connections: Connections,
) -> None:
    async with connections.use(MINE), connections.use(MINE):
        waiting = [asyncio.create_task(one_statement(connections)) for _ in range(4)]
        await asyncio.gather(*(dropped(task, 0.01, 0) for task in waiting[:3]))
    await waiting[3]
    await all_are_back(connections)


async def test_runs_that_all_begin_at_once_finish_with_two_connections(connections: Connections) -> None:
    ledger = PostgresLedger(
        connections, Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim), worker="t"
    )
    usage: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0}

    async def turn(number: int) -> str:
        lease = (await ledger.accept(Request(text="hi", user=f"user-{number}"))).lease
        assert lease is not None
        item = NewMemory(f"c{number}", 0, "user", "hi", None)
        await ledger.finish(lease, Outcome(f"{number}", {}, None, None, usage, 1, [item]))
        return (await ledger.find(lease.run_id, tenant=0)).status

    assert await asyncio.gather(*(turn(number) for number in range(32))) == ["done"] * 32


async def test_imports_into_new_collections_at_once_do_not_wait_for_each_other(
    connections: Connections,
) -> None:
    portable = Portable(connections, Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim))

    async def lines(number: int) -> AsyncIterator[bytes]:
        yield LINE % (number, number)

    taken = await asyncio.gather(*(portable.take(Person(0, f"user-{n}"), lines(n)) for n in range(8)))
    assert [one["imported"] for one in taken] == [1] * 8
