"""What a run's log is owed stays owed until it is committed."""

import asyncio

import pytest

from agentflow.errors import DatabaseDown
from agentflow.runs.events import Event
from agentflow.runs.protocol import Owed


class Log:
    """Keeps rows; waits for `open`, as a slow database does, and fails first where it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.rows: list[int] = []
        self.open = asyncio.Event()
        self.failure = failure

    async def append(self, rows: list[tuple[int, int, str, bytes]]) -> None:
        failure, self.failure = self.failure, None
        if failure:
            raise failure
        await self.open.wait()
        self.rows += [row[0] for row in rows]


def owing(*numbers: int) -> Owed:
    owed = Owed()
    for number in numbers:
        owed.keep(Event(number, 0, "values", b"{}"))
    return owed


async def test_a_write_that_is_broken_off_is_done_again() -> None:
    owed, log = owing(1, 2), Log()
    writing = asyncio.create_task(owed.pay(log.append))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    log.open.set()
    await owed.pay(log.append)
    assert (log.rows, owed.events, owed.wanted.is_set()) == ([1, 2], [], False)


async def test_a_database_that_is_down_loses_no_event() -> None:
    owed, log = owing(1), Log(DatabaseDown("gone"))
    log.open.set()
    with pytest.raises(DatabaseDown):
        await owed.pay(log.append)
    assert owed.wanted.is_set()
    await owed.pay(log.append)
    assert log.rows == [1]


async def test_what_comes_during_a_write_is_owed_after_it() -> None:
    owed, log = owing(1), Log()
    writing = asyncio.create_task(owed.pay(log.append))
    await asyncio.sleep(0)
    owed.keep(Event(2, 0, "values", b"{}"))
    log.open.set()
    await writing
    assert ([one.seq for one in owed.events], owed.wanted.is_set()) == ([2], True)
