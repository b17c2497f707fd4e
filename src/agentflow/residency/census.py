"""What the engine itself says it has, held against what the keeper believes: a difference is drift."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from agentflow.protocols import Engine
from agentflow.residency.carrier import Carrier
from agentflow.residency.cast import Cast
from agentflow.residency.measures import Measures
from agentflow.residency.places import Place
from agentflow.residency.wishes import Wishes

log = structlog.get_logger(__name__)
RECENT = 600.0
"""After an engine's restart what was used within so many seconds comes back by itself."""


@dataclass
class Census:
    """Taken while nothing moves: whoever asks holds the carrier's turn. `fault`: why the engine did not answer."""

    engine: Engine
    cast: Cast
    carrier: Carrier
    measures: Measures
    wishes: Wishes
    clock: Callable[[], float]
    fault: str | None = None
    _restarts: int = field(init=False)
    _has_stock: bool = False

    def __post_init__(self) -> None:
        self._restarts = self.engine.restarts

    async def take(self) -> bool:
        """Mark what the engine has forgotten or has beyond our knowledge; False where it does not answer."""
        health = await self.engine.health()
        self.fault = None if health.ok else health.detail
        if not health.ok:
            for place in self.cast:
                if place.speaks and "vram" not in place.leaving:
                    self._lost(place)
            return False
        listed = {one.name: one.tier for one in await self.engine.loaded()}
        if self.engine.restarts != self._restarts:
            self._restarts = self.engine.restarts
            self.measures.tally.restarts += 1
        self._compare(listed)
        if not self._has_stock:
            await self._take_stock(listed)
        return True

    def _compare(self, listed: Mapping[str, str]) -> None:
        """`listed` is what the engine has. A difference is drift; what is not ours is counted and left alone."""
        ours = {place.name: place for place in self.cast if place.name is not None}
        self.measures.tally.foreign = len(set(listed) - set(ours))
        for name, place in ours.items():
            if "vram" in place.leaving:
                continue
            if place.speaks and name not in listed:
                self._lost(place)
            elif not place.speaks and "vram" not in place.moving and listed.get(name) == "vram":
                self.measures.tally.drift += 1
                place.tiers.add("vram")
                place.tell()

    async def _take_stock(self, listed: Mapping[str, str]) -> None:
        """Once, after the engine has told what it still opens: copies of an earlier process are ours again."""
        self._has_stock = True
        ours = {place.name for place in self.cast if place.name is not None}
        here = await self.carrier.stock({*ours, *listed})
        for place in self.cast:
            if place.name in here and "ram" not in place.moving:
                place.tiers.add("ram")
                self.measures.found(place)

    def _lost(self, place: Place) -> None:
        """The engine has forgotten it: bring it back if somebody holds it, pinned it or used it lately."""
        self.measures.tally.drift += 1
        place.tiers.discard("vram")
        if self.carrier.rests_in_engine:
            place.tiers.discard("ram")
        log.warning("adapter lost by the engine", adapter=place.name)
        recent = place.uses > 0 and self.clock() - place.last_used < RECENT
        if place.retired is None and (
            place.holds or place.pin == "vram" or recent or self.wishes.on_duty(place)
        ):
            self.wishes.add(place, "start", "vram", None)
        place.tell()
