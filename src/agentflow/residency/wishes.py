"""Who wants which adapter where, and until when."""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count

import structlog

from agentflow.residency.cast import Cast
from agentflow.residency.places import Place, Wish
from agentflow.residency.plan import Reason, Tier, Want
from agentflow.residency.roster import stamp_of

log = structlog.get_logger(__name__)
GUESS = 60.0
"""Seconds after which a wish that could not be followed is dropped."""
GIVES_WAY = 1.0
"""Seconds after which an adapter that is ready for a turn which has not come gives way to turns that wait."""


class Wishes:
    """Wishes of turns, people and schedules, as the plan reads them."""

    def __init__(self, cast: Cast, clock: Callable[[], float], calendar: Callable[[], datetime]) -> None:
        self._cast = cast
        self._clock = clock
        self._calendar = calendar
        self._asked_at = calendar()
        self._serial = count(1)

    def add(self, place: Place, reason: Reason, tier: Tier, seconds: float | None = GUESS) -> None:
        """From now on, for so many seconds (None: until it is fulfilled)."""
        until = None if seconds is None else self._clock() + seconds
        place.wishes[reason] = Wish(tier, until, next(self._serial))

    def demand(self, place: Place, seconds: float) -> None:
        """A turn will hold it. Errors of attempts that have ended are not this turn's business."""
        now = self._clock()
        if not place.moving:
            place.failure.told = place.failure.total
        place.failure.try_again(now, at_once=True)
        place.last_used = now
        self.add(place, "demand", "vram", seconds)

    def rest(self, place: Place, *, at_start: bool) -> None:
        """Where the file, or a pin, wants it. A role that only rests far away is fetched when it is needed."""
        residence = place.adapter.residence
        tier: Tier = place.pin or ("vram" if residence.at_start and at_start else residence.rest)
        if tier != "remote":
            self.add(place, "start", tier, None)

    def follow_schedules(self) -> None:
        """Duties that have begun since this was asked last."""
        now, before = self._calendar(), self._asked_at
        self._asked_at = now
        for place in self._cast.present.values():
            duty = place.adapter.residence.duty
            if duty is not None and duty.on(now, before):
                if duty.until is not None:
                    place.last_used = self._clock()
                if not place.speaks:
                    self.add(place, "schedule", "vram")

    def on_duty(self, place: Place) -> bool:
        """Whether its schedule keeps it warm now."""
        duty = place.adapter.residence.duty
        return duty is not None and duty.until is not None and duty.on(self._calendar(), self._asked_at)

    def somebody_waits(self) -> bool:
        """Whether a turn waits for an adapter that is not even on its way."""
        return any(place.waiting and not place.speaks and not place.moving for place in self._cast)

    def wants(self) -> list[Want]:
        """What is wished for and can be tried now, in the order in which it was asked."""
        return [want for _, want in sorted(self._wants(), key=lambda one: one[0])]

    def _wants(self) -> Iterator[tuple[int, Want]]:
        now = self._clock()
        for place in self._cast:
            if not place.wishes and not place.waiting:
                continue
            place.wishes = {
                why: one for why, one in place.wishes.items() if not self._is_over(place, why, one, now)
            }
            place.failure.try_again(now, at_once=False)
            if not place.failure.stalled:
                yield from self._of(place)

    def _of(self, place: Place) -> Iterator[tuple[int, Want]]:
        wishes = dict(place.wishes)
        if place.waiting and not place.speaks:
            wishes["demand"] = wishes.get("demand") or Wish("vram", None, 0)
        for reason, wish in wishes.items():
            yield wish.serial, Want(place.key, _reachable(place, wish.tier), reason)

    def _is_over(self, place: Place, reason: Reason, wish: Wish, now: float) -> bool:
        """A demand lasts until its turn holds the adapter; other wishes are fulfilled once.

        Who speaks needs no copy in memory: a wish for one that waited on would keep it in VRAM for ever.
        """
        if wish.until is not None and now >= wish.until:
            return True
        if reason == "demand":
            return place.speaks and now - place.since >= GIVES_WAY and self.somebody_waits()
        return wish.tier in place.tiers or (
            place.speaks if wish.tier == "ram" else wish.tier == "disk" and place.on_disk
        )


def _reachable(place: Place, tier: Tier) -> Tier:
    """What is not on the disk yet has no size and no name: everything else comes after."""
    files = place.adapter.files
    if place.is_far and "disk" in place.tiers and not place.moving and files and not stamp_of(files.folder):
        log.warning("fetched adapter has gone from the disk", adapter=place.name)
        place.tiers.discard("disk")
    return tier if place.on_disk and "disk" not in place.moving else "disk"
