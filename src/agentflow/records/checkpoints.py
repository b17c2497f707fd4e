"""LangGraph's checkpoints in schema `langgraph`: a cache of progress, never the record."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.rows import dict_row

from agentflow.protocols import Owner
from agentflow.records.connections import Connections

COPY = (
    """
    insert into checkpoints
      (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    select %(new)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
           case when metadata ? 'thread_id' then jsonb_set(metadata, '{thread_id}', to_jsonb(%(new)s::text))
                else metadata end
    from checkpoints where thread_id = %(old)s
    """,
    """
    insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    select %(new)s, checkpoint_ns, channel, version, type, blob from checkpoint_blobs where thread_id = %(old)s
    """,
    """
    insert into checkpoint_writes
      (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
    select %(new)s, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path
    from checkpoint_writes where thread_id = %(old)s
    """,
)
# What one run has left: its checkpoints, the writes upon them, and values no other checkpoint refers to.
DROP_RUN = """
with gone as (
  delete from checkpoints where thread_id = %(thread)s and metadata ->> 'run_id' = %(run)s
  returning checkpoint_ns, checkpoint_id),
w as (
  delete from checkpoint_writes using gone
  where thread_id = %(thread)s and checkpoint_writes.checkpoint_ns = gone.checkpoint_ns
    and checkpoint_writes.checkpoint_id = gone.checkpoint_id)
delete from checkpoint_blobs b where thread_id = %(thread)s and not exists (
  select from checkpoints c where c.thread_id = b.thread_id and c.checkpoint_ns = b.checkpoint_ns
    and c.checkpoint -> 'channel_versions' ->> b.channel = b.version
    and c.metadata ->> 'run_id' is distinct from %(run)s)
"""
KEEP_LATEST = """
with kept as (
  select distinct on (thread_id, checkpoint_ns) thread_id, checkpoint_ns, checkpoint_id, checkpoint
  from checkpoints where thread_id = any(%(threads)s) order by thread_id, checkpoint_ns, checkpoint_id desc),
gone as (
  delete from checkpoints c where thread_id = any(%(threads)s) and not exists (
    select from kept k where k.thread_id = c.thread_id and k.checkpoint_ns = c.checkpoint_ns
      and k.checkpoint_id = c.checkpoint_id)
  returning thread_id, checkpoint_ns, checkpoint_id),
w as (
  delete from checkpoint_writes x using gone
  where x.thread_id = gone.thread_id and x.checkpoint_ns = gone.checkpoint_ns
    and x.checkpoint_id = gone.checkpoint_id)
delete from checkpoint_blobs b where thread_id = any(%(threads)s) and not exists (
  select from kept k where k.thread_id = b.thread_id and k.checkpoint_ns = b.checkpoint_ns
    and k.checkpoint -> 'channel_versions' ->> b.channel = b.version)
"""


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


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of whole threads and runs. Who may touch the thread is asked before."""

    connections: Connections

    def saver(self, owner: Owner) -> TurnSaver:
        """A saver for one run or request."""
        return TurnSaver(self.connections, owner)

    async def copy(self, owner: Owner, thread_id: str, new: str) -> None:
        """A thread's whole history under another id."""
        async with self.connections.use_checkpoints(owner) as connection, connection.transaction():
            for statement in COPY:
                await connection.execute(statement.encode(), {"old": thread_id, "new": new})

    async def drop_run(self, owner: Owner, thread_id: str, run_id: str) -> None:
        """The thread's history as if the run had not been."""
        async with self.connections.use_checkpoints(owner) as connection:
            await connection.execute(DROP_RUN, {"thread": thread_id, "run": run_id})

    async def drop_thread(self, owner: Owner, thread_id: str) -> None:
        """All of a thread's history."""
        await self.saver(owner).adelete_thread(thread_id)

    async def keep_latest(self, owner: Owner, thread_ids: list[str]) -> None:
        """Only the state as it is now."""
        async with self.connections.use_checkpoints(owner) as connection:
            await connection.execute(KEEP_LATEST, {"threads": thread_ids})
