"""Which adapter speaks for which role: now, soon, and for turns that chose before the file changed."""

from collections.abc import Callable, Iterator
from itertools import count

from agentflow.errors import AdapterError, UnknownRole
from agentflow.residency.places import Place
from agentflow.residency.roster import Adapter, Roster

KEPT = 900.0
"""Seconds that a role gone from the file stays known to turns which chose it before."""


class Cast:
    """Every adapter's place. `roster` is what the file says, `present` who speaks for a role now, `coming` who
    takes over once it was fetched.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.roster: Roster = {}
        self.present: dict[str, Place] = {}
        self.coming: dict[str, Place] = {}
        self.places: dict[str, Place] = {}
        self._clock = clock
        self._serial = count(1)

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places.values())

    def in_order(self) -> Iterator[Place]:
        """Who speaks now in the file's order, then those who come and those whose roles are gone."""
        yield from self.present.values()
        shown = set(map(id, self.present.values()))
        yield from (place for place in self if id(place) not in shown)

    def of(self, role: str) -> Place | None:
        """The role's present adapter; None for one that speaks as the base, or is unknown."""
        return self.present.get(role)

    def chosen(self, role: str, name: str | None) -> Place | None:
        """The adapter under the name that a turn has chosen, else the role's present one.

        Raises UnknownRole, or what is wrong with the adapter.
        """
        if name is not None:
            found = next((place for place in self if place.name == name), None)
            if found is not None:
                return found
        if role not in self.roster:
            raise UnknownRole(f"There is no role {role!r}.", field="role", value=role)
        adapter = self.roster[role]
        if isinstance(adapter, AdapterError) and role not in self.present:
            raise adapter
        return self.present.get(role)

    def adopt(self, roster: Roster) -> list[Place]:
        """Take over a new roster; the places whose rules or weights are new.

        An adapter that is still far away takes over from its predecessor only once it is here.
        """
        self.roster = roster
        adapters = [one for one in roster.values() if isinstance(one, Adapter)]
        changed = [place for one in adapters if (place := self._take(one)) is not None]
        named = {one.role for one in adapters}
        for group in (self.present, self.coming):
            for role in [role for role in group if role not in named]:
                self._retire(group.pop(role))
        return changed

    def succeed(self, place: Place) -> bool:
        """Whether the place, now fetched, takes over its role."""
        if self.coming.get(place.role) is not place:
            return False
        del self.coming[place.role]
        before = self.present.get(place.role)
        self.present[place.role] = place
        if before is not None:
            self._retire(before)
        return True

    def purge(self) -> list[str]:
        """Let go of roles that left the file long ago and are nowhere any more; the names that nobody has now."""
        now = self._clock()
        gone = [place for place in self if place.is_gone(now, KEPT)]
        for place in gone:
            del self.places[place.key]
        names = {place.name for place in gone} - {place.name for place in self}
        return [name for name in names if name is not None]

    def _take(self, adapter: Adapter) -> Place | None:
        role = adapter.role
        present = self.present.get(role)
        if present is not None and present.adapter.same_weights(adapter):
            return self._ruled(present, adapter)
        place = self._former(adapter) or self._place(adapter)
        place.retired, place.adapter = None, adapter
        if present is not None and adapter.files is None and present.adapter.files is not None:
            if role in self.coming:
                self._retire(self.coming[role])
            self.coming[role] = place
            return place
        self.present[role] = place
        if present is not None:
            self._retire(present)
        return place

    def _ruled(self, place: Place, adapter: Adapter) -> Place | None:
        """The same weights, perhaps under other rules. A pin set by hand lasts until the file says something else."""
        if place.adapter.residence == adapter.residence:
            return None
        if adapter.residence.pin != place.adapter.residence.pin:
            place.pin = adapter.residence.pin
        place.adapter = adapter
        return place

    def _place(self, adapter: Adapter) -> Place:
        place = Place(f"{adapter.role}#{next(self._serial)}", adapter, last_used=self._clock())
        place.pin = adapter.residence.pin
        if adapter.address is not None and adapter.files is not None:
            place.tiers.add("disk")
        place.weigh()
        self.places[place.key] = place
        return place

    def _former(self, adapter: Adapter) -> Place | None:
        """Weights that were this role's before, and are still here."""
        if adapter.name is None:
            return None
        return next((one for one in self if one.retired is not None and one.name == adapter.name), None)

    def _retire(self, place: Place) -> None:
        place.retired = self._clock()
        place.wishes = {reason: one for reason, one in place.wishes.items() if reason == "demand"}
