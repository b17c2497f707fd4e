"""The database alone, for commands that need nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from agentflow.errors import DataFolderBusy
from agentflow.records import migrate
from agentflow.records.connections import Connections, open_connections
from agentflow.records.embedded import EmbeddedPostgres
from agentflow.wiring import choices
from agentflow.wiring.place import Place, Progress


@asynccontextmanager
async def storage(place: Place, progress: Progress) -> AsyncIterator[Connections]:
    """The database of the settings, at this version's schema; the embedded one also while a server runs on it.

    Raises DatabaseDown, SchemaMismatch or DatabaseError.
    """
    async with AsyncExitStack() as stack:
        dsn = await _address(place, stack, progress)
        await asyncio.to_thread(migrate.migrate, dsn)
        connections = await open_connections(dsn, size=2)
        stack.push_async_callback(connections.close)
        yield connections


async def _address(place: Place, stack: AsyncExitStack, progress: Progress) -> str:
    try:
        return await choices.database(place, stack, progress)
    except DataFolderBusy:
        return EmbeddedPostgres(choices.embedded(place)).beside()
