"""What moves cost and adapters are worth, as far as was seen: estimates for plans, people and turns."""

from collections.abc import Callable
from dataclasses import dataclass, field

from agentflow.residency.pace import Pace
from agentflow.residency.places import STEPS, Place
from agentflow.residency.plan import Tier, Why
from agentflow.residency.tally import Tally
from agentflow.residency.worth import AgedWorth


@dataclass
class Measures:
    """Seconds throughout; `clock` counts them."""

    clock: Callable[[], float]
    tally: Tally = field(default_factory=Tally)
    pace: Pace = field(default_factory=Pace)
    order: AgedWorth = field(default_factory=AgedWorth)

    def left(self, place: Place, tier: Tier) -> float:
        """What a step into the tier will take, or still takes."""
        seconds = self.pace.seconds(STEPS[tier], place.octets)
        if tier not in place.moving:
            return seconds
        return max(0.0, seconds - (self.clock() - place.began[tier]))

    def back(self, place: Place) -> float:
        """What it costs to bring it into memory again from where it would then be."""
        seconds = self.pace.seconds("copy", place.octets)
        return seconds if place.on_disk else seconds + self.pace.seconds("download", place.octets)

    def used(self, place: Place) -> None:
        """A turn wants the adapter."""
        now = self.clock()
        place.uses += 1
        place.last_used = now
        self.order.access(place.key, seconds=self.back(place), octets=max(place.octets, 1), now=now)

    def arrived(self, place: Place, tier: Tier, seconds: float) -> None:
        """It has reached a tier after so many seconds."""
        place.weigh()
        self.pace.learn(STEPS[tier], max(place.octets, 1), seconds)
        self.tally.arrived(place.role, tier, seconds)
        if tier == "ram":
            self.found(place)

    def found(self, place: Place) -> None:
        """It is in memory."""
        octets, now = max(place.octets, 1), self.clock()
        self.order.insert(place.key, seconds=self.back(place), octets=octets, now=now)

    def left_ram(self, place: Place, why: Why) -> None:
        """To make room, which raises the order's clock, or for another reason."""
        (self.order.evict if why in ("room", "pressure") else self.order.forget)(place.key)

    def worth(self, place: Place) -> float:
        """Its priority in memory; see residency/worth.py."""
        return self.order.priority(place.key) or 0.0
