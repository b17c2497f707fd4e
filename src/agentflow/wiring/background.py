"""What goes on beside turns: recovery, vectors owed, idle adapters, a changed file."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import structlog

from agentflow import graph as graphs
from agentflow.errors import AgentflowError
from agentflow.records.signals import Signals
from agentflow.runs.registry import OWN
from agentflow.settings import Collection, Settings, load
from agentflow.wiring import choices
from agentflow.wiring.homes import vector_homes
from agentflow.wiring.place import Place, Progress, silent
from agentflow.wiring.roles import role_examples
from agentflow.wiring.services import Services, assembled

log = structlog.get_logger(__name__)
LOOK = 3.0
"""Seconds that the start looks at an engine."""
GATHER = 0.25
"""Seconds between being woken and working: turns come first, and several owe more than one."""


@asynccontextmanager
async def running(place: Place, *, progress: Progress = silent) -> AsyncIterator[Services]:
    """Everything started, with its background work; what a killed process left is recovered.

    Raises DatabaseDown, DataFolderBusy, SchemaMismatch, EmbedderError, ConfigError or StartError.
    """
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(assembled(place, progress=progress))
        await _in_background(stack, services, place)
        await _settled_in(services)
        yield services


async def _settled_in(services: Services) -> None:
    """What the engine has already is taken over before anything is loaded; an engine that hangs is not waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK):
            await services.keeper.reconcile()
    services.keeper.warm_at_start()


async def _in_background(stack: AsyncExitStack, services: Services, place: Place) -> None:
    """The janitor, the relay, the sweep and the reader of the file; turns end before these do."""
    worker = services.worker
    signals = Signals(services.connections.dsn, worker.heard, worker.wakes.everybody)
    loops = [
        asyncio.create_task(_again(services.worker.recover, every=5.0), name="janitor"),
        asyncio.create_task(signals.listen(), name="signals"),
        asyncio.create_task(_again(services.outbox.drain, every=5.0, wake=services.owed), name="relay"),
        asyncio.create_task(_again(services.places.follow, every=1.0), name="places"),
        asyncio.create_task(_again(services.indexes.grow, every=60.0), name="indexes"),
        asyncio.create_task(_again(services.keeper.sweep, every=5.0), name="sweep"),
        asyncio.create_task(
            _again(services.keeper.reconcile, every=15.0, wake=services.keeper.troubled), name="reconcile"
        ),
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
    task = asyncio.current_task()
    while True:
        try:
            await work()
        except AgentflowError as error:
            log.warning("background work will be tried again", reason=error.message)
        except Exception:
            log.exception("background work broke")
        if (
            task is not None and task.cancelling()
        ):  # a driver told to stop in a statement may raise its own error
            return
        if wake is None:
            await asyncio.sleep(every)
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), every)
        wake.clear()
        await asyncio.sleep(GATHER)


class Rereading:
    """Takes changed roles, router settings and places of collections from the file while turns go on.

    The rest needs a new start. A file with mistakes changes nothing. Turns under way end with the roles they began
    with.
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
        await self._move(settings)
        kept = services.settings.model_copy(update={"roles": settings.roles, "router": settings.router})
        if kept == services.settings:
            return
        place = replace(self._place, settings=kept)
        found = await choices.adapters(place, silent, services.keeper.cached)
        roles = [role_examples(name, role) for name, role in kept.roles.items()]
        await services.classifier.replace(roles, kept.router)
        services.settings = kept
        services.keeper.adopt(found)
        services.needs = replace(services.needs, roles=roles, settings=kept)
        services.graph = services.worker.graph = graphs.build(services.needs)
        services.served.registry.replace(OWN, services.graph)
        log.info("roles read again", roles=list(kept.roles))

    async def _move(self, settings: Settings) -> None:
        """Collections whose place has changed move there, while the former one answers."""
        services = self._services
        former = services.settings.collections
        moving = {
            name: found
            for name, found in settings.collections.items()
            if name in former and _place_of(found) != _place_of(former[name])
        }
        homes = vector_homes(moving, self._place.folder, services.embedder.dim)
        for name, found in moving.items():
            log.info("a collection moves", collection=name, backend=found.backend)
            await services.places.move(name, homes.get(name), within=found.options.timeout)
        collections = {**former, **moving}
        services.settings = services.settings.model_copy(update={"collections": collections})

    def _stamp(self) -> tuple[int, int] | None:
        """When the file was written, and its size; None while an editor is replacing it."""
        try:
            state = None if self._place.file is None else self._place.file.stat()
        except FileNotFoundError:
            return None
        return None if state is None else (state.st_mtime_ns, state.st_size)


def _place_of(collection: Collection) -> tuple[object, ...]:
    return collection.backend, collection.location, collection.options
