"""Who waits hears both what wakes and what stops it."""

import asyncio

import pytest

from agentflow.runs.wakes import woken


@pytest.mark.parametrize("steps", range(4))
async def test_a_stop_that_comes_with_the_wake_is_not_lost(steps: int) -> None:
    event = asyncio.Event()

    async def listen() -> None:
        while True:
            await woken(event, within=60)

    listening = asyncio.create_task(listen())
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.wait([listening], timeout=30)
    assert listening.cancelled()
