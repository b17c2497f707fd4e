"""The worker: accept, claim, execute, fence. A request listens; it does not own the turn."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from agentflow.ending import end
from agentflow.errors import (
    AgentflowError,
    DatabaseDown,
    LeaseLost,
    NotFound,
    TooMany,
    TurnFailed,
)
from agentflow.protocols import Acceptance, Lease, Ledger, Owner, Request, RunRecord
from agentflow.records.protocol.accepting import NewRun
from agentflow.runs.attempts import Attempts
from agentflow.runs.feed import Feed
from agentflow.runs.following import Following
from agentflow.runs.protocol import ProtocolRuns
from agentflow.runs.seats import Seats
from agentflow.runs.thread_stream import begun
from agentflow.runs.wakes import Wakes, woken
from agentflow.telemetry import Metrics
from agentflow.turn import Json

log = structlog.get_logger(__name__)
MAX_ATTEMPTS = 3
PAUSE = 1.0
"""Seconds until a lost database is asked again."""
PATIENCE = 20.0
"""Seconds after which a waiting run looks again although nobody has woken it: for signals that were lost."""


@dataclass(frozen=True)
class Most:
    """How many runs may be open: of all tenants in this process, and of one tenant in all processes."""

    runs: int = 4096
    of_tenant: int = 2048


@dataclass
class Worker:
    """Runs of this process, from their acceptance to their end; `attempts` executes them."""

    ledger: Ledger
    attempts: Attempts
    fault: Callable[[str], None] = lambda _point: None
    most: Most = field(default_factory=Most)
    seats: Seats = field(default_factory=lambda: Seats(1024))
    metrics: Metrics = field(default_factory=Metrics)
    wakes: Wakes = field(default_factory=Wakes)
    feeds: dict[str, Feed] = field(default_factory=dict)
    open: Counter[int] = field(default_factory=Counter)
    everywhere: Mapping[int, int] = field(default_factory=dict)
    """Open runs by tenant, as the ledger had them at the last look; `since`: what has changed here."""
    since: Counter[int] = field(default_factory=Counter)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    seated: set[str] = field(default_factory=set)
    """The runs that are executed here; of those in `tasks` the others wait."""
    crowded: bool = False
    """Somewhere a run waits for a seat."""
    helping: asyncio.Task[None] | None = None
    closing: bool = False
    protocol: ProtocolRuns | None = field(init=False)
    following: Following = field(init=False)

    def __post_init__(self) -> None:
        self.protocol = self.attempts.protocol
        if self.protocol is not None:
            self.following = Following(self.protocol.runs, self.protocol.log, self.wakes, self.feeds)

    async def start(self, request: Request) -> Feed:
        """Commit the message, then let the turn run. The feed of a known idempotency key is the earlier turn's.

        Raises NotFound, Conflict and DatabaseDown; everything later is in the feed.
        """
        self._has_room(request.tenant)
        with self.seats.tried() as seat:
            acceptance = await self.ledger.accept(request, now=seat.taken)
            seat.kept = acceptance.lease is not None
        self.fault("after_accept")
        if acceptance.fresh:
            return self._run(Feed.of(acceptance.record), acceptance.record.tenant, acceptance.lease)
        return await self._join(acceptance)

    async def submit(self, new: NewRun) -> tuple[Json, Feed]:
        """Commit a run of the protocol, then let it run; the run as clients see it, and its feed.

        Of a known idempotency key they are the earlier run's. Raises NotFound, Busy, Conflict, TooMany and
        DatabaseDown; everything later is in the feed.
        """
        self._has_room(new.tenant)
        with self.seats.tried() as seat:
            accepted = await self._protocol.accepting.accept(new, now=seat.taken)
            seat.kept = accepted.lease is not None
        if not accepted.fresh:
            run = accepted.run
            return run, self.follow(run["run_id"], run["thread_id"], Owner(new.tenant, new.user))
        self.fault("after_accept")
        for run_id in accepted.stopped:
            self.halt(run_id, accepted.how)
        feed = Feed(accepted.run["run_id"], accepted.run["thread_id"])
        feed.place = accepted.place
        self._protocol.begin(feed, new.work, watched=accepted.heard)
        return accepted.run, self._run(feed, new.tenant, accepted.lease, after=new.after)

    async def stop(self, run_ids: Sequence[str], how: str, *, tenant: int) -> list[str]:
        """Ask for the end of open runs, whoever works on them; those that were open."""
        asked = await self._protocol.runs.stop(run_ids, how, tenant=tenant)
        for run_id, working in asked:
            if working:
                self.halt(run_id, how)
            else:
                self.wakes.every(run_id)
        return [run_id for run_id, _ in asked]

    def follow(self, run_id: str, thread_id: str, owner: Owner) -> Feed:
        """The feed of a run of the protocol, whoever works on it; of an ended one it is closed soon."""
        return self.following.feed(run_id, thread_id, owner)

    async def forget_events(self) -> None:
        """Remove logged events that are too old. Raises DatabaseDown."""
        await self._protocol.log.forget()

    def halt(self, run_id: str, how: str) -> None:
        """Stop a run that this process works on; `how` is "interrupt" or "rollback"."""
        task = self.tasks.get(run_id)
        if task is not None:
            self.attempts.halt(run_id, how, task)

    def heard(self, kind: str, which: str, extra: str) -> None:
        """Take a signal of another process, or an echo of our own."""
        match kind:
            case "stop":
                self.halt(which, extra)
            case "thread":
                self.wakes.first(which)
            case "watch" if self.protocol is not None and which in self.feeds:
                self.protocol.watched(self.feeds[which])
            case "run":
                self.wakes.every(which)
            case "pending":
                self.crowded = True
                self._help()
            case "begun":
                self.wakes.every(begun(which))
            case _:
                pass

    async def recover(self) -> int:
        """Take over turns whose worker has gone, while there are seats; how many."""
        taken = 0
        self.everywhere, self.since = await self.ledger.open_runs(), Counter()
        for run_id in await self.ledger.abandoned(limit=16, known=list(self.feeds)):
            with self.seats.tried() as seat:
                if not seat.taken:
                    break
                lease = await self.ledger.claim(run_id)
                seat.kept = lease is not None
            if lease is not None:
                taken += 1
                self.metrics.recovered.inc()
                log.warning("turn recovered", run_id=run_id, attempt=lease.attempt)
                self._go_on(lease)
        return taken

    def figures(self) -> dict[tuple[str, ...], float]:
        """Runs that are executed here, that wait here, and how many may be executed at once."""
        running = len(self.seated)
        return {("running",): running, ("waiting",): len(self.tasks) - running, ("most",): self.seats.most}

    def left(self, feed: Feed) -> None:
        """A reader has gone. What is done for its callers alone is stopped with the last of them."""
        if feed.closed or feed.readers:
            return
        self.halt(feed.run_id, "left")

    async def close(self, *, grace: float) -> None:
        """Let turns end for `grace` seconds; what waits and the rest go on in other processes or at the next start."""
        self.closing = True
        waiting = {run_id: task for run_id, task in self.tasks.items() if run_id not in self.seated}
        await end(waiting.values())
        if waiting:
            with contextlib.suppress(DatabaseDown):
                await self.ledger.leave(list(waiting))
        tasks = list(self.tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        await end(tasks)
        await self.attempts.leases.close()
        if self.helping is not None:
            await asyncio.gather(self.helping, return_exceptions=True)
        if self.protocol is not None:
            await self.following.close()

    @property
    def _protocol(self) -> ProtocolRuns:
        if self.protocol is None:
            raise AgentflowError("This worker executes turns only.")
        return self.protocol

    async def _join(self, acceptance: Acceptance) -> Feed:
        record = acceptance.record
        if record.run_id in self.feeds:
            return self.feeds[record.run_id]
        if record.status == "done":
            return _told(record)
        if record.status in ("failed", "cancelled"):
            await self.ledger.reopen(record.run_id, tenant=record.tenant)
        elif self.protocol is not None:
            # Another process may work on it, which signals its end to who asked for that.
            await self.protocol.runs.watch(record.run_id, tenant=record.tenant)
        return self._run(Feed.of(record), record.tenant, None)

    def _has_room(self, tenant: int) -> None:
        """Raises TooMany, before anything is written."""
        theirs = max(self.open[tenant], self.everywhere.get(tenant, 0) + self.since[tenant])
        if len(self.tasks) < self.most.runs and theirs < self.most.of_tenant:
            return
        self.metrics.refused.labels("runs").inc()
        raise TooMany(
            f"Too many runs are open (limits.runs = {self.most.runs}, limits.tenant_runs = {self.most.of_tenant}); "
            "let some end.",
            field="limits.runs",
            retry_after=2,
        )

    def _help(self) -> None:
        """Take a run that waits elsewhere, while there are seats here."""
        if self.crowded and not self.closing and (self.helping is None or self.helping.done()):
            self.helping = asyncio.create_task(self._helped(), name="runs of other processes")

    async def _helped(self) -> None:
        while self.crowded:
            with self.seats.tried() as seat:
                if not seat.taken:
                    return
                self.crowded = False
                try:
                    lease = await self.ledger.claim_next(list(self.feeds))
                except AgentflowError as error:
                    log.warning("runs of other processes are not asked for", reason=error.message)
                    return
                seat.kept = lease is not None
            if lease is not None:
                self.crowded = True
                self._go_on(lease)

    def _go_on(self, lease: Lease) -> None:
        """Execute a run that another process has accepted."""
        feed = Feed(lease.run_id, lease.thread_id)
        if self.protocol is not None and lease.work is not None:
            self.protocol.begin(feed, lease.work, watched=lease.watched, attempt=lease.attempt)
        self._run(feed, lease.tenant, lease)

    def _run(self, feed: Feed, tenant: int, lease: Lease | None, *, after: float = 0.0) -> Feed:
        self.feeds[feed.run_id] = feed
        self.open[tenant] += 1
        self.since[tenant] += 1
        feed.meter = self.metrics.turn()
        if lease is not None:
            self.seated.add(feed.run_id)
        work = self._work(feed, tenant, lease, after)
        self.tasks[feed.run_id] = asyncio.create_task(work, name=f"turn {feed.run_id}")
        return feed

    async def _work(self, feed: Feed, tenant: int, lease: Lease | None, after: float) -> None:
        """The outermost loop of a turn: whatever happens ends in the feed."""
        structlog.contextvars.bind_contextvars(turn_id=feed.run_id, thread_id=feed.thread_id)
        error: AgentflowError | None = AgentflowError("agentflow is shutting down; ask again.", retry_after=5)
        try:
            if after > 0:
                await asyncio.sleep(after)
            await self._executed(feed, tenant, lease)
            error = None
        except AgentflowError as known:
            error = known
        except Exception:
            log.exception("turn broke", run_id=feed.run_id)
            error = AgentflowError("Something broke inside agentflow; its log says what.")
        finally:
            self.open[tenant] -= 1
            self.since[tenant] -= 1
            self._unseated(feed.run_id)
            for known_by in (self.feeds, self.tasks, self.attempts.stops):
                known_by.pop(feed.run_id, None)
            if self.protocol is not None:
                self.protocol.left(feed.run_id)
            feed.close(error)
            self.wakes.first(feed.thread_id)
            self.wakes.every(feed.run_id)

    async def _executed(self, feed: Feed, tenant: int, lease: Lease | None) -> None:
        """To the run's end, here or elsewhere: who reads it here goes on reading when an attempt does not get there."""
        while (lease := lease or await self._claimed(feed, tenant)) is not None:
            try:
                await self.attempts.execute(feed, lease)
            except LeaseLost as lost:
                self.metrics.leases_lost.inc()
                log.warning("run goes on with another attempt", run_id=feed.run_id, reason=lost.message)
                lease = None
                self._unseated(feed.run_id)
            else:
                return

    def _unseated(self, run_id: str) -> None:
        if run_id in self.seated:
            self.seated.discard(run_id)
            self.seats.give()
            self._help()

    async def _claimed(self, feed: Feed, tenant: int) -> Lease | None:
        """Wait for the thread's earlier turns, and a seat; None when another process has finished it meanwhile."""
        with self.wakes.on(feed.thread_id, feed.run_id) as event:
            try:
                while True:
                    try:
                        lease = await self._claimed_now(feed.run_id, event)
                        if lease is not None or await self._ended(feed, tenant):
                            return lease
                    except DatabaseDown as down:
                        log.warning("run waits for its database", run_id=feed.run_id, reason=down.message)
                        await asyncio.sleep(PAUSE)
                        continue
                    await woken(event, within=PATIENCE)
            finally:
                self.seats.leave(event)

    async def _claimed_now(self, run_id: str, event: asyncio.Event) -> Lease | None:
        """With a seat, if there is one and the run comes first in its thread."""
        if not self.seats.take(event):
            await self.ledger.offer(run_id)
            return None
        try:
            lease = await self.ledger.claim(run_id)
        except BaseException:
            self.seats.give()
            raise
        if lease is None:
            self.seats.give()
        else:
            self.seated.add(run_id)
        return lease

    async def _ended(self, feed: Feed, tenant: int) -> bool:
        """Whether the run has ended without us; what another process logs of it is told here too."""
        try:
            found = await self.ledger.find(feed.run_id, tenant=tenant)
        except NotFound:
            return True
        if self.protocol is not None and feed.stream is not None:
            await self.following.mirror(feed, Owner(tenant))
        elif found.status in ("done", "failed"):
            _tell(feed, found)
        return found.status in ("done", "failed", "cancelled")


def _told(record: RunRecord) -> Feed:
    feed = Feed.of(record)
    _tell(feed, record)
    feed.close()
    return feed


def _tell(feed: Feed, record: RunRecord) -> None:
    if record.result is not None:
        feed.add({"event": "done", **record.result})
        return
    reason = (record.error or {}).get("message", "for a reason that was not recorded")
    raise TurnFailed(f"The turn failed: {reason}")
