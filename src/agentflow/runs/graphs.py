"""A run of any served graph: what was asked for in, events out, and how it ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import structlog
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.base import BaseStore
from langgraph.types import Command, Send

from agentflow.errors import AgentflowError, DatabaseDown, GraphFailed
from agentflow.protocols import Lease, Owner
from agentflow.records.connections import Written
from agentflow.records.protocol.runs import Ending, Runs
from agentflow.runs.conversation import Asked, Conversation, answer_id, answered, shown
from agentflow.runs.discretion import Shows, always, discreet, instead
from agentflow.runs.encoding import interrupt_shown, storable
from agentflow.runs.events import Stream
from agentflow.runs.modes import Translation, asked, asked_of_ours
from agentflow.runs.registry import OWN, Registry
from agentflow.turn import Json

log = structlog.get_logger(__name__)
Tell = Callable[[Sequence[str], str, Any], None]
TELLING = frozenset({"tasks", "debug", "checkpoints", "events"})
"""Modes in which LangGraph tells what was raised."""
RECURSION = 25
RECURSION_CAP = 100
RESERVED = (
    "thread_id",
    "checkpoint_id",
    "checkpoint_ns",
    "checkpoint_map",
    "run_id",
    "graph_id",
    "assistant_id",
)
"""Keys of `configurable` that no client sets there: they come from the path and the checkpoint fields."""


@dataclass
class Outcome:
    """What a run has come to: the graph's last values, and what it was interrupted with.

    `written`: its end is committed, by this process.
    """

    values: Any = None
    written: bool = False
    told: str = ""
    """What our own graph has said so far."""
    interrupted: bool = False
    interrupts: tuple[Any, ...] = ()

    def take(self, mode: str, chunk: Any) -> None:
        """Look at a chunk of the whole graph."""
        if mode == "values":
            self.values = chunk
        elif mode == "updates" and "__interrupt__" in chunk:
            self.interrupted = True
            self.interrupts = (*self.interrupts, *chunk["__interrupt__"])

    def state(self) -> str | None:
        """The values as a thread keeps them; None: there are none yet."""
        return None if self.values is None else storable(_without_interrupt(self.values))

    def shown(self) -> Any:
        """The answer to who waits for the run."""
        if not self.interrupts or not isinstance(self.values, dict):
            return self.values
        return {**self.values, "__interrupt__": [interrupt_shown(one) for one in self.interrupts]}


@dataclass(frozen=True)
class GraphRuns:
    """Executes runs over `registry`; every run gets a saver, by owner and graph, and a store of its own."""

    registry: Registry
    runs: Runs
    saver: Callable[[Owner, str], BaseCheckpointSaver[Any]]
    store: Callable[[Owner], BaseStore]
    drop: Callable[[Owner, str, str], Awaitable[None]]
    """Removes a run's checkpoints: owner, thread id, run id."""
    conversation: Conversation
    shows: Shows = always
    """Whether clients may read what a graph's exceptions say."""

    async def execute(
        self,
        lease: Lease,
        stream: Stream,
        outcome: Outcome,
        *,
        counted: Callable[[Json], None],
        before_end: Callable[[], Awaitable[None]],
    ) -> None:
        """Run to the end and write it; `counted` hears the events of a turn of ours.

        Raises GraphFailed for what a node raises, and LeaseLost.
        """
        work = lease.work or {}
        config = configured(lease)
        async with self.registry.opened(lease.graph, config) as served:
            graph = self._bound(served, lease)
            given = await self._given(graph, lease, config)
            tell = await self._teller(lease, stream, outcome, counted)
            try:
                async for names, mode, chunk in _chunks(graph, given, config, work, ours=lease.graph == OWN):
                    tell(names, mode, chunk)
            except (AgentflowError, asyncio.CancelledError):
                await _flushed(graph)
                raise
            except Exception as error:
                await _flushed(graph)
                raise await self._failed(lease, error) from error
            interrupts = await _pending(graph, config) if outcome.interrupted else {}
            steps = await _taken(graph)
        await before_end()
        if lease.graph == OWN:
            await self.runs.note_state(lease, storable(shown(outcome.values or {})), beside=steps)
            return
        if _leaves_nothing(work):
            await self.runs.forget_thread(lease)
            return
        status = "interrupted" if outcome.interrupted else "idle"
        await self.runs.finish(lease, Ending("success", status, outcome.state(), interrupts), beside=steps)

    async def _failed(self, lease: Lease, error: Exception) -> GraphFailed:
        log.warning("graph raised", graph=lease.graph, run_id=lease.run_id, exc_info=error)
        said = str(error) if await self.shows(lease.graph) else instead(lease.graph, error)
        return GraphFailed(said, kind=type(error).__name__)

    async def _teller(
        self, lease: Lease, stream: Stream, outcome: Outcome, counted: Callable[[Json], None]
    ) -> Tell:
        """What is done with every chunk: the outcome remembers it, the stream tells it."""
        modes = frozenset((lease.work or {}).get("stream_mode", ()))
        hides = bool(modes & TELLING) and not await self.shows(lease.graph)
        translation = Translation(modes)
        said: Sequence[Json] = ()
        if lease.graph == OWN:
            said = await self.conversation.begun(lease.owner, lease.thread_id, lease.run_id)
        asked_at = await self._asked(lease) if "checkpoints" in modes else None
        metadata = {**configured(lease)["metadata"], "langgraph_node": "generate"}

        def tell(names: Sequence[str], mode: str, chunk: Any) -> None:
            if mode == "values" and lease.graph == OWN:
                chunk = answered(chunk, said, lease.run_id)
            if not names:
                outcome.take(mode, chunk)
            if mode == "checkpoints" and asked_at is not None and (chunk := asked_at.placed(chunk)) is None:
                return
            if hides and mode in TELLING:
                chunk = discreet(chunk)
            for name, data in translation.events(names, mode, chunk):
                stream.add(name, data)
            if mode == "custom" and lease.graph == OWN:
                counted(chunk)
            if mode == "custom" and lease.graph == OWN and chunk.get("event") == "token":
                outcome.told += chunk["text"]
                for name, data in translation.token(chunk["text"], answer_id(lease.run_id), metadata):
                    stream.add(name, data)

        return tell

    async def _asked(self, lease: Lease) -> Asked | None:
        """Where the question stands that a run of our own graph answers."""
        if lease.graph != OWN or _leaves_nothing(lease.work or {}):
            return None
        return await self.conversation.asked_at(lease.owner, lease.thread_id, lease.run_id)

    async def stopped(self, lease: Lease, how: str, told: str) -> None:
        """End a run that was asked to stop: its steps are kept, or it is taken back. Raises LeaseLost."""
        if _leaves_nothing(lease.work or {}):
            await self.runs.forget_thread(lease)
            return
        if lease.graph == OWN and how != "rollback":
            await self.runs.finish(lease, Ending("interrupted"), partial=told)
            return
        if how == "rollback":
            await self.drop(lease.owner, lease.thread_id, lease.run_id)
        status, state = await self.state(lease)
        if how == "rollback":
            await self.runs.take_back(lease, thread_status=status, state=state)
        else:
            await self.runs.finish(lease, Ending("interrupted", status, state))

    async def state(self, lease: Lease) -> tuple[str, str | None]:
        """The thread's status and values, as its checkpoints have them now."""
        config = {"configurable": {"thread_id": lease.thread_id}}
        async with self.registry.opened(lease.graph, config) as served:
            snapshot = await self._bound(served, lease).aget_state(config)
        state = storable(snapshot.values) if snapshot.values else None
        return ("interrupted" if snapshot.next else "idle"), state

    def _bound(self, served: Any, lease: Lease) -> Any:
        work = lease.work or {}
        saver = (
            InMemorySaver() if _leaves_nothing(work) else fenced(self.saver(lease.owner, lease.graph), lease)
        )
        if hasattr(saver, "gathers"):
            saver.gathers = work.get("durability") != "sync"
        return served.copy({"checkpointer": saver, "store": self.store(lease.owner)})

    async def _given(self, graph: Any, lease: Lease, config: Json) -> Any:
        """The input; nothing where an earlier attempt has got as far as a checkpoint of this run."""
        work = lease.work or {}
        if lease.attempt > 1 and not _leaves_nothing(work):
            snapshot = await graph.aget_state({"configurable": {"thread_id": lease.thread_id}})
            if (snapshot.metadata or {}).get("run_id") == lease.run_id:
                config["configurable"].pop("checkpoint_id", None)
                return None
        if lease.graph == OWN:
            return {
                "text": lease.text,
                "wanted_role": lease.wanted_role,
                "lease": asdict(replace(lease, work=None)),
                "given": lease.given,
            }
        return command_of(work["command"]) if work.get("command") else work.get("input")


