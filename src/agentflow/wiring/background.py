"""What goes on beside turns: recovery, vectors owed, idle adapters, a changed file."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog

from agentflow.ending import end
from agentflow.errors import AgentflowError
from agentflow.records.jobs import Later
from agentflow.records.memory.outbox import Outbox
from agentflow.records.signals import Signals
from agentflow.runs.summarizer import Summarizer
from agentflow.turn import Json
from agentflow.wiring.news import News
from agentflow.wiring.place import Place, Progress, silent
from agentflow.wiring.reload import Rereading
from agentflow.wiring.services import Services, assembled

log = structlog.get_logger(__name__)
LOOK = 3.0
"""Seconds that the start looks at an engine."""
BATCH = 64
PAUSE = 5.0
"""Seconds until an embedder that refuses is asked again."""
EMBED = "embed"
MINUTE = "* * * * *"
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
    """What each process does for itself; turns end before it does. What one does for all is a job."""
    worker = services.worker
    news = News(
        services.ledger.worker, worker, services.ledger.scopes, services.feedback, services.classifier
    )
    signals = Signals(services.connections.dsn, news.heard, news.missed)
    rereading = Rereading(services, place)
    services.reload = rereading.now
    loops = [
        asyncio.create_task(_again(services.worker.recover, every=5.0), name="janitor"),
        asyncio.create_task(_again(signals.listen, every=1.0), name="signals"),
        asyncio.create_task(_again(news.relearn, every=300.0, wake=news.due), name="lessons"),
        *await _jobs(stack, services),
        asyncio.create_task(_again(services.places.follow, every=1.0), name="places"),
        asyncio.create_task(_again(services.keeper.sweep, every=5.0), name="sweep"),
        asyncio.create_task(
            _again(services.keeper.reconcile, every=15.0, wake=services.keeper.troubled), name="reconcile"
        ),
        asyncio.create_task(
            _again(services.spending.tell, every=30.0, wake=services.spending.changed), name="spending"
        ),
        asyncio.create_task(_again(services.watching.look, every=5.0), name="memory of the machine"),
        asyncio.create_task(_again(rereading.look, every=1.0), name="file"),
    ]

    async def stop() -> None:
        await services.worker.close(grace=services.settings.server.drain)
        await end(loops)

    stack.push_async_callback(stop)


async def _jobs(stack: AsyncExitStack, services: Services) -> list[asyncio.Task[None]]:
    """The library's worker, and what it is to do for all processes: callbacks and crons are named elsewhere."""
    jobs, served = services.served.jobs, services.served
    jobs.on(EMBED, partial(_paid, services.outbox))
    jobs.every(MINUTE, "owed", partial(_asked, services))
    jobs.every(MINUTE, "crons", served.clock.sweep)
    jobs.every(MINUTE, "indexes", services.indexes.grow)
    jobs.every(MINUTE, "summaries", partial(_summed_up, services))
    jobs.every("*/5 * * * *", "tidy", served.tidy)
    jobs.every("*/10 * * * *", "spending", services.spending.forget)
    jobs.every("*/10 * * * *", "claims", services.claims.sweep)
    jobs.every("*/10 * * * *", "retention", services.memories.retention.sweep)
    await jobs.open()
    stack.push_async_callback(jobs.close)
    if services.settings.postgres.url is None:
        await jobs.revive(alone=True)
    return [
        asyncio.create_task(_again(jobs.run, every=1.0), name="jobs"),
        asyncio.create_task(_again(jobs.revive, every=20.0), name="revive"),
        asyncio.create_task(_again(partial(_asked, services), every=600.0, wake=services.owed), name="owed"),
    ]


async def _asked(services: Services) -> None:
    """A job for what memories are owed; one waits at a time, and one is done at a time for each process that asks."""
    await services.served.jobs.defer(EMBED, {}, once=services.ledger.worker)


async def _paid(outbox: Outbox, _payload: Json) -> None:
    """Batch after batch while whole ones are owed, as after a large document; turns come in between. Raises Later."""
    while max(await outbox.drain(limit=BATCH), await outbox.learn(limit=BATCH)) >= BATCH:  # noqa: ASYNC110 - in tables
        await asyncio.sleep(GATHER)
    if await outbox.put_off():
        raise Later("The embedder refuses.", pause=PAUSE)


async def _summed_up(services: Services) -> None:
    if services.settings.memory.summaries:
        worker = services.worker
        await Summarizer(services.memories.summaries, services.engine, lambda: not worker.tasks).sum_up()


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
            async with asyncio.timeout(every):
                await wake.wait()
        wake.clear()
        await asyncio.sleep(GATHER)
