"""A turn waits for its adapter: until it speaks, or until the turn hears why it does not."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agentflow.errors import AdapterError, ColdAdapter, NoRoom
from agentflow.residency.cast import Cast
from agentflow.residency.measures import Measures
from agentflow.residency.places import Place
from agentflow.residency.prospects import Prospects
from agentflow.residency.room import Room

LOOK = 0.5
"""Seconds after which a turn that waits asks the plan again, since time alone may have freed a slot."""


@dataclass
class Arrival:
    """`stir` asks the plan; `clock` counts seconds."""

    cast: Cast
    room: Room
    measures: Measures
    prospects: Prospects
    clock: Callable[[], float]
    stir: Callable[[], None]

    async def of(self, place: Place, *, recent: float) -> None:
        """Wait until it speaks, as long as the role allows.

        Raises what went wrong with it, unless a turn has heard of it or it is more than `recent` seconds ago;
        ColdAdapter and NoRoom when the role's patience ends.
        """
        began = self.clock()
        seen = place.failure.heard(began, recent)
        self.measures.used(place)
        place.failure.try_again(began, at_once=True)
        place.waiting += 1
        try:
            async with asyncio.timeout(self.prospects.patience(place)):
                while not place.speaks:
                    self._raise_failure(place, seen)
                    self.stir()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK):
                            await place.news.wait()
        except TimeoutError:
            raise self._too_cold(place, self.clock() - began) from None
        finally:
            place.waiting -= 1
        self.measures.tally.waited(place.role, self.clock() - began)

    def _raise_failure(self, place: Place, seen: int) -> None:
        failure = place.failure
        if failure.error is None or not (failure.total > seen or failure.stalled):
            return
        failure.told = failure.total
        if failure.stalled and failure.again > self.clock() and failure.error.retry_after is not None:
            failure.error.retry_after = max(failure.error.retry_after, failure.again - self.clock())
        raise failure.error

    def _too_cold(self, place: Place, waited: float) -> AdapterError:
        eta = max(1.0, self.prospects.eta(place))
        if not place.moving and self.room.is_full(place):
            held = ", ".join(sorted(one.role for one in self.cast if one.speaks))
            return NoRoom(
                f"Every slot of VRAM is taken by adapters that are in use or pinned ({held}); {place.role} waited "
                f"{waited:.1f} s. Ask again, or raise model.slots.",
                field="role",
                value=place.role,
                retry_after=eta,
            )
        return ColdAdapter(
            f"The adapter of {place.role} is not ready: it is in {place.tier} after {waited:.1f} s, about {eta:.1f} s "
            "from answering. The load goes on; ask again.",
            field="role",
            value=place.role,
            retry_after=eta,
        )
