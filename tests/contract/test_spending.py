"""What callers use up: the double in memory and the table, which several processes share."""

from collections.abc import AsyncIterator, Callable

import pytest

from agentflow.fakes.spending import FakeSpending, Shared
from agentflow.protocols import Allowance, Spending
from agentflow.records.connections import open_connections
from agentflow.records.spending import PostgresSpending

SO_MANY = Allowance(requests=None, hits=3, seconds=3600)
AT_ONCE = Allowance(requests=2, hits=None)
Several = Callable[[], Spending]


@pytest.fixture(params=["fake", "postgres"])
async def another(request: pytest.FixtureRequest) -> AsyncIterator[Several]:
    """Makes what each process has of it."""
    if request.param == "fake":
        shared = Shared()
        yield lambda: FakeSpending(shared)
        return
    connections = await open_connections(request.getfixturevalue("database"), size=4)
    names = iter("abcdef")
    yield lambda: PostgresSpending(connections, next(names))
    await connections.close()


async def test_over_time_all_processes_count_together(another: Several) -> None:
    several = [another(), another()]
    for number in range(3):
        assert await several[number % 2].begin("ann", SO_MANY) is None
        several[number % 2].end("ann")
    for one in several:
        refusal = await one.begin("ann", SO_MANY)
        assert refusal is not None
        assert refusal.limit == "rate"
        assert 1 <= refusal.wait <= 3600
        assert await one.begin("bob", SO_MANY) is None


async def test_at_once_all_processes_count_together(another: Several) -> None:
    first, second = another(), another()
    assert await first.begin("ann", AT_ONCE) is None
    assert await second.begin("ann", AT_ONCE) is None
    for one in (first, second):
        refusal = await one.begin("ann", AT_ONCE)
        assert refusal is not None
        assert (refusal.limit, refusal.wait) == ("requests", 1.0)
    first.end("ann")
    if isinstance(first, PostgresSpending):
        await first.tell()
    assert await second.begin("ann", AT_ONCE) is None


async def test_what_is_refused_uses_up_nothing(another: Several) -> None:
    mine, both = another(), Allowance(requests=1, hits=2, seconds=3600)
    assert await mine.begin("ann", both) is None
    for _ in range(5):
        refusal = await mine.begin("ann", both)
        assert refusal is not None
        assert refusal.limit == "requests"
    mine.end("ann")
    assert await mine.begin("ann", both) is None
