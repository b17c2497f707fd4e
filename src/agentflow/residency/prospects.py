"""How soon an adapter answers, and what a turn does about one that is cold."""

from dataclasses import dataclass

from agentflow.protocols import Outlook
from agentflow.residency import cold
from agentflow.residency.cast import Cast
from agentflow.residency.measures import Measures
from agentflow.residency.places import Place
from agentflow.residency.room import Room
from agentflow.residency.traffic import Traffic


@dataclass
class Prospects:
    """Estimates in seconds, from what such steps took before."""

    cast: Cast
    room: Room
    measures: Measures
    traffic: Traffic

    def eta(self, place: Place) -> float:
        """Missing steps by what they took before, less what has passed, behind other loads."""
        if place.speaks:
            return 0.0
        ram = self.room.ram()
        steps = place.missing(ram=ram is None or 0 < place.octets <= ram)
        own = sum(self.measures.left(place, tier) for tier in steps)
        others = (self.cast.places[key] for key in self.traffic.loading if key != place.key)
        return own + sum(self.measures.left(one, "vram") for one in others)

    def outlook(self, place: Place, waited: float) -> Outlook:
        """What the role says about it now, or after so many seconds in vain."""
        policy, eta = place.adapter.residence.cold, self.eta(place)
        ready = self._answers(policy.fallback)
        verdict = (
            cold.overrun(policy, eta, waited, fallback_ready=ready)
            if waited
            else cold.decide(policy, eta, fallback_ready=ready)
        )
        return Outlook(place.tier, round(eta, 3), policy.budget, verdict.do, verdict.role)

    def patience(self, place: Place) -> float:
        """For how long a turn awaits it."""
        return cold.patience(place.adapter.residence.cold, self.eta(place))

    def _answers(self, role: str | None) -> bool:
        """Whether the role would answer at once."""
        place = self.cast.of(role or "")
        return role in self.cast.roster and (place is None or place.speaks)
