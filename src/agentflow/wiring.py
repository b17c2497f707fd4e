"""Settings to running services: the only place that picks engines, embedders and homes."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog
import uuid_utils

from agentflow import graph as graphs
from agentflow import tiny
from agentflow.adapters import BaseShape
from agentflow.embedders.onnx import OnnxEmbedder
from agentflow.embedders.remote import RemoteEmbedder
from agentflow.engines.vllm import Timeouts, Vllm
from agentflow.errors import AdapterError, AgentflowError, ConfigError
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import Embedder, Engine
from agentflow.records import migrate
from agentflow.records.checkpoints import TurnSaver
from agentflow.records.connections import Connections, open_connections
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.feedback import Feedback
from agentflow.records.ledger import PostgresLedger
from agentflow.records.outbox import Outbox
from agentflow.records.scopes import Scopes
from agentflow.records.threads import Threads
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.roster import Roster, roster
from agentflow.routing.classifier import examples_of
from agentflow.routing.intents import Intents
from agentflow.routing.roles import IntentExamples, Lesson, RoleExamples, Rule
from agentflow.runs.worker import Worker
from agentflow.settings import Document, Environment, Finding, Role, Settings, load

log = structlog.get_logger(__name__)
Progress = Callable[[str], None]
GATHER = 0.25
"""Seconds between being woken and working: turns come first, and several owe more than one."""


def silent(_step: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Place:
    """Where the configuration lies (`folder`: relative paths start there) and what the environment gives.

    `file` is read again when it changes; None: it never does.
    """

    settings: Settings
    environment: Environment
    folder: Path
    file: Path | None = None


@dataclass
class Services:
    """Everything a door needs, running. `needs` is what the graph was built from."""

    settings: Settings
    needs: graphs.Needs
    classifier: Intents
    feedback: Feedback
    threads: Threads
    connections: Connections
    ledger: PostgresLedger
    embedder: Embedder
    engine: Engine
    keeper: AdapterKeeper
    roster: Roster
    graph: graphs.Graph
    worker: Worker
    outbox: Outbox
    owed: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def running(place: Place, *, progress: Progress = silent) -> AsyncIterator[Services]:
    """Start everything, recover what a killed process left, and stop in the reverse order.

    Raises DatabaseDown, DataFolderBusy, SchemaMismatch, EmbedderError, ConfigError or StartError.
    """
    settings = place.settings
    async with AsyncExitStack() as stack:
        embedder = _embedder(place, progress)
        stack.push_async_callback(embedder.close)
        dsn, adapters = await _prepared(place, stack, embedder, progress)
        await asyncio.to_thread(migrate.migrate, dsn)
        connections = await open_connections(dsn, size=settings.postgres.pool_size)
        stack.push_async_callback(connections.close)
        services = await _assembled(place, stack, connections, embedder, adapters, progress)
        if settings.postgres.url is None:
            await services.ledger.release_all()
        await _in_background(stack, services, place)
        services.keeper.warm_at_start()
        yield services


@asynccontextmanager
async def routing_only(
    place: Place, lessons: Sequence[Lesson] = (), *, progress: Progress = silent
) -> AsyncIterator[Intents]:
    """The classifier as turns have it, without database and engine. Raises ConfigError and EmbedderError."""
    roles = [role_examples(name, role) for name, role in place.settings.roles.items()]
    embedder = _embedder(place, progress)
    try:
        await _opened(embedder)
        intents = Intents(embedder, roles, place.settings.router, place.environment.cache, lessons)
        await intents.open()
        yield intents
    finally:
        await embedder.close()


async def _prepared(
    place: Place, stack: AsyncExitStack, embedder: Embedder, progress: Progress
) -> tuple[str, Roster]:
    """Database, embedder and adapter files at once; all have ended before the first error is raised."""
    database = asyncio.create_task(_database(place, stack, progress))
    adapters = asyncio.create_task(_roster(place, progress))
    opened = asyncio.create_task(_opened(embedder))
    await asyncio.gather(database, adapters, opened, return_exceptions=True)
    opened.result()
    return database.result(), adapters.result()


async def _assembled(
    place: Place,
    stack: AsyncExitStack,
    connections: Connections,
    embedder: Embedder,
    adapters: Roster,
    progress: Progress,
) -> Services:
    settings = place.settings
    scopes = Scopes(connections, settings.collections, embedder.id, embedder.dim)
    ledger = PostgresLedger(connections, scopes, worker=_worker_name(), pause=settings.memory.session_pause)
    roles = [role_examples(name, role) for name, role in settings.roles.items()]
    feedback = Feedback(connections)
    lessons = await feedback.lessons()
    classifier = Intents(embedder, roles, settings.router, place.environment.cache, lessons)
    stack.push_async_callback(classifier.close)
    await classifier.open()
    engine = _engine(place, stack, progress)
    stack.push_async_callback(engine.close)
    keeper = AdapterKeeper(engine, adapters, settings.model.slots)
    stack.push_async_callback(keeper.close)
    fault = partial(_die_at, place.environment.fault) if place.environment.fault else graphs.no_fault
    needs = graphs.Needs(
        ledger=ledger,
        classifier=classifier,
        embedder=embedder,
        home=PostgresMemory(connections, scopes),
        engine=engine,
        keeper=keeper,
        roles=roles,
        settings=settings,
        fault=fault,
    )
    graph = graphs.build(needs)
    owed = asyncio.Event()
    worker = Worker(
        ledger=ledger,
        graph=graph,
        saver=lambda: TurnSaver(connections),
        turn_seconds=settings.server.turn_seconds,
        renewal=ledger.lease / 3,
        remembered=owed.set,
        fault=fault,
    )
    outbox = Outbox(connections, embedder)
    return Services(
        settings=settings,
        needs=needs,
        classifier=classifier,
        feedback=feedback,
        threads=Threads(connections),
        connections=connections,
        ledger=ledger,
        embedder=embedder,
        engine=engine,
        keeper=keeper,
        roster=adapters,
        graph=graph,
        worker=worker,
        outbox=outbox,
        owed=owed,
    )


async def _in_background(stack: AsyncExitStack, services: Services, place: Place) -> None:
    """The janitor, the relay, the sweep and the reader of the file; turns end before these do."""
    loops = [
        asyncio.create_task(_again(services.worker.recover, every=5.0), name="janitor"),
        asyncio.create_task(_again(services.outbox.drain, every=5.0, wake=services.owed), name="relay"),
        asyncio.create_task(_again(services.keeper.sweep, every=5.0), name="sweep"),
        asyncio.create_task(_again(Rereading(services, place).look, every=1.0), name="file"),
    ]

    async def stop() -> None:
        await services.worker.close(grace=20.0)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    stack.push_async_callback(stop)


async def _again(
    work: Callable[[], Awaitable[object]], *, every: float, wake: asyncio.Event | None = None
) -> None:
    """Run `work` for ever, at once when woken; an error is logged and the next round comes."""
    while True:
        try:
            await work()
        except AgentflowError as error:
            log.warning("background work will be tried again", reason=error.message)
        except Exception:
            log.exception("background work broke")
        if wake is None:
            await asyncio.sleep(every)
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), every)
        wake.clear()
        await asyncio.sleep(GATHER)


class Rereading:
    """Takes changed roles and router settings from the file while turns go on; the rest needs a new start.

    A file with mistakes changes nothing. Turns under way end with the roles they began with.
    """

    def __init__(self, services: Services, place: Place) -> None:
        self._services = services
        self._place = place
        self._seen = self._stamp()

    async def look(self) -> None:
        """Read the file again if it has changed. Raises ConfigError, EmbedderError."""
        stamp = self._stamp()
        if self._place.file is None or stamp in (None, self._seen):
            return
        self._seen = stamp
        settings = await asyncio.to_thread(load, self._place.file, self._place.environment)
        await self._take(settings)

    async def _take(self, settings: Settings) -> None:
        services = self._services
        kept = services.settings.model_copy(update={"roles": settings.roles, "router": settings.router})
        if kept == services.settings:
            return
        place = replace(self._place, settings=kept)
        found = await _roster(place, silent)
        roles = [role_examples(name, role) for name, role in kept.roles.items()]
        await services.classifier.replace(roles, kept.router)
        services.settings = kept
        services.roster = services.keeper.roster = found
        services.needs = replace(services.needs, roles=roles, settings=kept)
        services.graph = services.worker.graph = graphs.build(services.needs)
        log.info("roles read again", roles=list(kept.roles))

    def _stamp(self) -> tuple[int, int] | None:
        """When the file was written, and its size; None while an editor is replacing it."""
        try:
            state = None if self._place.file is None else self._place.file.stat()
        except FileNotFoundError:
            return None
        return None if state is None else (state.st_mtime_ns, state.st_size)


# --- choices -------------------------------------------------------------------------------


async def _database(place: Place, stack: AsyncExitStack, progress: Progress) -> str:
    postgres = place.settings.postgres
    if postgres.url is not None:
        return postgres.url.get_secret_value()
    options = EmbeddedOptions(
        data=postgres.data,
        bin_dir=postgres.bin_dir,
        start_timeout=postgres.start_timeout,
        run_as=postgres.run_as,
    )
    server = EmbeddedPostgres(options, progress=progress)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    return await asyncio.to_thread(server.start)


def _embedder(place: Place, progress: Progress) -> Embedder:
    chosen = place.settings.embedder
    if chosen.kind == "fake":
        return FakeEmbedder()
    if chosen.kind == "remote" and chosen.url is not None:
        key = chosen.api_key.get_secret_value() if chosen.api_key else None
        return RemoteEmbedder(chosen.url, model=chosen.model, api_key=key, timeout=chosen.timeout)
    return OnnxEmbedder(
        chosen.model, precision=chosen.precision, cache=place.environment.cache, progress=progress
    )


async def _opened(embedder: Embedder) -> None:
    """Embed one word: loads weights, checks a remote server, learns the dimension."""
    await embedder.embed(["hello"])


def _engine(place: Place, stack: AsyncExitStack, progress: Progress) -> Engine:
    model = place.settings.model
    if model.engine == "local":
        from agentflow.engines.local import LocalEngine  # noqa: PLC0415

        threads = model.threads or (1 if model.base == "tiny" else None)
        return LocalEngine(
            base_folder(place),
            device=model.device,
            threads=threads,
            max_batch=model.batch,
            thinking=model.thinking,
            progress=progress,
        )
    url = model.url
    if model.engine == "double":
        from agentflow.fakes.vllm import Options, serve  # noqa: PLC0415 - a web server that only this engine needs

        options = Options(
            max_loras=model.slots + 1, max_cpu_loras=model.slots + 1, max_lora_rank=model.max_rank
        )
        url = stack.enter_context(serve(options)).url
    timeouts = Timeouts(
        connect=model.timeouts.connect,
        first_token=model.timeouts.first_token,
        between_tokens=model.timeouts.between_tokens,
        total=model.timeouts.total,
    )
    key = model.api_key.get_secret_value() if model.api_key else None
    return Vllm(url, api_key=key, timeouts=timeouts, thinking=model.thinking)


def adapter_findings(place: Place, document: Document) -> list[Finding]:
    """What is wrong with the adapters' files, as findings in agentflow.yaml."""
    found = roster(place.settings, folder=place.folder, base=_base_shape(place))
    return [
        Finding(
            document.line(("roles", name, "lora_path")),
            f"roles.{name}.lora_path",
            place.settings.roles[name].lora_path or "",
            error.message,
        )
        for name, error in found.items()
        if isinstance(error, AdapterError)
    ]


