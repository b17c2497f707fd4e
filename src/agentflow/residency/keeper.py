"""The keeper: sole owner of loads and unloads. It asks plan.py; everybody else asks it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from agentflow.errors import AdapterError, AgentflowError, UnknownRole
from agentflow.protocols import Engine
from agentflow.residency import plan
from agentflow.residency.roster import Adapter, Roster

log = structlog.get_logger(__name__)


@dataclass
class Place:
    """An adapter that is in the engine or on its way in; `arrival` is the one load everybody waits for."""

    adapter: Adapter
    arrival: asyncio.Task[None]
    holds: int = 0
    last_used: float = 0.0
    leaving: bool = False

    def present(self) -> bool:
        return self.arrival.done() and not self.arrival.cancelled() and self.arrival.exception() is None


@dataclass
class AdapterKeeper:
    """Keeps at most `slots` adapters in the engine. One event loop owns it, so it needs no lock."""

    engine: Engine
    roster: Roster
    slots: int
    clock: Callable[[], float] = time.monotonic
    places: dict[str, Place] = field(default_factory=dict)
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    def warm(self, role: str) -> None:
        """See Keeper.warm. What goes wrong is raised by the `hold` that follows."""
        adapter = self.roster.get(role)
        if isinstance(adapter, Adapter):
            self._place(adapter)

    def warm_at_start(self) -> None:
        """Begin with the roles that rest in VRAM or are activated by the start, as far as slots reach."""
        wanted = [one for one in self.roster.values() if isinstance(one, Adapter) and one.at_start]
        for adapter in wanted[: self.slots]:
            self._place(adapter)

    def tier(self, role: str) -> str:
        """See Keeper.tier."""
        adapter = self.roster.get(role)
        if not isinstance(adapter, Adapter):
            return "base"
        place = self.places.get(adapter.name)
        return "vram" if place is not None and place.present() else "disk"

    def identity(self, role: str) -> str | None:
        """See Keeper.identity."""
        adapter = self.roster.get(role)
        return adapter.name if isinstance(adapter, Adapter) else None

    @asynccontextmanager
    async def hold(self, role: str) -> AsyncIterator[str | None]:
        """See Keeper.hold. While it is held nothing unloads the adapter."""
        adapter = self._known(role)
        if adapter is None:
            yield None
            return
        place = await self._arrived(adapter)
        try:
            yield adapter.name
        finally:
            place.holds -= 1
            place.last_used = self.clock()
            self._notify()

    async def sweep(self) -> None:
        """Unload what has been idle for longer than its time."""
        for name in plan.idle(self._residents(), self.clock()):
            await self._leave(self.places[name])

    async def close(self) -> None:
        """Stop loads that nobody waits for any more."""
        arrivals = [place.arrival for place in self.places.values()]
        for arrival in arrivals:
            arrival.cancel()
        await asyncio.gather(*arrivals, return_exceptions=True)

    def _known(self, role: str) -> Adapter | None:
        if role not in self.roster:
            raise UnknownRole(f"There is no role {role!r}.", field="role", value=role)
        adapter = self.roster[role]
        if isinstance(adapter, AdapterError):
            raise adapter
        return adapter

    async def _arrived(self, adapter: Adapter) -> Place:
        """Count the hold first, so that the place cannot be given away between arrival and use."""
        while True:
            place = self._place(adapter)
            place.holds += 1
            try:
                await asyncio.shield(place.arrival)
            except BaseException:
                place.holds -= 1
                self._notify()
                raise
            if not place.leaving:
                return place
            place.holds -= 1
            await self._wait()

    def _place(self, adapter: Adapter) -> Place:
        place = self.places.get(adapter.name)
        if place is None:
            place = Place(adapter, asyncio.create_task(self._bring(adapter)), last_used=self.clock())
            place.arrival.add_done_callback(lambda task: self._came(adapter, task))
            self.places[adapter.name] = place
        return place

    async def _bring(self, adapter: Adapter) -> None:
        while self._taken(adapter) >= self.slots:
            leaver = plan.victim([one for one in self._residents() if one.name != adapter.name])
            if leaver is None:
                await self._wait()
            else:
                await self._leave(self.places[leaver])
        began = self.clock()
        await self.engine.load(adapter.name, adapter.folder)
        log.info("adapter loaded", adapter=adapter.name, seconds=round(self.clock() - began, 3))

    def _came(self, adapter: Adapter, arrival: asyncio.Task[None]) -> None:
        self._notify()
        if arrival.cancelled() or arrival.exception() is not None:
            self.places.pop(adapter.name, None)
        if not arrival.cancelled() and (error := arrival.exception()) is not None:
            log.warning("adapter not loaded", adapter=adapter.name, reason=str(error))

    async def _leave(self, place: Place) -> None:
        place.leaving = True
        try:
            await self.engine.unload(place.adapter.name)
            log.info("adapter unloaded", adapter=place.adapter.name)
        except AgentflowError as error:
            log.warning("adapter not unloaded", adapter=place.adapter.name, reason=error.message)
        finally:
            self.places.pop(place.adapter.name, None)
            self._notify()

    def _taken(self, newcomer: Adapter) -> int:
        """Slots in use by those who came earlier than the newcomer."""
        earlier = list(self.places)
        return earlier.index(newcomer.name) if newcomer.name in earlier else len(earlier)

    def _residents(self) -> list[plan.Resident]:
        return [
            plan.Resident(
                name=name,
                holds=place.holds,
                last_used=place.last_used,
                pinned=place.adapter.pinned,
                unload_after=place.adapter.unload_after,
            )
            for name, place in self.places.items()
            if place.present() and not place.leaving
        ]

    def _notify(self) -> None:
        self.freed.set()

    async def _wait(self) -> None:
        self.freed.clear()
        await self.freed.wait()
