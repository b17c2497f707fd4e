"""Limits in the table: windows that slide, processes that die, a database that is down."""

import asyncio

import psycopg

from agentflow.protocols import Allowance
from agentflow.records.connections import Connections
from agentflow.records.spending import PostgresSpending

SO_MANY = Allowance(requests=None, hits=100, seconds=86400)


def changed(database: str, statement: str) -> list[tuple]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("set role agentflow_background")
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def test_of_the_window_before_only_the_rest_counts(database: str, connections: Connections) -> None:
    mine = PostgresSpending(connections, "a")
    assert await mine.begin("ann", SO_MANY) is None
    changed(database, "update agentflow.spending set slot = slot - 1, hits = 1000000")
    refusal = await mine.begin("ann", SO_MANY)
    assert refusal is not None
    assert 1 <= refusal.wait <= 86400
    changed(database, "update agentflow.spending set slot = slot - 2, hits = 1000000, before = 1000000")
    assert await mine.begin("ann", SO_MANY) is None


async def test_no_more_than_allowed_however_many_ask_at_once(connections: Connections) -> None:
    several = [PostgresSpending(connections, name) for name in "abcd"]
    asked = [one.begin("ann", Allowance(None, 10, 86400)) for one in several for _ in range(10)]
    assert sum(refusal is None for refusal in await asyncio.gather(*asked)) == 10


async def test_what_a_dead_process_has_open_is_forgotten(database: str, connections: Connections) -> None:
    one, at_once = PostgresSpending(connections, "b"), Allowance(1, None)
    assert await PostgresSpending(connections, "dead").begin("ann", at_once) is None
    assert await one.begin("ann", at_once) is not None
    changed(database, "update agentflow.spending set open = jsonb_set(open, '{dead,1}', '0')")
    assert await one.begin("ann", at_once) is None


async def test_a_long_request_is_told_again_and_an_ended_one_no_more(
    database: str, connections: Connections
) -> None:
    mine = PostgresSpending(connections, "a")
    await mine.begin("ann", Allowance(5, None))
    changed(database, "update agentflow.spending set open = '{}'")
    await mine.tell()
    ((count,),) = changed(database, "select open -> 'a' -> 0 from agentflow.spending")
    mine.end("ann")
    await mine.tell()
    assert (count, changed(database, "select open from agentflow.spending")) == (1, [({},)])


async def test_callers_are_told_by_digests_and_not_for_long(database: str, connections: Connections) -> None:
    mine = PostgresSpending(connections, "a")
    await mine.begin("0:ann", SO_MANY)
    assert "ann" not in str(changed(database, "select * from agentflow.spending"))
    changed(database, "update agentflow.spending set seen = now() - interval '3 days'")
    await mine.forget()
    assert changed(database, "select * from agentflow.spending") == []


async def test_without_a_database_each_counts_alone(connections: Connections) -> None:
    mine = PostgresSpending(connections, "a")
    await connections.close()
    assert await mine.begin("ann", Allowance(1, 1)) is None
    refusal = await mine.begin("ann", Allowance(1, 1))
    assert refusal is not None
    assert refusal.limit == "requests"