def fenced(saver: Any, lease: Lease) -> Any:
    """The saver, for this attempt at the run: it writes nothing more when another one owns it."""
    if hasattr(saver, "attempt"):
        saver.attempt = (lease.run_id, lease.attempt)
    return saver


def configured(lease: Lease) -> Json:
    """LangGraph's config of a run: the assistant's settings below the request's, and ids that no client sets."""
    work = lease.work or {}
    asked_for = work.get("config") or {}
    own = {key: value for key, value in (asked_for.get("configurable") or {}).items() if allowed(key)}
    ids = {
        "thread_id": lease.thread_id,
        "run_id": lease.run_id,
        "graph_id": lease.graph,
        "assistant_id": work.get("assistant_id"),
    }
    asked_place = {} if lease.graph == OWN else work.get("checkpoint") or {}
    place = {key: value for key, value in asked_place.items() if value is not None}
    return {
        "configurable": {**own, **(work.get("context") or {}), **ids, **place},
        "metadata": {**(work.get("metadata") or {}), **ids},
        "tags": list(asked_for.get("tags") or ()),
        "recursion_limit": min(int(asked_for.get("recursion_limit") or RECURSION), RECURSION_CAP),
    }


def allowed(key: str) -> bool:
    """Whether a client may set this key of `configurable`."""
    return key not in RESERVED and not key.startswith("__")


