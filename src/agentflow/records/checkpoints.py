"""LangGraph's checkpoints in schema `langgraph`: a cache of progress, never the record."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Json

from agentflow.errors import DatabaseDown
from agentflow.protocols import Owner
from agentflow.records.connections import Connections, Written

COPY = (
    """
    insert into checkpoints
      (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    select %(new)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
           metadata
           || case when metadata ? 'thread_id' then jsonb_build_object('thread_id', %(new)s::text) else '{}' end
           || case when checkpoint ? 'turn'
                   then jsonb_build_object('run_id', md5((metadata ->> 'run_id') || %(new)s)::uuid) else '{}' end
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


FENCE = """where %(run)s::uuid is null
  or exists (select from agentflow.run r where r.id = %(run)s::uuid and r.attempt = %(attempt)s::int)"""
"""Nothing of a run is written by an attempt that another has replaced."""
# Steps in one statement; the library takes one per value. Rows come as one JSON text each, their bytes beside them: an
# array per column would take most of the time that a step costs.
_WRITES = f"""
  insert into langgraph.checkpoint_writes
    (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
  select * from rows from (
    json_to_recordset(%(writes)s) as (
      thread_id text, checkpoint_ns text, checkpoint_id text, task_id text, task_path text, idx int, channel text,
      type text),
    unnest(%(written)b::bytea[]))
  {FENCE}
  on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
"""  # noqa: S608 - constants
PUT = f"""
with b as (
  insert into langgraph.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
  select * from rows from (
    json_to_recordset(%(blobs)s) as (thread_id text, checkpoint_ns text, channel text, version text, type text),
    unnest(%(data)b::bytea[]))
  {FENCE}
  on conflict do nothing),
w as ({_WRITES} do nothing)
insert into langgraph.checkpoints
  (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
select * from json_to_recordset(%(checkpoints)s) as (
  thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, checkpoint jsonb, metadata jsonb)
{FENCE}
on conflict (thread_id, checkpoint_ns, checkpoint_id)
do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata
"""  # noqa: S608 - constants
NEWER = _WRITES + "do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob"
CHECKPOINT = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "metadata")
BLOB = ("thread_id", "checkpoint_ns", "channel", "version", "type")
WRITE = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "task_path", "idx", "channel", "type")
GATHERED = 0.2
"""Seconds for which steps of a run are gathered before they are written together: most runs of quick steps are then
written once, with their end. A kill costs as much, redone from what was written before."""
INLINE = (str, int, float, bool, type(None))
SMALL = 250
"""Characters of JSON up to which lists and dictionaries are part of the checkpoint's own row: a row of theirs, with
its index entry, takes some 300 bytes more."""


Attempt = tuple[str, int]
"""A run, and the number of an attempt at it."""


@dataclass
class Gathered:
    """Rows of several steps, by what makes them one row; a later one replaces an earlier."""

    checkpoints: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    blobs: list[tuple[Any, ...]] = field(default_factory=list)
    newer: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    first: dict[Any, tuple[Any, ...]] = field(default_factory=dict)

    def then(self, later: "Gathered") -> "Gathered":
        """These rows, and later ones over them."""
        return Gathered(
            {**self.checkpoints, **later.checkpoints},
            [*self.blobs, *later.blobs],
            {**self.newer, **later.newer},
            {**later.first, **self.first},
        )

    def statements(self, attempt: Attempt | None) -> Iterator[Written]:
        """What is to be executed; it writes nothing for an attempt that is not the run's last."""
        run, number = attempt or (None, None)
        fence = {"run": run, "attempt": number}
        if self.checkpoints or self.blobs or self.first:
            steps = {
                "checkpoints": _rows(CHECKPOINT, self.checkpoints.values()),
                "blobs": _rows(BLOB, self.blobs),
                "data": [row[-1] for row in self.blobs],
            }
            yield PUT.encode(), {**steps, **_writes(self.first.values()), **fence}
        if self.newer:
            yield NEWER.encode(), {**_writes(self.newer.values()), **fence}


def _writes(rows: Collection[Sequence[Any]]) -> dict[str, Any]:
    return {"writes": _rows(WRITE, rows), "written": [row[-1] for row in rows]}


