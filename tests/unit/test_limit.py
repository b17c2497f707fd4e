"""How long a run may take, and what becomes of one that does not end when it is told to."""

import asyncio

import pytest

from agentflow.errors import EngineTimeout
from agentflow.runs.limit import within


async def deaf(until: asyncio.Event) -> None:
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


async def test_a_run_that_swallows_its_cancellation_is_left_to_itself() -> None:
    until = asyncio.Event()
    with pytest.raises(EngineTimeout, match=r"server.turn_seconds = 0.01"):
        await within(0.01, deaf(until), grace=0.02)
    until.set()


async def test_a_stop_does_not_wait_for_it_either() -> None:
    until = asyncio.Event()
    run = asyncio.create_task(within(60, deaf(until), grace=0.02))
    await asyncio.sleep(0)
    run.cancel()
    await asyncio.wait({run})
    assert run.cancelled()
    until.set()


async def test_a_run_ends_as_its_work_does() -> None:
    async def fails() -> None:
        raise ValueError

    await within(60, asyncio.sleep(0))
    with pytest.raises(ValueError):
        await within(60, fails())


async def test_what_ends_while_it_is_cancelled_has_ended() -> None:
    async def finishes() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    assert await within(0.01, finishes()) is None


async def test_a_run_that_takes_too_long_tidies_up() -> None:
    tidied = asyncio.Event()

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.set()

    with pytest.raises(EngineTimeout):
        await within(0.01, tidy())
    assert tidied.is_set()
