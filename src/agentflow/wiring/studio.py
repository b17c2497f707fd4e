"""The graph for LangGraph's own dev server."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from agentflow import graph as graphs
from agentflow.wiring.background import running
from agentflow.wiring.place import Place
from agentflow.wiring.services import Services


class Studio:
    """The graph for `langgraph dev`: services are opened at the first request and kept for the process."""

    def __init__(self, place: Callable[[], Place]) -> None:
        self._place = place
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._services: Services | None = None

    async def graph(self) -> graphs.Graph:
        """The one graph of this process."""
        async with self._opening:
            if self._services is None:
                self._services = await self._stack.enter_async_context(
                    running(await asyncio.to_thread(self._place))
                )
        return self._services.graph