def routing_findings(place: Place, document: Document) -> list[Finding]:
    """Examples that keep the router from starting, as findings in agentflow.yaml."""
    roles = [role_examples(name, role) for name, role in place.settings.roles.items()]
    try:
        examples_of(roles, place.settings.router)
    except ConfigError as error:
        path = tuple((error.field or "roles").split("."))
        return [Finding(document.line(path), error.field or "roles", str(error.value), error.message)]
    return []


async def _roster(place: Place, progress: Progress) -> Roster:
    if any(role.lora_path for role in place.settings.roles.values()):
        progress("checking adapters")
    base = await asyncio.to_thread(_base_shape, place)
    return await asyncio.to_thread(roster, place.settings, folder=place.folder, base=base)


def base_folder(place: Place) -> str:
    """A folder or hub id; `tiny` is the shipped model."""
    base = place.settings.model.base
    if base == "tiny":
        return str(tiny.BASE)
    local = place.folder / Path(base).expanduser()
    return str(local) if local.is_dir() else base


def _base_shape(place: Place) -> BaseShape | None:
    """The base's shapes where its config.json is at hand; a hub id is judged by the engine itself."""
    folder = Path(base_folder(place))
    return BaseShape.read(folder) if folder.is_dir() else None


def role_examples(name: str, role: Role) -> RoleExamples:
    """A role as routing sees it; one without description and examples is told by its name."""
    named = role.description or role.examples or role.intents
    return RoleExamples(
        name=name,
        title=role.title,
        description=role.description if named else name.replace("_", " ").replace("-", " "),
        examples=role.examples,
        intents=tuple(IntentExamples(one.name, one.description, tuple(one.examples)) for one in role.intents),
        rules=tuple(
            Rule.of_regex(one.regex) if one.regex is not None else Rule.of_keywords(one.keywords)
            for one in role.rules
        ),
        threshold=role.threshold,
    )


# --- small things --------------------------------------------------------------------------


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid_utils.uuid7()}"


def _die_at(point: str, reached: str) -> None:
    """Crash tests: SIGKILL at the named point."""
    if point == reached:
        os.kill(os.getpid(), signal.SIGKILL)


class Studio:
    """The graph for `langgraph dev`: services are opened at the first request and kept for the process."""

    def __init__(self, place: Callable[[], Place]) -> None:
        self._place = place
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._services: Services | None = None

    async def graph(self) -> graphs.Graph:
        """The one graph of this process."""
        async with self._opening:
            if self._services is None:
                self._services = await self._stack.enter_async_context(
                    running(await asyncio.to_thread(self._place))
                )
        return self._services.graph
