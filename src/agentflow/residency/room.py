"""How much the tiers may hold now: what the file allows, less what the machine cannot spare."""

from agentflow.residency.cast import Cast
from agentflow.residency.places import Place
from agentflow.residency.plan import Budgets, Tier
from agentflow.residency.traffic import Traffic
from agentflow.turn import Json

HIGH, LOW = 0.9, 0.8
"""Shares of a tier: above the first one it is emptied down to the second."""


class Room:
    """Budgets of the tiers. `vram_octets` limits VRAM besides its slots: as many as hold the largest adapter."""

    def __init__(self, cast: Cast, budgets: Budgets, vram_octets: int | None) -> None:
        self._cast = cast
        self._budgets = budgets
        self._vram_octets = vram_octets
        self._squeezed: dict[Tier, int] = {}

    def squeeze(self, tier: Tier, used: float) -> bool:
        """A tier's memory is so full (share of 1), whoever fills it; whether ours has to shrink."""
        if used <= HIGH:
            self._squeezed.pop(tier, None)
            return False
        inside = [place for place in self._cast if tier in place.tiers]
        ours = len(inside) if tier == "vram" else sum(place.octets for place in inside)
        self._squeezed[tier] = int(ours * LOW / used)
        return True

    def limits(self, traffic: Traffic) -> Budgets:
        """As the plan reads them; it counts every adapter, though roles with one address share its files."""
        disk = self._budgets.disk
        if disk is not None:
            twice = sum(one.octets for one in self._cast if one.is_far and "disk" in one.tiers)
            disk += max(0, twice - sum(traffic.on_disk(arrived=True).values()))
        return Budgets(self.slots(), self.ram(), disk)

    def ram(self) -> int | None:
        """Bytes that copies may take."""
        ram = self._budgets.ram
        return ram if ram is None else min(ram, self._squeezed.get("ram", ram))

    def slots(self) -> int | None:
        """Adapters that the engine may have."""
        slots = self._squeezed.get("vram", self._budgets.vram)
        if self._vram_octets is None:
            return slots
        largest = max((one.octets for one in self._cast), default=0)
        if not largest:
            return slots
        fitting = max(1, self._vram_octets // largest)
        return fitting if slots is None else min(slots, fitting)

    def is_full(self, newcomer: Place) -> bool:
        """Whether the newcomer finds every slot taken."""
        slots = self.slots()
        inside = sum(place.speaks or "vram" in place.moving for place in self._cast)
        return slots is not None and not newcomer.speaks and inside >= slots

    def allows_pins(self, pinned: int) -> bool:
        """An engine whose every slot is pinned dies of the next adapter, so one stays free for the others."""
        slots = self.slots()
        return slots is None or pinned <= (slots if pinned == len(self._cast.present) else slots - 1)

    def told(self, traffic: Traffic) -> Json:
        """What each tier may hold and holds: slots of VRAM, bytes of RAM and disk."""
        speaking = [place for place in self._cast if place.speaks]
        return {
            "vram": {
                "slots": self.slots(),
                "used": len(speaking),
                "pinned": sum(place.pin == "vram" for place in speaking),
            },
            "ram": {
                "max": self._budgets.ram,
                "used": sum(place.octets for place in self._cast if "ram" in place.tiers),
            },
            "disk": {"max": self._budgets.disk, "used": sum(traffic.on_disk(arrived=True).values())},
        }
