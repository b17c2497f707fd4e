"""Moves under way: each is a task, begins when its way is free, and tells how it ended."""

import asyncio
from collections.abc import Callable

import structlog

from agentflow.ending import end
from agentflow.errors import AdapterError, AgentflowError, NoRoom
from agentflow.residency.carrier import Carrier
from agentflow.residency.cast import Cast
from agentflow.residency.measures import Measures
from agentflow.residency.places import UPWARDS, Place
from agentflow.residency.plan import Tier, Why

log = structlog.get_logger(__name__)
Ended = Callable[[Place, Tier, AgentflowError | None], None]


class Traffic:
    """Starts and ends moves. One move per adapter and tier at a time, whoever asks for it.

    `disk_limit` bounds fetched bytes. `ended` is told of every end: with an error, or None; `stir` asks the plan
    again in the middle of a move.
    """

    def __init__(
        self,
        carrier: Carrier,
        cast: Cast,
        measures: Measures,
        *,
        disk_limit: int | None,
        ended: Ended,
        stir: Callable[[], None],
    ) -> None:
        self.carrier = carrier
        self.loading: set[str] = set()
        self.ram_is_full = False
        self._cast = cast
        self._measures = measures
        self._disk_limit = disk_limit
        self._ended = ended
        self._stir = stir
        self._tasks: set[asyncio.Task[None]] = set()

    # --- up

    def bring(self, place: Place, tier: Tier, why: Why) -> None:
        """Into the tier, unless it is there or on its way."""
        if tier in place.moving or tier in place.tiers:
            return
        place.began[tier] = self._measures.clock()
        self._measures.tally.moves[place.role, tier, why] += 1
        task = asyncio.create_task(self._rise(place, tier), name=f"{place.role} into {tier}")
        place.moving[tier] = task
        if tier == "vram":
            self.loading.add(place.key)
        self._keep(task, lambda done: self._risen(place, tier, done))

    async def _rise(self, place: Place, tier: Tier) -> None:
        """After the tiers below, and after those have left who make room."""
        for below in UPWARDS[: UPWARDS.index(tier)]:
            if below in place.moving:
                await asyncio.shield(place.moving[below])
        if tier == "disk":
            await self._make_room_on_disk(place)
        await asyncio.gather(*self._leaving(tier), *place.leaving.values(), return_exceptions=True)
        began = place.began[tier] = self._measures.clock()
        try:
            await self.carrier.bring(place, tier)
        except NoRoom as error:
            if tier != "ram":
                raise
            # Memory is a short cut: without it the engine reads the disk.
            self.ram_is_full = True
            log.warning("adapter is loaded from disk", adapter=place.name, reason=error.message)
            return
        seconds = self._measures.clock() - began
        place.tiers.add(tier)
        self._measures.arrived(place, tier, seconds)
        log.info("adapter moved", adapter=place.name, into=tier, seconds=round(seconds, 3))

    def _risen(self, place: Place, tier: Tier, done: asyncio.Task[None]) -> None:
        place.moving.pop(tier, None)
        self.loading.discard(place.key if tier == "vram" else "")
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, AgentflowError):
            log.error("a move of an adapter broke", adapter=place.name, into=tier, exc_info=error)
            error = AdapterError(f"The adapter of {place.role} could not be moved into {tier}.")
        place.tell()
        self._ended(place, tier, error)

    async def _make_room_on_disk(self, place: Place) -> None:
        """What a download will take is known only once its source was asked."""
        place.octets = max(place.octets, await self.carrier.weigh(place))
        self._stir()
        await asyncio.gather(*self._leaving("disk"), return_exceptions=True)
        total = sum(self.on_disk().values())
        if self._disk_limit is not None and total > self._disk_limit:
            raise NoRoom(
                f"{place.role} needs {place.octets} bytes, but model.disk.max = {self._disk_limit} is taken by "
                "adapters in use. Raise it, or let some go.",
                field="model.disk.max",
                value=self._disk_limit,
                retry_after=60,
            )

    # --- down

    def drop(self, place: Place, tier: Tier, why: Why) -> None:
        """Out of the plan's sight at once; the way out itself takes its time."""
        if tier in place.leaving or (tier == "disk" and self._is_shared(place)):
            return
        place.tiers.discard(tier)
        self._measures.tally.moves[place.role, tier, why] += 1
        if tier == "ram":
            self._measures.left_ram(place, why)
        task = asyncio.create_task(self._sink(place, tier, why), name=f"{place.role} out of {tier}")
        place.leaving[tier] = task
        self._keep(task, lambda _: self._sunk(place, tier))

    async def _sink(self, place: Place, tier: Tier, why: Why) -> None:
        above = [place.leaving[one] for one in UPWARDS[UPWARDS.index(tier) + 1 :] if one in place.leaving]
        await asyncio.gather(*above, return_exceptions=True)
        try:
            await self.carrier.drop(place, tier)
            log.info("adapter left", adapter=place.name, out_of=tier, why=why)
        except AgentflowError as error:
            log.warning("adapter did not leave", adapter=place.name, out_of=tier, reason=error.message)

    def _sunk(self, place: Place, tier: Tier) -> None:
        place.leaving.pop(tier, None)
        place.tell()
        self._stir()

    # --- what is on the way and on the disk

    def on_disk(self, *, arrived: bool = False) -> dict[str | None, int]:
        """Bytes by address of what was fetched, or is on its way: roles with one address share its files."""
        return {
            one.adapter.address: one.octets
            for one in self._cast
            if one.is_far and ("disk" in one.tiers or (not arrived and "disk" in one.moving))
        }

    async def settled(self) -> None:
        """Until nothing moves."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Stop what moves."""
        await end(self._tasks)

    def _leaving(self, tier: Tier) -> list[asyncio.Task[None]]:
        return [one.leaving[tier] for one in self._cast if tier in one.leaving]

    def _is_shared(self, place: Place) -> bool:
        """Whether another role's adapter lies in the same folder of the cache and still needs it."""
        address = place.adapter.address
        twins = (one for one in self._cast if one is not place and one.adapter.address == address)
        return any(one.holds or one.moving or {"ram", "vram"} & one.tiers for one in twins)

    def _keep(self, task: asyncio.Task[None], ended: Callable[[asyncio.Task[None]], None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)
