"""Settings to running services; the composition root."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import uuid_utils
from threadpoolctl import threadpool_limits

from agentflow import __version__
from agentflow import graph as graphs
from agentflow.egress import Egress
from agentflow.errors import DatabaseDown
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import Embedder, Engine
from agentflow.records import migrate
from agentflow.records.claims import Claims
from agentflow.records.connections import Connections, open_connections
from agentflow.records.conversations import Conversations
from agentflow.records.feedback import Feedback
from agentflow.records.figures import Figures
from agentflow.records.keys import Keys
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.check import MemoryCheck
from agentflow.records.memory.indexes import VectorIndexes
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.places import Places
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.vectors import VectorRecord
from agentflow.records.own_checkpoints import OwnSaver
from agentflow.records.spending import PostgresSpending
from agentflow.records.threads import Threads
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.roster import Roster
from agentflow.routing.intents import Intents
from agentflow.routing.roles import Lesson
from agentflow.runs.attempts import Attempts
from agentflow.runs.protocol import ProtocolRuns
from agentflow.runs.registry import OWN, Registry
from agentflow.runs.seats import Seats
from agentflow.runs.worker import Most, Worker
from agentflow.settings import Settings
from agentflow.shelves.disk import DiskCache
from agentflow.telemetry import Metrics
from agentflow.telemetry.traces import Spans, open_spans
from agentflow.turn import Json
from agentflow.wiring import choices, engines, residency
from agentflow.wiring.homes import vector_homes
from agentflow.wiring.memories import Memories
from agentflow.wiring.place import Place, Progress, silent
from agentflow.wiring.protocol import Served, read_graphs, served
from agentflow.wiring.roles import role_examples
from agentflow.wiring.watching import Watching


@dataclass
class Services:
    """Everything a door needs, running. `needs` is what the graph was built from; `reload` reads the file again.

    `mark`: see Place.
    """

    settings: Settings
    mark: str
    needs: graphs.Needs
    classifier: Intents
    feedback: Feedback
    threads: Threads
    connections: Connections
    ledger: PostgresLedger
    embedder: Embedder
    engine: Engine
    keeper: AdapterKeeper
    watching: Watching
    graph: graphs.Graph
    worker: Worker
    served: Served
    outbox: Outbox
    conversations: Conversations
    places: Places
    indexes: VectorIndexes
    memory_check: MemoryCheck
    egress: Egress
    memories: Memories
    metrics: Metrics
    figures: Figures
    keys: Keys
    spending: PostgresSpending
    claims: Claims
    owed: asyncio.Event = field(default_factory=asyncio.Event)
    reload: Callable[[], Awaitable[Json]] = field(init=False)


@asynccontextmanager
async def assembled(place: Place, *, progress: Progress = silent) -> AsyncIterator[Services]:
    """Start everything, recover what a killed process left, and stop in the reverse order.

    Raises DatabaseDown, DataFolderBusy, SchemaMismatch, EmbedderError, ConfigError or StartError.
    """
    settings = place.settings
    async with AsyncExitStack() as stack:
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        embedder = choices.embedder(place, progress)
        stack.push_async_callback(embedder.close)
        disk = residency.cache(place, stack)
        dsn, adapters = await _prepared(place, stack, embedder, disk, progress)
        await asyncio.to_thread(migrate.migrate, dsn)
        connections = await open_connections(dsn, size=settings.postgres.pool_size)
        stack.push_async_callback(connections.close)
        engine = await engines.engine(place, stack, progress)
        stack.push_async_callback(engine.close)
        watching = await residency.watched(place, stack, engine, adapters, disk)
        services = await _services(place, stack, connections, embedder, watching)
        if settings.postgres.url is None:
            await services.ledger.release_all()
            await services.places.record.release_all()
        yield services


@asynccontextmanager
async def routing_only(
    place: Place, lessons: Sequence[Lesson] = (), *, progress: Progress = silent
) -> AsyncIterator[Intents]:
    """The classifier as turns have it, without database and engine. Raises ConfigError and EmbedderError."""
    roles = [role_examples(name, role) for name, role in place.settings.roles.items()]
    async with AsyncExitStack() as stack:
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        embedder = choices.embedder(place, progress)
        stack.push_async_callback(embedder.close)
        await choices.opened(embedder)
        intents = Intents(embedder, roles, place.settings.router, place.environment.cache, lessons)
        await intents.open()
        yield intents


async def _prepared(
    place: Place, stack: AsyncExitStack, embedder: Embedder, disk: DiskCache, progress: Progress
) -> tuple[str, Roster]:
    """Database, embedder and adapter files at once; all have ended before the first error is raised."""
    database = asyncio.create_task(choices.database(place, stack, progress))
    adapters = asyncio.create_task(choices.adapters(place, progress, disk.find))
    opened = asyncio.create_task(choices.opened(embedder))
    await asyncio.gather(database, adapters, opened, return_exceptions=True)
    opened.result()
    return database.result(), adapters.result()


async def _services(
    place: Place,
    stack: AsyncExitStack,
    connections: Connections,
    embedder: Embedder,
    watching: Watching,
) -> Services:
    settings, keeper = place.settings, watching.keeper
    process = _worker_name()
    feedback = Feedback(connections, process)
    classifier = await _classifier(place, stack, embedder, await feedback.lessons())
    egress = Egress(settings.egress.allow)
    stack.push_async_callback(egress.close)
    scopes = Scopes(connections, settings.collections, embedder.id, embedder.dim)
    ledger = PostgresLedger(connections, scopes, worker=process, pause=settings.memory.session_pause)
    places = _places(place, connections, embedder)
    stack.push_async_callback(places.close)
    needs = graphs.Needs(
        ledger=ledger,
        classifier=classifier,
        embedder=embedder,
        home=PostgresMemory(connections, scopes, places),
        engine=keeper.engine,
        keeper=keeper,
        roles=[role_examples(name, role) for name, role in settings.roles.items()],
        settings=settings,
        fault=_fault(place),
        spans=_spans(settings, stack),
    )
    graph, owed, metrics = graphs.build(needs), asyncio.Event(), Metrics()
    make_worker = partial(_worker, needs, graph, ledger, connections, owed, metrics)
    signing = settings.webhooks.secret
    secret = None if signing is None else signing.get_secret_value()
    keys = Keys(connections)
    shows = partial(_shows, settings, keys)
    protocol = served(connections, ledger, _registry(place, graph), egress, make_worker, secret, shows)
    return Services(
        settings=settings,
        mark=place.mark,
        needs=needs,
        classifier=classifier,
        feedback=feedback,
        threads=Threads(connections),
        connections=connections,
        ledger=ledger,
        embedder=embedder,
        engine=keeper.engine,
        keeper=keeper,
        watching=watching,
        graph=graph,
        worker=protocol.worker,
        served=protocol,
        outbox=Outbox(connections, embedder),
        places=places,
        conversations=Conversations(connections),
        memory_check=MemoryCheck(connections, scopes, places),
        indexes=VectorIndexes(connections, scopes.indexed, places.homes),
        egress=egress,
        memories=Memories.over(connections, scopes, settings.memory, process),
        owed=owed,
        metrics=metrics,
        figures=Figures(connections),
        keys=keys,
        spending=PostgresSpending(connections, ledger.worker),
        claims=Claims(connections),
    )


def _places(place: Place, connections: Connections, embedder: Embedder) -> Places:
    collections = place.settings.collections
    homes = vector_homes(collections, place.folder, embedder.dim)
    within = {name: collection.options.timeout for name, collection in collections.items()}
    return Places(VectorRecord(connections, _worker_name()), homes, within)


async def _classifier(
    place: Place, stack: AsyncExitStack, embedder: Embedder, lessons: Sequence[Lesson]
) -> Intents:
    settings = place.settings
    roles = [role_examples(name, role) for name, role in settings.roles.items()]
    classifier = Intents(embedder, roles, settings.router, place.environment.cache, lessons)
    stack.push_async_callback(classifier.close)
    await classifier.open()
    return classifier


def _worker(
    needs: graphs.Needs,
    graph: graphs.Graph,
    ledger: PostgresLedger,
    connections: Connections,
    owed: asyncio.Event,
    metrics: Metrics,
    protocol: ProtocolRuns,
) -> Worker:
    attempts = Attempts(
        ledger=ledger,
        graph=graph,
        saver=lambda owner: OwnSaver(connections, owner),
        turn_seconds=needs.settings.server.turn_seconds,
        renewal=ledger.lease / 3,
        remembered=owed.set,
        metrics=metrics,
        spans=needs.spans,
        protocol=protocol,
    )
    limits = needs.settings.limits
    return Worker(
        ledger=ledger,
        attempts=attempts,
        fault=needs.fault,
        most=Most(limits.runs, limits.tenant_runs),
        seats=Seats(limits.running),
        metrics=metrics,
        wakes=protocol.wakes,
    )


def _registry(place: Place, own: graphs.Graph) -> Registry:
    """Our graph, and those of the langgraph.json that was named at the start."""
    return Registry({OWN: own}) if place.graphs is None else read_graphs(place.graphs, own)


async def _shows(settings: Settings, keys: Keys, graph: str) -> bool:
    """Whether callers read what the graph's exceptions say."""
    said = settings.server.shows_errors_of(graph)
    if said is not None:
        return said
    try:
        return settings.access.tokens is None and not await keys.any()
    except DatabaseDown:
        return False


def _spans(settings: Settings, stack: AsyncExitStack) -> Spans:
    model = settings.model
    spans = open_spans(settings.telemetry.otlp, model=model.base, engine=model.engine, version=__version__)
    stack.push_async_callback(asyncio.to_thread, spans.close)
    return spans


def _fault(place: Place) -> Callable[[str], None]:
    point = place.environment.fault
    return partial(_die_at, point) if point else graphs.no_fault


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid_utils.uuid7()}"


def _die_at(point: str, reached: str) -> None:
    """Crash tests: SIGKILL at the named point."""
    if point == reached:
        os.kill(os.getpid(), signal.SIGKILL)
