"""LangGraph's checkpoints in schema `langgraph`: a cache of progress, never the record."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

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


# A step in one round trip each; the library takes one statement per value, each with a name of its owner before it.
PUT = """
with b as (
  insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
  select %(thread)s, %(ns)s, one.* from unnest(
    %(channels)s::text[], %(versions)s::text[], %(types)s::text[], %(blobs)s::bytea[]) one
  on conflict do nothing)
insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
values (%(thread)s, %(ns)s, %(id)s, %(parent)s, %(checkpoint)s, %(metadata)s)
on conflict (thread_id, checkpoint_ns, checkpoint_id)
do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata
"""
PUT_WRITES = """
insert into checkpoint_writes
  (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select * from unnest(
  %(0)s::text[], %(1)s::text[], %(2)s::text[], %(3)s::text[], %(4)s::text[], %(5)s::int[], %(6)s::text[], %(7)s::text[],
  %(8)s::bytea[])
on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
"""
NEWER = PUT_WRITES + "do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob"
FIRST = PUT_WRITES + "do nothing"
BLOB = ("channels", "versions", "types", "blobs")
INLINE = (str, int, float, bool, type(None))


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

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See BaseCheckpointSaver."""
        values = checkpoint["channel_values"]
        if any(type(one).__name__ == "_DeltaSnapshot" for one in values.values()):
            return await super().aput(config, checkpoint, metadata, new_versions)
        place = config["configurable"]
        thread, space = place["thread_id"], place["checkpoint_ns"]
        large = {key: value for key, value in values.items() if not isinstance(value, INLINE)}
        small = {key: value for key, value in values.items() if key not in large}
        versions = {key: version for key, version in new_versions.items() if key in large}
        blobs = self._dump_blobs(thread, space, large, versions) if versions else []
        parameters = {
            "thread": thread,
            "ns": space,
            "id": checkpoint["id"],
            "parent": place.get("checkpoint_id"),
            "checkpoint": Jsonb({**checkpoint, "channel_values": small}),
            "metadata": Jsonb(get_serializable_checkpoint_metadata(config, metadata)),
            **{name: [row[at] for row in blobs] for at, name in enumerate(BLOB, start=2)},
        }
        async with self._connections.use_checkpoints(self._owner) as connection:
            await connection.execute(PUT, parameters)
        written = {"thread_id": thread, "checkpoint_ns": space, "checkpoint_id": checkpoint["id"]}
        return {"configurable": written}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See BaseCheckpointSaver."""
        place = config["configurable"]
        at = (place["thread_id"], place["checkpoint_ns"], place["checkpoint_id"])
        rows = self._dump_writes(*at, task_id, task_path, writes)
        special = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        parameters = {str(column): [row[column] for row in rows] for column in range(9)}
        async with self._connections.use_checkpoints(self._owner) as connection:
            await connection.execute((NEWER if special else FIRST).encode(), parameters)


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
