"""What a signal does to a server that has not started yet."""

import asyncio
import signal

from agentflow.cli import house


async def test_a_second_signal_does_not_disturb_what_is_tidied_up_for_the_first() -> None:
    tidied = []

    async def serve() -> None:
        house.starting()
        try:
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.02)
            tidied.append(True)

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.gather(serving, return_exceptions=True)
    assert (tidied, serving.cancelled()) == ([True], True)


async def test_a_signal_whose_cancellation_was_swallowed_is_not_lost() -> None:
    stop = house.starting()
    signal.raise_signal(signal.SIGTERM)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await house.until_signal(stop)
    assert stop.is_set()
