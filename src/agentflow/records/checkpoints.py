"""LangGraph's checkpoints in schema `langgraph`: a cache of progress, never the record."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.rows import dict_row

from agentflow.protocols import Owner
from agentflow.records.connections import Connections


class TurnSaver(AsyncPostgresSaver):
    """The checkpoints of one owner; others' threads are empty to it. Only plain data is ever revived."""

    def __init__(self, connections: Connections, owner: Owner) -> None:
        serde = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None)
        super().__init__(connections.checkpoints, serde=serde)  # type: ignore[arg-type] # rows are asked for as dicts
        self._connections = connections
        self._owner = owner

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[Any]:
        """One connection of the pool each, so that nothing waits for the saver's own lock."""
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._connections.use_checkpoints(self._owner))
            if pipeline:
                await stack.enter_async_context(connection.pipeline())
            cursor = connection.cursor(binary=True, row_factory=dict_row)
            yield await stack.enter_async_context(cursor)
