"""What people order: an adapter loaded, unloaded, pinned."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agentflow.errors import Conflict, NoRoom
from agentflow.residency.carrier import Carrier
from agentflow.residency.cast import Cast
from agentflow.residency.places import Place
from agentflow.residency.plan import Tier
from agentflow.residency.prospects import Prospects
from agentflow.residency.room import Room
from agentflow.residency.traffic import Traffic
from agentflow.residency.wishes import Wishes

DRAIN = 10.0
"""Seconds that an unload asked for by people waits for turns to end."""


@dataclass
class Orders:
    """Each raises UnknownRole, or what is wrong with the adapter; `stir` asks the plan."""

    cast: Cast
    wishes: Wishes
    room: Room
    prospects: Prospects
    traffic: Traffic
    carrier: Carrier
    stir: Callable[[], None]

    def load(self, role: str, seconds: float) -> None:
        """Into VRAM, and for so many seconds beyond the load it does not give way."""
        place = self.cast.chosen(role, None)
        if place is not None:
            self.wishes.demand(place, seconds + 3 * self.prospects.eta(place))
            self.stir()

    async def unload(self, role: str) -> None:
        """Out of the engine once its turns have ended. Raises Conflict while they go on, or for a pinned one."""
        place = self.cast.chosen(role, None)
        if place is None or "vram" not in place.tiers | set(place.moving):
            return
        if place.pin == "vram":
            raise Conflict(f"{role} is pinned in VRAM; unpin it first.", field="role", value=role)
        place.wishes.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while place.holds or place.moving:
                    await place.news.wait()
        if place.holds or place.moving:
            raise Conflict(
                f"{role} is in use by {place.holds} turns; ask again.", field="role", retry_after=5
            )
        if place.speaks:
            self.traffic.drop(place, "vram", "idle")
            await asyncio.gather(*place.leaving.values(), return_exceptions=True)

    async def pin(self, role: str, tier: Tier | None) -> None:
        """Keep it in a tier whatever comes, None: no longer. Raises Conflict, NoRoom."""
        place = self.cast.chosen(role, None)
        if place is None:
            raise Conflict(f"{role} speaks as the base model: there is nothing to pin.", field="role")
        if tier == "vram":
            self._leave_a_slot(place)
        before, place.pin = place.pin, tier
        await self._pin_in_engine(place, before)
        place.wishes.pop("start", None)
        self.wishes.rest(place, at_start=False)
        self.stir()

    def _leave_a_slot(self, newcomer: Place) -> None:
        pinned = [one for one in self.cast.present.values() if one.pin == "vram" or one is newcomer]
        if not self.room.allows_pins(len(pinned)):
            names = ", ".join(one.role for one in pinned)
            raise NoRoom(
                f"{len(pinned)} adapters pinned in VRAM ({names}) leave no slot of {self.room.slots()} for the "
                "others. Unpin one, or raise model.slots.",
                field="pin",
                value="vram",
            )

    async def _pin_in_engine(self, place: Place, before: Tier | None) -> None:
        engine = self.carrier.engine
        if not place.speaks or not engine.capabilities.pin or place.name is None:
            return
        async with self.carrier.turn:
            if place.pin == "vram" and before != "vram":
                await self.carrier.pin(place.name)
            elif before == "vram" and place.pin != "vram":
                await engine.unpin(place.name)
