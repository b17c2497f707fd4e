"""What goes on beside turns: recovery, vectors owed, idle adapters, a changed file."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog

from agentflow.errors import AgentflowError
from agentflow.records.outbox import Outbox
from agentflow.records.signals import Signals
from agentflow.runs.summarizer import Summarizer
from agentflow.wiring.place import Place, Progress, silent
from agentflow.wiring.reload import Rereading
from agentflow.wiring.services import Services, assembled

log = structlog.get_logger(__name__)
LOOK = 3.0
"""Seconds that the start looks at an engine."""
BATCH = 64
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
    rereading = Rereading(services, place)
    services.reload = rereading.now
    loops = [
        asyncio.create_task(_again(services.worker.recover, every=5.0), name="janitor"),
        asyncio.create_task(signals.listen(), name="signals"),
        *await _jobs(stack, services),
        asyncio.create_task(
            _again(partial(_paid, services.outbox), every=5.0, wake=services.owed), name="relay"
        ),
        asyncio.create_task(_again(services.places.follow, every=1.0), name="places"),
        asyncio.create_task(_again(services.indexes.grow, every=60.0), name="indexes"),
        asyncio.create_task(_again(services.memories.retention.sweep, every=3600.0), name="retention"),
        asyncio.create_task(_again(services.keeper.sweep, every=5.0), name="sweep"),
        asyncio.create_task(
            _again(services.keeper.reconcile, every=15.0, wake=services.keeper.troubled), name="reconcile"
        ),
        asyncio.create_task(_again(services.callbacks.deliver, every=0.5), name="callbacks"),
        asyncio.create_task(_again(services.watching.look, every=5.0), name="memory of the machine"),
        asyncio.create_task(_again(rereading.look, every=1.0), name="file"),
    ]
    if services.settings.memory.summaries:
        summarizer = Summarizer(services.memories.summaries, services.engine, lambda: not worker.tasks)
        loops.append(asyncio.create_task(_again(summarizer.sum_up, every=60.0), name="summaries"))

    async def stop() -> None:
        await services.worker.close(grace=services.settings.server.drain)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    stack.push_async_callback(stop)


async def _jobs(stack: AsyncExitStack, services: Services) -> list[asyncio.Task[None]]:
    """Crons, webhooks and what else is kept as jobs; runs that end wake the webhooks."""
    jobs, served = services.served.jobs, services.served
    await jobs.open()
    stack.push_async_callback(jobs.close)
    return [
        asyncio.create_task(_again(jobs.run, every=1.0), name="jobs"),
        asyncio.create_task(_again(jobs.revive, every=60.0), name="revive"),
        asyncio.create_task(_again(served.clock.sweep, every=60.0), name="crons"),
        asyncio.create_task(
            _again(served.webhooks.owed, every=5.0, wake=services.worker.told), name="webhooks"
        ),
        asyncio.create_task(_again(served.tidy, every=300.0), name="tidy"),
    ]


async def _paid(outbox: Outbox) -> None:
    """Batch after batch while whole ones are owed, as after a large document; turns come in between."""
    while await outbox.drain(limit=BATCH) >= BATCH:  # noqa: ASYNC110 - what is owed grows in the database
        await asyncio.sleep(GATHER)


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
