"""Tasks are told to stop until they have."""

import asyncio

import pytest

from agentflow.ending import end


async def test_a_task_that_swallows_its_cancellation_is_told_again() -> None:
    told = 0

    async def deaf() -> None:
        nonlocal told
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
                if told == 3:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await end([task], again=0.01)
    assert (told, task.cancelled()) == (3, True)


async def test_a_task_that_tidies_up_is_waited_for() -> None:
    tidied = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            tidied.append(True)

    task = asyncio.create_task(tidy())
    await asyncio.sleep(0)
    await end([task])
    assert tidied == [True]


@pytest.mark.parametrize("error", [None, ValueError("broke")])
async def test_what_has_ended_already_is_left_as_it_is(error: Exception | None) -> None:
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    done.set_exception(error) if error else done.set_result("said")
    await end([done])
    assert (done.cancelled(), done.exception()) == (False, error)
