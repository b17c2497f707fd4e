"""Tasks that are told to stop, until they have."""

import asyncio
import os
import threading
from collections.abc import Iterable
from typing import Any

AGAIN = 5.0
"""Seconds that a task has to tidy up before it is told again."""


async def end(tasks: Iterable[asyncio.Future[Any]], *, again: float = AGAIN) -> None:
    """Cancel them and wait for the last; what they raise or return is nobody's any more.

    Once is not enough: a cancellation is lost where a database driver raises its own error for the statement that
    was under way, or where what was waited for arrives in the same step of the loop.
    """
    told = list(tasks)
    pending = {task for task in told if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again)
    await asyncio.gather(*told, return_exceptions=True)


def leave(*, seconds: float = AGAIN) -> None:
    """The process ends within `seconds`: Python itself would wait for a graph's thread that never returns."""
    last = threading.Timer(seconds, os._exit, (0,))
    last.daemon = True
    last.start()
