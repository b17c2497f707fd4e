"""A thread's state now and then: read from checkpoints, changed, forked."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import InvalidUpdateError
from langgraph.store.base import BaseStore
from langgraph.types import Command, StateSnapshot, StateUpdate

from agentflow.errors import BadInput
from agentflow.protocols import Owner
from agentflow.runs.conversation import Conversation
from agentflow.runs.discretion import Shows, always, discreet
from agentflow.runs.encoding import interrupt_shown, storable
from agentflow.runs.graphs import command_of
from agentflow.runs.registry import OWN, Registry
from agentflow.runs.tree import Tree, older
from agentflow.turn import Json

NOTHING: Json = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": None,
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
    "checkpoint_id": None,
    "parent_checkpoint_id": None,
}


@dataclass(frozen=True)
class Changed:
    """A thread after a change: `status`, `state` as JSON text, interrupts by task."""

    status: str
    state: str | None
    interrupts: Json


@dataclass(frozen=True)
class States:
    """States of threads whose owner has been checked."""

    registry: Registry
    saver: Callable[[Owner, str], BaseCheckpointSaver[Any]]
    store: Callable[[Owner], BaseStore]
    conversation: Conversation
    shows: Shows = always

    async def get(
        self, thread: Json, *, checkpoint: Mapping[str, Any] | None = None, subgraphs: bool = False
    ) -> Json:
        """The state now, or as it was at a checkpoint."""
        if self._graph_of(thread) is None:
            return NOTHING
        if self._graph_of(thread) == OWN:
            tree = await self._tree(thread)
            found = tree.virtual((checkpoint or {}).get("checkpoint_id"))
            if found is not None:
                return found
        async with self._opened(thread) as graph:
            snapshot = await graph.aget_state(place(thread, checkpoint), subgraphs=subgraphs)
        if self._graph_of(thread) == OWN:
            return tree.now(_state(snapshot)) if not checkpoint else tree.then(_state(snapshot))
        return (await self._told(thread, [_state(snapshot)]))[0]

    async def history(
        self,
        thread: Json,
        *,
        limit: int,
        before: Mapping[str, Any] | None,
        metadata: Json | None,
        checkpoint: Mapping[str, Any] | None,
    ) -> list[Json]:
        """Newest first."""
        if self._graph_of(thread) is None:
            return []
        options: Json = {"limit": limit, "filter": metadata}
        tree = await self._tree(thread) if self._graph_of(thread) == OWN else None
        if before is not None and tree is None:
            options["before"] = {"configurable": _configurable(thread, before)}
        elif before is not None:
            options["limit"] = None
        async with self._opened(thread) as graph:
            config = place(thread, _without_id(checkpoint))
            found = [_state(one) async for one in graph.aget_state_history(config, **options)]
            states = await self._told(thread, found)
        if tree is None:
            return states
        woven = [tree.then(one) for one in states] if metadata else tree.woven(states, options["limit"])
        if before is None:
            return woven[:limit]
        return older(woven, _configurable(thread, before).get("checkpoint_id"))[:limit]

    async def update(
        self, thread: Json, values: Any, *, as_node: str | None, checkpoint: Mapping[str, Any] | None
    ) -> Json:
        """Write values as if a node had; the new checkpoint's place. Raises BadInput."""
        if self._graph_of(thread) == OWN and isinstance(values, dict) and values.get("messages"):
            message = f"The messages of {OWN!r} are those of its turns; say them in a run. Other keys can be changed."
            raise BadInput(message, field="values.messages")
        async with self._opened(thread) as graph:
            config = place(thread, checkpoint)
            config["metadata"] = {"graph_id": self._graph_of(thread), "thread_id": thread["thread_id"]}
            try:
                written = await graph.aupdate_state(config, values, as_node=as_node)
            except (InvalidUpdateError, KeyError) as error:
                raise BadInput(
                    f"The state cannot be changed so: {error}.", field="as_node", value=as_node
                ) from error
        shown = _checkpoint(written) or {}
        return {"checkpoint": shown, "configurable": shown, "checkpoint_id": shown.get("checkpoint_id")}

    async def write_all(self, thread: Json, supersteps: Sequence[Json]) -> None:
        """Build a history out of updates. Raises BadInput."""
        steps = [[_update(one) for one in step.get("updates", ())] for step in supersteps]
        async with self._opened(thread) as graph:
            config = place(thread, None)
            config["metadata"] = {"graph_id": self._graph_of(thread), "thread_id": thread["thread_id"]}
            try:
                await graph.abulk_update_state(config, steps)
            except (InvalidUpdateError, KeyError, ValueError) as error:
                raise BadInput(f"These supersteps cannot be written: {error}.", field="supersteps") from error

    async def changed(self, thread: Json) -> Changed:
        """What the thread's row shall say after a change."""
        async with self._opened(thread) as graph:
            snapshot = await graph.aget_state(place(thread, None))
        interrupts = {
            task.id: [interrupt_shown(one) for one in task.interrupts]
            for task in snapshot.tasks
            if task.interrupts
        }
        state = storable(snapshot.values) if snapshot.values else None
        return Changed("interrupted" if snapshot.next else "idle", state, interrupts)

    async def _told(self, thread: Json, states: list[Json]) -> list[Json]:
        failed = any(task["error"] for one in states for task in one["tasks"])
        if not failed or await self.shows(str(self._graph_of(thread))):
            return states
        return [discreet(one) for one in states]

    def _graph_of(self, thread: Json) -> str | None:
        found = (thread["metadata"] or {}).get("graph_id")
        return found if found in self.registry.ids else None

    @asynccontextmanager
    async def _opened(self, thread: Json) -> AsyncIterator[Any]:
        graph = self._graph_of(thread)
        if graph is None:
            message = "The thread has no graph yet: run one in it first, or create it with graph_id."
            raise BadInput(message, field="graph_id")
        async with self.registry.opened(graph, place(thread, None)) as served:
            owner = Owner(thread["tenant"], thread["user"])
            saver = self.saver(owner, graph)
            yield served.copy({"checkpointer": saver, "store": self.store(owner)})
            if hasattr(saver, "flush"):
                await saver.flush()

    async def _tree(self, thread: Json) -> Tree:
        owner, thread_id = Owner(thread["tenant"], thread["user"]), thread["thread_id"]
        said = await self.conversation.said_ever(owner, thread_id)
        return Tree(
            await self.conversation.branches(owner, thread_id), said, going=thread["status"] == "busy"
        )


