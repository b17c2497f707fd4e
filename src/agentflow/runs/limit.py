"""How long a run may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentflow.errors import EngineTimeout


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """The body is cancelled after `seconds`. Raises EngineTimeout then."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        message = f"The turn took longer than server.turn_seconds = {seconds:g}."
        raise EngineTimeout(message) from None
