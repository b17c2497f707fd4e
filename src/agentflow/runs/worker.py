"""The worker: accept, claim, execute, fence. A request listens; it does not own the turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from agentflow.errors import AgentflowError, DatabaseDown, EngineTimeout, LeaseLost, TurnFailed
from agentflow.graph import Graph
from agentflow.protocols import Acceptance, Lease, Ledger, Owner, Request, RunRecord
from agentflow.runs.feed import Feed
from agentflow.telemetry import Metrics
from agentflow.turn import Json

log = structlog.get_logger(__name__)
MAX_ATTEMPTS = 3
POLL = 0.25


@dataclass
class Worker:
    """Executes turns. `renewal` is the heartbeat in seconds, well under the ledger's lease."""

    ledger: Ledger
    graph: Graph
    saver: Callable[[Owner], Any]
    turn_seconds: float
    renewal: float = 10.0
    remembered: Callable[[], None] = lambda: None
    fault: Callable[[str], None] = lambda _point: None
    metrics: Metrics = field(default_factory=Metrics)
    feeds: dict[str, Feed] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: set[str] = field(default_factory=set)

    async def start(self, request: Request) -> Feed:
        """Commit the message, then let the turn run. The feed of a known idempotency key is the earlier turn's.

        Raises NotFound, Conflict and DatabaseDown; everything later is in the feed.
        """
        acceptance = await self.ledger.accept(request)
        self.fault("after_accept")
        if acceptance.fresh:
            return self._run(acceptance.record, acceptance.lease)
        return await self._join(acceptance)

    async def recover(self) -> int:
        """Take over turns whose worker has gone; how many."""
        taken = 0
        for run_id in await self.ledger.abandoned(limit=16):
            if run_id in self.feeds:
                continue
            lease = await self.ledger.claim(run_id)
            if lease is not None:
                taken += 1
                self.metrics.recovered.inc()
                log.warning("turn recovered", run_id=run_id, attempt=lease.attempt)
                self._run(await self.ledger.find(run_id, tenant=lease.tenant), lease)
        return taken

    def left(self, feed: Feed) -> None:
        """A reader has gone. What is done for its callers alone is stopped with the last of them."""
        if feed.closed or feed.readers:
            return
        self.stopped.add(feed.run_id)
        for task in self.tasks:
            if task.get_name() == f"turn {feed.run_id}":
                task.cancel()

    async def close(self, *, grace: float) -> None:
        """Let turns end for `grace` seconds; hand back the rest, for the next start to go on."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=grace)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _join(self, acceptance: Acceptance) -> Feed:
        record = acceptance.record
        if record.run_id in self.feeds:
            return self.feeds[record.run_id]
        if record.status == "done":
            return _told(record)
        if record.status == "failed":
            await self.ledger.reopen(record.run_id, tenant=record.tenant)
        return self._run(record, None)

    def _run(self, record: RunRecord, lease: Lease | None) -> Feed:
        feed = Feed(record.run_id, record.thread_id, meter=self.metrics.turn())
        self.feeds[record.run_id] = feed
        task = asyncio.create_task(self._work(feed, record, lease), name=f"turn {record.run_id}")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return feed

    async def _work(self, feed: Feed, record: RunRecord, lease: Lease | None) -> None:
        """The outermost loop of a turn: whatever happens ends in the feed."""
        structlog.contextvars.bind_contextvars(turn_id=feed.run_id, thread_id=feed.thread_id)
        error: AgentflowError | None = None
        try:
            lease = lease or await self._claimed(feed, record)
            if lease is not None:
                await self._execute(feed, lease)
        except AgentflowError as known:
            error = known
        except Exception:
            log.exception("turn broke", run_id=feed.run_id)
            error = AgentflowError("Something broke inside agentflow; its log says what.")
        finally:
            self.feeds.pop(feed.run_id, None)
            self.stopped.discard(feed.run_id)
            feed.close(error or AgentflowError("agentflow is shutting down; ask again.", retry_after=5))
            self.ended.set()

    async def _claimed(self, feed: Feed, record: RunRecord) -> Lease | None:
        """Wait for the thread's earlier turns; None when another process has finished this one meanwhile."""
        while True:
            lease = await self.ledger.claim(record.run_id)
            if lease is not None:
                return lease
            found = await self.ledger.find(record.run_id, tenant=record.tenant)
            if found.status in ("done", "failed"):
                _tell(feed, found)
                return None
            self.ended.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), POLL)

    async def _execute(self, feed: Feed, lease: Lease) -> None:
        if lease.attempt > 1:
            self.metrics.attempts.inc()
        if lease.attempt > MAX_ATTEMPTS:
            raise await self._failed(lease, TurnFailed(f"Given up after {MAX_ATTEMPTS} attempts."))
        try:
            async with asyncio.timeout(self.turn_seconds), self._heartbeat(lease):
                await self._stream(feed, lease)
        except TimeoutError:
            message = f"The turn took longer than server.turn_seconds = {self.turn_seconds:g}."
            raise await self._failed(lease, EngineTimeout(message)) from None
        except asyncio.CancelledError:
            await self._let_go(lease)
            raise
        except LeaseLost:
            raise
        except AgentflowError as error:
            if feed.result is None:
                raise await self._failed(lease, error) from error
            log.warning(
                "turn is written, but its checkpoint is not", run_id=lease.run_id, reason=error.message
            )
        except Exception:
            await self._failed(lease, AgentflowError("Something broke inside agentflow; its log says what."))
            raise
        self.remembered()

    async def _stream(self, feed: Feed, lease: Lease) -> None:
        graph = self.graph.copy({"checkpointer": self.saver(lease.owner)})
        config = {"configurable": {"thread_id": lease.thread_id, "run_id": lease.run_id}}
        given = {
            "text": lease.text,
            "wanted_role": lease.wanted_role,
            "lease": asdict(lease),
            "given": lease.given,
        }
        async for event in graph.astream(given, config, stream_mode="custom", durability="exit"):  # type: ignore[call-overload]
            feed.add(event)

    @contextlib.asynccontextmanager
    async def _heartbeat(self, lease: Lease) -> AsyncIterator[None]:
        """Renew while the body runs; losing the lease ends the body with LeaseLost."""
        owner = asyncio.current_task()
        lost: list[LeaseLost] = []

        async def beat() -> None:
            while True:
                await asyncio.sleep(self.renewal)
                try:
                    await self.ledger.renew(lease)
                except LeaseLost as error:
                    lost.append(error)
                    if owner is not None:
                        owner.cancel()
                    return
                except DatabaseDown as error:
                    log.warning("lease not renewed", run_id=lease.run_id, reason=error.message)

        beating = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            if lost and owner is not None:
                owner.uncancel()
                raise lost[0] from None
            raise
        finally:
            beating.cancel()

    async def _failed(self, lease: Lease, error: AgentflowError) -> AgentflowError:
        """Record the reason and return the error to raise. A database that is down leaves it to the janitor."""
        try:
            await self.ledger.fail(lease, as_json(error), final=True)
        except DatabaseDown as down:
            log.warning("failure not recorded yet", run_id=lease.run_id, reason=down.message)
        except LeaseLost as lost:
            return lost
        return error

    async def _let_go(self, lease: Lease) -> None:
        """Handed back to the next start; or at its end, where the caller has hung up."""
        final = lease.run_id in self.stopped
        reason: Json = {"error": "Interrupted", "message": "agentflow was shut down during this turn."}
        if final:
            reason = {"error": "Cancelled", "message": "The caller hung up before the answer was complete."}
        with contextlib.suppress(LeaseLost, DatabaseDown):
            await asyncio.shield(self.ledger.fail(lease, reason, final=final))


def as_json(error: AgentflowError) -> Json:
    """An error as callers and the ledger see it."""
    shown: Json = {"error": type(error).__name__, "message": error.message}
    if error.field is not None:
        shown |= {"field": error.field, "value": _short(error.value)}
    if error.retry_after is not None:
        shown["retry_after"] = error.retry_after
    return shown


def _short(value: object) -> object:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _told(record: RunRecord) -> Feed:
    feed = Feed(record.run_id, record.thread_id)
    _tell(feed, record)
    feed.close()
    return feed


def _tell(feed: Feed, record: RunRecord) -> None:
    if record.result is not None:
        feed.add({"event": "done", **record.result})
        return
    reason = (record.error or {}).get("message", "for a reason that was not recorded")
    raise TurnFailed(f"The turn failed: {reason}")
