"""One attempt at a run: the graph under its lease, kept alive, fenced, and its end written whatever happens."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from agentflow.errors import (
    AgentflowError,
    DatabaseDown,
    GraphFailed,
    LeaseLost,
    TurnFailed,
)
from agentflow.graph import Graph
from agentflow.protocols import Lease, Ledger, Owner
from agentflow.runs.feed import Feed
from agentflow.runs.graphs import fenced
from agentflow.runs.leases import Leases
from agentflow.runs.limit import within
from agentflow.runs.protocol import ProtocolRuns
from agentflow.runs.registry import OWN
from agentflow.telemetry import Metrics
from agentflow.telemetry.traces import NoSpans, Spans
from agentflow.turn import Json

log = structlog.get_logger(__name__)
MAX_ATTEMPTS = 3
PAUSE = 1.0
"""Seconds until a lost database is tried again."""


@dataclass
class Attempts:
    """Executes turns, and the runs of the LangGraph protocol where `protocol` is there.

    `renewal` is the heartbeat in seconds, well under the ledger's lease.
    """

    ledger: Ledger
    graph: Graph
    saver: Callable[[Owner], Any]
    turn_seconds: float
    renewal: float = 10.0
    remembered: Callable[[], None] = lambda: None
    """Called when a turn of ours has ended, whose memories are owed their vectors; other graphs leave none."""
    metrics: Metrics = field(default_factory=Metrics)
    spans: Spans = field(default_factory=NoSpans)
    protocol: ProtocolRuns | None = None
    stops: dict[str, str] = field(default_factory=dict)
    """How runs shall stop that were asked to."""
    leases: Leases = field(init=False)

    def halt(self, run_id: str, how: str, task: asyncio.Task[Any]) -> None:
        """Stop a run that the task works on; `how` is "interrupt", "rollback" or "left"."""
        if run_id not in self.stops:
            self.stops[run_id] = how
            # Not before its first step, which would then never come, nor what ends a run.
            asyncio.get_running_loop().call_soon(task.cancel)

    def __post_init__(self) -> None:
        self.leases = Leases(self.ledger, self.renewal)

    async def execute(self, feed: Feed, lease: Lease) -> None:
        """To the committed end. Raises what ended the run, and CancelledError when this process ends.

        LeaseLost: the run goes on with another attempt, here or elsewhere.
        """
        if lease.attempt > 1:
            self.metrics.attempts.inc()
        if lease.attempt > MAX_ATTEMPTS:
            raise await self._failed(feed, lease, TurnFailed(f"Given up after {MAX_ATTEMPTS} attempts."))
        try:
            async with self._under(lease):
                with self.spans.turn(run_id=lease.run_id, thread_id=lease.thread_id, attempt=lease.attempt):
                    await self._stream(feed, lease)
        except asyncio.CancelledError:
            await self._left(feed, lease)
        except LeaseLost:
            raise
        except AgentflowError as error:
            if isinstance(error, DatabaseDown) and lease.work is not None:
                raise await self._put_off(lease, error) from error
            if feed.result is None:
                raise await self._failed(feed, lease, error) from error
            log.warning(
                "turn is written, but its checkpoint is not", run_id=lease.run_id, reason=error.message
            )
        except Exception:
            broken = AgentflowError("Something broke inside agentflow; its log says what.")
            await self._failed(feed, lease, broken)
            raise
        if lease.graph == OWN:
            self.remembered()

    async def _left(self, feed: Feed, lease: Lease) -> None:
        """Cancelled: because somebody asked for it, or because this process ends."""
        how, task = self.stops.get(lease.run_id), asyncio.current_task()
        if how in (None, "left") or task is None:
            await (self._unheard(feed, lease) if how == "left" else self._handed_back(lease))
            raise asyncio.CancelledError
        task.uncancel()
        await self._of_protocol.stopped(feed, lease, str(how))

    async def _stream(self, feed: Feed, lease: Lease) -> None:
        if lease.work is not None:
            await self._of_protocol.execute(feed, lease, seconds=self.turn_seconds)
            return
        await within(self.turn_seconds, self._turn(feed, lease))

    async def _turn(self, feed: Feed, lease: Lease) -> None:
        graph = self.graph.copy({"checkpointer": fenced(self.saver(lease.owner), lease)})
        config = {"configurable": {"thread_id": lease.thread_id, "run_id": lease.run_id}}
        given = {
            "text": lease.text,
            "wanted_role": lease.wanted_role,
            "lease": asdict(lease),
            "given": lease.given,
        }
        async for event in graph.astream(given, config, stream_mode="custom", durability="exit"):  # type: ignore[call-overload]
            feed.add(event)

    def _under(self, lease: Lease) -> AbstractAsyncContextManager[None]:
        """The lease is kept while the body runs; losing it ends the body with LeaseLost."""
        task = asyncio.current_task()
        return self.leases.kept(
            lease, lambda how: None if task is None else self.halt(lease.run_id, how, task)
        )

    async def _failed(self, feed: Feed, lease: Lease, error: AgentflowError) -> AgentflowError:
        """Record the reason and return the error to raise. A database that is down leaves it to the janitor."""
        try:
            if self.protocol is not None and lease.work is not None:
                await self.protocol.failed(feed, lease, as_json(error))
            else:
                await self.ledger.fail(lease, as_json(error), final=True)
        except DatabaseDown as down:
            log.warning("failure not recorded yet", run_id=lease.run_id, reason=down.message)
        except LeaseLost as lost:
            return lost
        return error

    async def _put_off(self, lease: Lease, down: DatabaseDown) -> LeaseLost:
        """Leave a run to another attempt because the database went away in its middle; as soon as it is back."""
        log.warning("run waits for its database", run_id=lease.run_id, reason=down.message)
        while True:
            try:
                await self.ledger.fail(lease, as_json(down), final=False)
            except DatabaseDown:
                await asyncio.sleep(PAUSE)
            except LeaseLost as lost:
                return lost
            else:
                return LeaseLost(f"Attempt {lease.attempt} of run {lease.run_id} has lost its database.")

    async def _handed_back(self, lease: Lease) -> None:
        """To the next start."""
        reason: Json = {"error": "Interrupted", "message": "agentflow was shut down during this turn."}
        with contextlib.suppress(LeaseLost, DatabaseDown):
            await asyncio.shield(self.ledger.fail(lease, reason, final=False))

    async def _unheard(self, feed: Feed, lease: Lease) -> None:
        """Its callers have hung up; the part that they heard is kept."""
        reason: Json = {"error": "Cancelled", "message": "The caller hung up before the answer was complete."}
        said = "".join(one["text"] for one in feed.events if one["event"] == "token")
        with contextlib.suppress(LeaseLost, DatabaseDown):
            await asyncio.shield(self.ledger.cancel(lease, reason, said=said))

    @property
    def _of_protocol(self) -> ProtocolRuns:
        if self.protocol is None:
            raise AgentflowError("This worker executes turns only.")
        return self.protocol


def as_json(error: AgentflowError) -> Json:
    """An error as callers and the ledger see it."""
    kind = error.kind if isinstance(error, GraphFailed) else type(error).__name__
    shown: Json = {"error": kind, "message": error.message}
    if error.field is not None:
        shown["field"] = error.field
    if error.value is not None:
        shown["value"] = _short(error.value)
    if error.retry_after is not None:
        shown["retry_after"] = error.retry_after
    return shown


def _short(value: object) -> object:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