def _rows(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Json:
    """Rows as Postgres reads them by their columns' names; what has no name is left out."""
    return Json([dict(zip(names, row, strict=False)) for row in rows])


def _place(thread: str, space: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": space, "checkpoint_id": checkpoint}}


def _inline(value: Any) -> bool:
    """Whether JSON gives back exactly this value, and it is small."""
    if isinstance(value, INLINE):
        return True
    return _plain(value) and len(json.dumps(value)) <= SMALL


def _plain(value: Any, depth: int = 3) -> bool:
    """Nothing that JSON, or Postgres' own numbers and texts, would give back as something else."""
    kind = type(value)
    if kind is dict or kind is list:
        inside = [*value, *value.values()] if kind is dict else value
        if kind is dict and any(type(key) is not str for key in value):
            return False
        return depth > 0 and len(value) <= SMALL // 4 and all(_plain(one, depth - 1) for one in inside)
    if kind is float:
        return repr(value).removeprefix("-").replace(".", "").isdigit() and repr(value) != "-0.0"
    return value.isprintable() if kind is str else kind in (int, bool, type(None))


class TurnSaver(AsyncPostgresSaver):
    """The checkpoints of one owner; others' threads are empty to it. Only plain data is ever revived.

    With `gathers`, steps that follow each other within a moment are written together; reading and `flush` write first.
    With `attempt`, nothing is written once another attempt has taken over the run.
    """

    def __init__(self, connections: Connections, owner: Owner) -> None:
        serde = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None)
        super().__init__(connections.checkpoints, serde=serde)  # type: ignore[arg-type] # rows are asked for as dicts
        self._connections = connections
        self._owner = owner
        self.gathers = False
        self.attempt: Attempt | None = None
        self._gathered = Gathered()
        self._writing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def flush(self) -> None:
        """Write what has been gathered. Raises DatabaseDown."""
        async with self._turn:
            gathered, self._gathered = self._gathered, Gathered()
            if not (gathered.checkpoints or gathered.newer or gathered.first):
                return
            try:
                async with (
                    self._connections.use_checkpoints(self._owner) as connection,
                    connection.together(),
                ):
                    for statement, parameters in gathered.statements(self.attempt):
                        await connection.execute(statement, parameters)
            except DatabaseDown:
                self._gathered = gathered.then(self._gathered)
                raise

    async def taken(self) -> list[Written]:
        """What has been gathered, for whoever now writes it in a transaction of theirs."""
        async with self._turn:
            gathered, self._gathered = self._gathered, Gathered()
        return list(gathered.statements(self.attempt))

    async def _soon(self) -> None:
        """What a gathered step waits for when no other comes; an error is that of the next write or the end."""
        await asyncio.sleep(GATHERED)
        async with self._connections.gathering:
            with contextlib.suppress(DatabaseDown):
                await self.flush()

    async def _kept(self) -> None:
        """Write at once, or with what comes within a moment."""
        if not self.gathers:
            await self.flush()
        elif self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._soon())

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See BaseCheckpointSaver."""
        await self.flush()
        return await super().aget_tuple(config)

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        """As the library does, but what a run begins with has few writes pending: not worth a thread."""
        thread, space = value["thread_id"], value["checkpoint_ns"]
        checkpoint: Checkpoint = value["checkpoint"]
        values = {**(checkpoint.get("channel_values") or {}), **self._load_blobs(value["channel_values"])}
        parent = value["parent_checkpoint_id"]
        return CheckpointTuple(
            _place(thread, space, value["checkpoint_id"]),
            {**checkpoint, "channel_values": values},
            value["metadata"],
            _place(thread, space, parent) if parent else None,
            self._load_writes(value["pending_writes"]),
        )

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
        small = self._small(checkpoint, new_versions)
        large = {key: value for key, value in values.items() if key not in small}
        versions = {key: version for key, version in new_versions.items() if key in large}
        blobs = (
            self._dump_blobs(place["thread_id"], place["checkpoint_ns"], large, versions) if versions else []
        )
        whole = {**checkpoint, "channel_values": small}
        return await self._put(config, checkpoint["id"], whole, metadata, blobs)

    def _small(self, checkpoint: Checkpoint, _new: ChannelVersions) -> dict[str, Any]:
        """The values that are part of the checkpoint's own row."""
        return {key: value for key, value in checkpoint["channel_values"].items() if _inline(value)}

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint_id: str,
        stored: Mapping[str, Any],
        metadata: CheckpointMetadata,
        blobs: Sequence[tuple[Any, ...]],
    ) -> RunnableConfig:
        place = config["configurable"]
        thread, space = place["thread_id"], place["checkpoint_ns"]
        shown = get_serializable_checkpoint_metadata(config, metadata)
        row = (thread, space, checkpoint_id, place.get("checkpoint_id"), stored, shown)
        self._gathered.checkpoints[thread, space, checkpoint_id] = row
        self._gathered.blobs.extend(blobs)
        await self._kept()
        return _place(thread, space, checkpoint_id)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See BaseCheckpointSaver."""
        place = config["configurable"]
        at = (place["thread_id"], place["checkpoint_ns"], place["checkpoint_id"])
        rows = self._dump_writes(*at, task_id, task_path, writes)
        special = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        kept = self._gathered.newer if special else self._gathered.first
        for row in rows:
            key = (*row[:4], row[5])
            kept[key] = row if special else kept.get(key, row)
        await self._kept()


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