def place(thread: Json, checkpoint: Mapping[str, Any] | None) -> Json:
    """LangGraph's config of a thread, at a checkpoint of its history."""
    return {"configurable": {"checkpoint_ns": "", **_configurable(thread, checkpoint or {})}}


def _configurable(thread: Json, given: Mapping[str, Any]) -> Json:
    """A place in this thread: a config or a checkpoint object; a bare id names a checkpoint."""
    inner = given.get("configurable", given)
    kept = {key: inner[key] for key in ("checkpoint_id", "checkpoint_ns", "checkpoint_map") if inner.get(key)}
    return {**kept, "thread_id": thread["thread_id"]}


def _without_id(checkpoint: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if checkpoint is None else {k: v for k, v in checkpoint.items() if k != "checkpoint_id"}


def _update(given: Json) -> StateUpdate:
    command = given.get("command")
    values: Any = given.get("values")
    if isinstance(command, dict):
        made: Command[Any] = command_of(command)
        values = made
    return StateUpdate(values, given.get("as_node"))


def _checkpoint(config: Any) -> Json | None:
    if not config:
        return None
    inner = config["configurable"]
    if "checkpoint_id" not in inner:
        return None
    kept = {key: inner[key] for key in ("checkpoint_id", "thread_id", "checkpoint_ns") if key in inner}
    return kept | ({"checkpoint_map": inner["checkpoint_map"]} if inner.get("checkpoint_map") else {})


def _state(one: StateSnapshot) -> Json:
    checkpoint, parent = _checkpoint(one.config), _checkpoint(one.parent_config)
    if one.metadata is None and one.created_at is None:
        checkpoint = None
    return {
        "values": one.values,
        "next": list(one.next),
        "tasks": [_task(task) for task in one.tasks],
        "metadata": one.metadata,
        "created_at": one.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [interrupt_shown(found) for found in one.interrupts],
        "checkpoint_id": (checkpoint or {}).get("checkpoint_id"),
        "parent_checkpoint_id": (parent or {}).get("checkpoint_id"),
    }


def _task(task: Any) -> Json:
    nested = isinstance(task.state, StateSnapshot)
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": None if task.error is None else str(task.error),
        "interrupts": [interrupt_shown(one) for one in task.interrupts],
        "checkpoint": None if nested or task.state is None else _checkpoint(task.state),
        "state": _state(task.state) if nested else None,
        "result": task.result,
    }
