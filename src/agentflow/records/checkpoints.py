"""LangGraph's checkpoints in schema `langgraph`: a cache of progress, never the record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentflow.records.connections import Connections, lost_is_down


class TurnSaver(AsyncPostgresSaver):
    """One per run, since a saver's own lock would serialise all runs. Only plain data is ever revived."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections.checkpoints,
            serde=JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None),
        )

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[Any]:
        with lost_is_down():
            async with super()._cursor(pipeline=pipeline) as cursor:
                yield cursor
