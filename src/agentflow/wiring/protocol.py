"""The LangGraph protocol's part of the services: which graphs are served, and what their runs need."""

import asyncio
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agentflow.egress import Egress
from agentflow.errors import ConfigError
from agentflow.protocols import Owner
from agentflow.records.branches import Threaded
from agentflow.records.callbacks import CallbackRecords
from agentflow.records.checkpoints import Checkpoints, TurnSaver
from agentflow.records.connections import Connections
from agentflow.records.jobs import Jobs
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.forget import Forgetting, Selector
from agentflow.records.memory.rights import Owner as Rightful
from agentflow.records.own_checkpoints import OwnSaver
from agentflow.records.protocol.accepting import Accepting
from agentflow.records.protocol.assistants import Assistants
from agentflow.records.protocol.crons import Crons
from agentflow.records.protocol.events import EventLog
from agentflow.records.protocol.listeners import Listeners
from agentflow.records.protocol.runs import Runs
from agentflow.records.protocol.store import UserStore
from agentflow.records.protocol.threads import ThreadRows
from agentflow.runs import callbacks, clock, webhooks
from agentflow.runs.callbacks import Callbacks, Post
from agentflow.runs.clock import Clock
from agentflow.runs.conversation import Conversation
from agentflow.runs.discretion import Shows
from agentflow.runs.graphs import GraphRuns
from agentflow.runs.multitask import decide
from agentflow.runs.protocol import ProtocolRuns
from agentflow.runs.registry import OWN, Registry, assistant_of, can_be_served
from agentflow.runs.states import States
from agentflow.runs.thread_stream import ThreadStreams
from agentflow.runs.wakes import Wakes
from agentflow.runs.wanted import RunWanted, planned
from agentflow.runs.webhooks import Webhooks
from agentflow.runs.worker import Worker
from agentflow.turn import Json


@dataclass(frozen=True)
class Served:
    """What the protocol's door needs beyond a turn's services."""

    registry: Registry
    assistants: Assistants
    threads: ThreadRows
    conversation: Conversation
    runs: Runs
    states: States
    checkpoints: Checkpoints
    crons: Crons
    store: Callable[[Owner], UserStore]
    worker: Worker
    thread_streams: ThreadStreams
    egress: Egress
    forgetting: Forgetting
    jobs: Jobs
    clock: Clock
    callbacks: Callbacks
    beside: set[asyncio.Task[Any]] = field(default_factory=set)

    async def tidy(self) -> None:
        """Remove what is over: threads whose time has come, logs of a day ago, old failures. Raises DatabaseDown."""
        await self.worker.forget_events()
        await self.jobs.tidy()
        for thread_id, action, owner in await self.threads.expired(limit=100):
            if action == "keep_latest":
                await self.checkpoints.keep_latest(owner, [thread_id])
                await self.threads.stays(owner, thread_id)
            else:
                chosen = Selector("thread", thread_id)
                await self.forgetting.forget(Rightful(owner.tenant, str(owner.user)), chosen)
                await self.checkpoints.drop_thread(owner, thread_id)