def command_of(given: Mapping[str, Any]) -> Command[Any]:
    """A command as clients send it. `goto` is a node, several, or `{"node", "input"}`."""
    goto = given.get("goto") or ()
    several = goto if isinstance(goto, list) else [goto] if goto else []
    return Command(
        update=given.get("update"),
        resume=given.get("resume"),
        goto=[Send(one["node"], one.get("input")) if isinstance(one, dict) else one for one in several],
    )


async def _chunks(
    graph: Any, given: Any, config: Json, work: Json, *, ours: bool
) -> AsyncIterator[tuple[tuple[str, ...], str, Any]]:
    """(namespace, mode, chunk) for as long as the graph runs."""
    modes = work.get("stream_mode", ())
    options: Json = {
        "stream_mode": asked_of_ours(modes) if ours else asked(modes),
        "durability": work.get("durability") or "sync",
    }
    for name in ("interrupt_before", "interrupt_after", "context"):
        if work.get(name):
            options[name] = work[name]
    nested = bool(work.get("stream_subgraphs"))
    if "events" in modes and not ours:
        async for found in _with_events(graph, given, config, {**options, "subgraphs": True}):
            yield found
    elif nested:
        async for names, mode, chunk in graph.astream(given, config, subgraphs=True, **options):
            yield names, mode, chunk
    else:
        async for mode, chunk in graph.astream(given, config, **options):
            yield (), mode, chunk


async def _with_events(
    graph: Any, given: Any, config: Json, options: Json
) -> AsyncIterator[tuple[tuple[str, ...], str, Any]]:
    """LangChain's events, and between them the chunks of the modes asked for."""
    root: str | None = None
    async for event in graph.astream_events(given, config, version="v2", **options):
        root = root or event["run_id"]
        if event["event"] == "on_chain_stream" and event["run_id"] == root:
            names, mode, chunk = event["data"]["chunk"]
            yield names, mode, chunk
        else:
            yield (), "events", event


async def _flushed(graph: Any) -> None:
    """What the saver still gathers is written before the run's end is."""
    if hasattr(graph.checkpointer, "flush"):
        with contextlib.suppress(DatabaseDown):
            await graph.checkpointer.flush()


async def _taken(graph: Any) -> Sequence[Written]:
    """What the saver still gathers, to be written with the run's end."""
    return await graph.checkpointer.taken() if hasattr(graph.checkpointer, "taken") else ()


async def _pending(graph: Any, config: Json) -> Json:
    """Interrupts by task, where the graph now waits."""
    snapshot = await graph.aget_state({"configurable": {"thread_id": config["configurable"]["thread_id"]}})
    return {
        task.id: [interrupt_shown(one) for one in task.interrupts]
        for task in snapshot.tasks
        if task.interrupts
    }


def _leaves_nothing(work: Json) -> bool:
    return work.get("on_completion") == "delete"


def _without_interrupt(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {key: value for key, value in values.items() if key != "__interrupt__"}
