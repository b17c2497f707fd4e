"""Checkpoints of our own graph. That of a turn that ended well refers to its run, which holds the turn's values."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.base import SELECT_SQL
from psycopg.rows import DictRow

from agentflow.records.checkpoints import TurnSaver
from agentflow.records.details import unpacked
from agentflow.turn import Json

LAST = "remember"
"""The step that ends a turn."""
TOLD = ("role", "adapter", "selection", "intent", "memory", "finish", "usage")
"""Values of a turn that its details hold."""
_COLUMNS, _, _FROM = SELECT_SQL.rpartition("from checkpoints")
WITH_TURN = f"""
{_COLUMNS}, tenant, user_ref, turn.* from checkpoints{_FROM} left join lateral (
  select r.id::text as turn_id, r.attempt as turn_attempt, r.details as turn_details, r.recalled as turn_recalled
  from run r where r.id = case when checkpoint ? 'turn' then (metadata ->> 'run_id')::uuid end) turn on true
"""  # noqa: S608 - the library's own and ours


class OwnSaver(TurnSaver):
    """Stores of a finished turn's checkpoint what its run does not: when it was, how many steps, and the last time.

    All other checkpoints are stored whole: of turns that failed or wait, of steps within a turn, of changed states.
    """

    SELECT_SQL = WITH_TURN

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See BaseCheckpointSaver."""
        if not _ended(checkpoint, config, metadata):
            return await super().aput(config, checkpoint, metadata, new_versions)
        return await self._put(config, checkpoint["id"], _thin(checkpoint), metadata, [])

    def _small(self, checkpoint: Checkpoint, new: ChannelVersions) -> Json:
        """Values that came with an earlier turn have no row of their own to refer to."""
        earlier = {key: value for key, value in checkpoint["channel_values"].items() if key not in new}
        return super()._small(checkpoint, new) | earlier

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        if "turn" in value["checkpoint"]:
            value = {**value, "checkpoint": _whole(value)}
        return await super()._load_checkpoint_tuple(value)


def _ended(checkpoint: Checkpoint, config: RunnableConfig, metadata: CheckpointMetadata) -> bool:
    """Whether the turn of this run has just been written to the ledger, as its last step."""
    values = checkpoint["channel_values"]
    run = (config.get("metadata") or {}).get("run_id") or config["configurable"].get("run_id")
    return (
        metadata.get("source") == "loop"
        and "status" in (checkpoint.get("updated_channels") or ())
        and values.get("status") == "done"
        and values.get("run_id") == run
    )


def _thin(checkpoint: Checkpoint) -> Json:
    steps = max(checkpoint["channel_versions"].values())
    spent = checkpoint["channel_values"]["timings"][LAST]
    return {"v": checkpoint["v"], "ts": checkpoint["ts"], "turn": [_number(steps), spent]}


def _number(version: Any) -> int:
    """The saver's versions are numbers with leading zeros and a random part."""
    return int(str(version).partition(".")[0])


def _version(number: int) -> str:
    return f"{number:032}.{0:016}"


def _whole(row: DictRow) -> Json:
    """As LangGraph wrote it, as far as a next step needs it: the last step and the values' version."""
    stored = row["checkpoint"]
    number, spent = stored["turn"]
    values = _values(row, spent)
    return {
        "v": stored["v"],
        "ts": stored["ts"],
        "id": row["checkpoint_id"],
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, _version(number)),
        "versions_seen": {LAST: {f"branch:to:{LAST}": _version(number - 1)}},
        "updated_channels": ["status", "timings"],
    }


def _values(row: DictRow, spent: float) -> Json:
    kept = unpacked(row["turn_details"])
    return {
        "run_id": row["turn_id"] or row["metadata"]["run_id"],
        "thread_id": row["thread_id"],
        "tenant": row["tenant"],
        "user": row["user_ref"],
        "attempt": row["turn_attempt"] or 1,
        **{key: kept[key] for key in TOLD if key in kept},
        "memory_ids": list(row["turn_recalled"] or ()),
        "status": "done",
        "timings": {**kept.get("timings", {}), LAST: spent},
    }
