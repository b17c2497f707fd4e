"""How long a run may take, and what becomes of one that does not end when it is told to."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from agentflow.errors import EngineTimeout

log = structlog.get_logger(__name__)
GRACE = 4.0
"""Seconds that a cancelled run has to tidy up; less than until a stop tells it again (`ending.AGAIN`)."""
TOLD = 2
"""How often it is cancelled in that time: once may be lost (`ending.end` says where)."""


async def within(seconds: float, work: Coroutine[Any, Any, None], *, grace: float = GRACE) -> None:
    """Do the work, which is cancelled after `seconds`, or with this task. Raises EngineTimeout after `seconds`.

    A graph is other people's code and may swallow its cancellation: after `grace` it is left to itself, so that its
    run ends, its thread is free and this process can stop. The run's fence keeps out what it still writes.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        if await _cancelled(task, grace):
            raise
    else:
        if not task.done() and await _cancelled(task, grace):
            message = f"The turn took longer than server.turn_seconds = {seconds:g}."
            raise EngineTimeout(message)
    task.result()


async def _cancelled(task: asyncio.Task[None], grace: float) -> bool:
    """Whether it was; not if it came to its end all the same."""
    task.add_done_callback(_heard)
    for _ in range(TOLD):
        task.cancel()
        await asyncio.wait({task}, timeout=grace / TOLD)
        if task.done():
            break
    if not task.done():
        log.warning("a run goes on although it was cancelled; it is left to itself", seconds=grace)
    return not task.done() or task.cancelled()


def _heard(task: asyncio.Task[None]) -> None:
    """What it raises in the end is nobody's any more."""
    if not task.cancelled():
        task.exception()