def served(
    connections: Connections,
    ledger: PostgresLedger,
    registry: Registry,
    egress: Egress,
    make_worker: Callable[[ProtocolRuns], Worker],
    secret: str | None,
    shows: Shows,
) -> Served:
    """The protocol over one database; turns and runs share the worker and the jobs. `secret` signs callbacks."""
    threads, checkpoints = ThreadRows(connections), Checkpoints(connections)
    conversation = Conversation(threads.said, threads.said_ever, Threaded(connections))
    runs = Runs(connections)
    accepting = Accepting(connections, decide, ledger.worker, ledger.lease, ledger.pause)
    store = partial(UserStore, connections)
    system = {assistant_of(graph): graph for graph in registry.ids}
    jobs, crons, post = Jobs(connections.dsn), Crons(connections), Post(egress, secret)

    def saver(owner: Owner, graph: str) -> TurnSaver:
        return OwnSaver(connections, owner) if graph == OWN else checkpoints.saver(owner)

    async def begin(cron: Json) -> None:
        body = RunWanted.model_validate({**cron["payload"], "assistant_id": cron["assistant_id"]})
        body.metadata = {**cron["metadata"], "cron_id": cron["cron_id"]}
        new = await planned(found, body, cron["tenant"], cron["user"], cron["thread_id"], streams=True)
        await found.worker.submit(new)

    graphs = GraphRuns(registry, runs, saver, store, checkpoints.drop_run, conversation, shows)
    worker = make_worker(ProtocolRuns(ledger, runs, accepting, graphs, EventLog(connections), Wakes()))

    async def values(run: Json, tenant: int, user: str) -> object:
        thread = await threads.get(run["thread_id"], tenant=tenant, user=user)
        if (thread["metadata"] or {}).get("graph_id") == OWN:
            await conversation.fill_threads(Owner(tenant, user), [thread])
        return thread["values"]

    found = Served(
        registry=registry,
        assistants=Assistants(connections, system),
        threads=threads,
        conversation=conversation,
        runs=runs,
        states=States(registry, saver, store, conversation, shows),
        checkpoints=checkpoints,
        crons=crons,
        store=store,
        thread_streams=ThreadStreams(Listeners(connections), worker.following, worker.wakes),
        egress=egress,
        forgetting=Forgetting(connections),
        jobs=jobs,
        clock=Clock(crons, jobs, begin),
        callbacks=Callbacks(CallbackRecords(connections), post, jobs),
        worker=worker,
    )
    jobs.on(clock.JOB, found.clock.strike)
    jobs.on(callbacks.JOB, found.callbacks.deliver)
    jobs.on(webhooks.JOB, Webhooks(runs, post, values).deliver)
    return found


def read_graphs(file: Path, own: Any) -> Registry:
    """The graphs that a langgraph.json names, and ours. Raises ConfigError."""
    registry = Registry({OWN: own})
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read as JSON: {error}.", field="--graphs", value=str(file)
        ) from error
    named = given.get("graphs") if isinstance(given, dict) else None
    if not isinstance(named, dict):
        raise ConfigError(f'{file} has no "graphs": {{id: "FILE.py:NAME"}}.', field="graphs", value=str(file))
    _on_path(file.parent, given.get("dependencies") or ())
    for graph, where in named.items():
        path = where.get("path") if isinstance(where, dict) else where
        found = _loaded(file, graph, path)
        if not _is_ours(found):
            registry.replace(graph, found)
    return registry


def _on_path(folder: Path, dependencies: Any) -> None:
    """Folders among the dependencies can be imported from, as LangGraph's own server has it."""
    for one in dependencies:
        place = (folder / str(one)).resolve()
        if place.is_dir() and str(place) not in sys.path:
            sys.path.insert(0, str(place))


def _loaded(file: Path, graph: str, where: Any) -> Any:
    source, colon, name = str(where).rpartition(":")
    if not colon:
        message = f"graphs.{graph} is {where!r}; write FILE.py:NAME or MODULE:NAME."
        raise ConfigError(message, field=f"graphs.{graph}", value=where)
    try:
        found = getattr(_module(file.parent, graph, source), name)
    except (Exception, SystemExit) as error:  # a graph's file may end anything but the server
        message = f"graphs.{graph}: {where} cannot be loaded: {type(error).__name__}: {error}."
        raise ConfigError(message, field=f"graphs.{graph}", value=where) from error
    if not can_be_served(found):
        message = f"graphs.{graph}: {where} is a {type(found).__name__}; name a graph, or a function that makes one."
        raise ConfigError(message, field=f"graphs.{graph}", value=where)
    return found


def _module(folder: Path, graph: str, source: str) -> Any:
    path = (folder / source).resolve()
    if not source.endswith(".py"):
        return importlib.import_module(source)
    spec = importlib.util.spec_from_file_location(f"served_{graph}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _is_ours(found: Any) -> bool:
    """Our own graph as LangGraph's dev server opens it: it is served in any case."""
    owner = getattr(found, "__self__", None)
    return type(owner).__module__ == "agentflow.wiring.studio"
