"""The keeper: sole owner of where adapters are. plan.py decides, traffic.py moves, everybody else asks the keeper.

One event loop owns it, and every decision falls without an await: what a decision rests on cannot change under
it. Whatever changes (a turn comes or goes, a move ends, time passes) stirs the plan; the plan's moves become
tasks; their ends stir it again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime

import structlog

from agentflow.adapters import AdapterFiles
from agentflow.errors import AgentflowError, EngineError
from agentflow.protocols import Engine, Outlook
from agentflow.residency import plan
from agentflow.residency.arrival import Arrival
from agentflow.residency.carrier import Carrier, Shelves
from agentflow.residency.cast import Cast
from agentflow.residency.census import Census
from agentflow.residency.measures import Measures
from agentflow.residency.orders import Orders
from agentflow.residency.places import Place
from agentflow.residency.plan import Budgets, Tier
from agentflow.residency.prospects import Prospects
from agentflow.residency.room import Room
from agentflow.residency.roster import Roster
from agentflow.residency.tally import Tally
from agentflow.residency.traffic import Traffic
from agentflow.residency.wishes import GUESS, Wishes
from agentflow.turn import Json

log = structlog.get_logger(__name__)
LEASE = 10.0
"""Seconds that a warm-up of a turn protects its adapter beyond the expected load, until the turn holds it."""


def local_time() -> datetime:
    """Schedules are read in the server's own time."""
    return datetime.now().astimezone().replace(tzinfo=None)


class AdapterKeeper:
    """Keeps adapters in their tiers within `budgets`.

    `shelves` fetch adapters from far away and keep copies in memory. `vram_octets` limits VRAM besides its slots.
    `clock` counts seconds, `calendar` tells the local time for schedules. `troubled` is set when an engine has
    failed a turn: reconcile soon.
    """

    def __init__(
        self,
        engine: Engine,
        roster: Roster,
        budgets: Budgets,
        *,
        vram_octets: int | None = None,
        shelves: Shelves | None = None,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], datetime] = local_time,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.troubled = asyncio.Event()
        shelves = shelves or Shelves()
        self._cache = shelves.cache
        self._cast = Cast(self._now)
        self._measures = Measures(self._now)
        self._wishes = Wishes(self._cast, self._now, calendar)
        self._room = Room(self._cast, budgets, vram_octets)
        self._carrier = Carrier(engine, shelves)
        self._traffic = Traffic(
            self._carrier,
            self._cast,
            self._measures,
            disk_limit=budgets.disk,
            ended=self._ended,
            stir=self._stir,
        )
        self._prospects = Prospects(self._cast, self._room, self._measures, self._traffic)
        self._arrival = Arrival(
            self._cast, self._room, self._measures, self._prospects, self._now, self._stir
        )
        self._orders = Orders(
            self._cast, self._wishes, self._room, self._prospects, self._traffic, self._carrier, self._stir
        )
        self._census = Census(engine, self._cast, self._carrier, self._measures, self._wishes, self._now)
        self._closed = False
        self._cast.adopt(roster)
        self._want_addresses()

    @property
    def roster(self) -> Roster:
        """What the file says of each role."""
        return self._cast.roster

    @property
    def tally(self) -> Tally:
        """What was counted, for metrics."""
        return self._measures.tally

    @property
    def engine_fault(self) -> str | None:
        """Why the engine did not answer when it was asked last."""
        return self._census.fault

    # --- what turns ask

    def warm(self, role: str) -> None:
        """See Keeper.warm. What goes wrong is raised by the `hold` that follows."""
        place = self._cast.of(role)
        if place is None:
            return
        self.tally.hits[role, place.tier] += 1
        self._wishes.demand(place, LEASE + 3 * self._prospects.eta(place))
        if not place.speaks:
            self._stir()

    def foresee(self, role: str) -> None:
        """See Keeper.foresee: a guess is followed only while nothing else is loaded, and pushes out nobody."""
        place = self._cast.of(role)
        if place is None or not place.adapter.residence.foreseen or self._is_busy():
            return
        self._wishes.add(place, "predicted", "ram")
        self._stir()

    def resume(self, role: str) -> None:
        """See Keeper.resume."""
        place = self._cast.of(role)
        if place is not None and place.adapter.residence.foreseen and place.tier in ("disk", "remote"):
            self._wishes.add(place, "resume", "ram")
            self._stir()

    def tier(self, role: str) -> str:
        """See Keeper.tier."""
        place = self._cast.of(role)
        return "base" if place is None else place.tier

    def identity(self, role: str) -> str | None:
        """See Keeper.identity."""
        place = self._cast.of(role)
        return None if place is None else place.name

    def eta(self, role: str) -> float:
        """See Keeper.eta."""
        place = self._cast.of(role)
        return 0.0 if place is None else self._prospects.eta(place)

    def outlook(self, role: str, *, waited: float = 0.0) -> Outlook:
        """See Keeper.outlook."""
        place = self._cast.of(role)
        if place is None:
            return Outlook("base")
        found = self._prospects.outlook(place, waited)
        if found.is_cold or waited:
            self.tally.cold[role, found.do] += 1
        return found

    @asynccontextmanager
    async def hold(self, role: str, *, name: str | None = None) -> AsyncIterator[str | None]:
        """See Keeper.hold. Counted first, so that nothing can be given away between arrival and use."""
        place = self._cast.chosen(role, name)
        if place is None:
            yield None
            return
        place.holds += 1
        try:
            await self._arrival.of(place, recent=LEASE)
            place.wishes.pop("demand", None)
            yield place.name
        except EngineError:
            self.troubled.set()
            raise
        finally:
            place.holds -= 1
            place.last_used = self.clock()
            place.tell()
            if place.retired is not None or self._wishes.somebody_waits():
                self._stir()

    # --- what people ask

    def demand(self, role: str, *, seconds: float = GUESS) -> None:
        """Load it by hand. Raises UnknownRole or what is wrong with the adapter."""
        self._orders.load(role, seconds)

    async def unload(self, role: str) -> None:
        """Out of the engine once its turns have ended. Raises Conflict while they go on, or for a pinned one."""
        await self._orders.unload(role)

    async def pin(self, role: str, tier: Tier | None) -> None:
        """Keep the adapter in a tier whatever comes, None: no longer. Raises UnknownRole, Conflict, NoRoom."""
        await self._orders.pin(role, tier)

    def adopt(self, roster: Roster) -> None:
        """Take over a new roster; see Cast.adopt. Turns under way end with the adapter they began with."""
        for place in self._cast.adopt(roster):
            if self._cast.coming.get(place.role) is place:
                self._wishes.add(place, "start", "disk", None)
            else:
                self._wishes.rest(place, at_start=True)
        self._want_addresses()
        self._stir()

    # --- what time brings

    def warm_at_start(self) -> None:
        """Bring every adapter to where it rests, first those that are to speak at once."""
        for place in self._cast.present.values():
            self._wishes.rest(place, at_start=True)
        self._stir()

    async def sweep(self) -> None:
        """Let time work: idle adapters leave, duties begin and end, failed ones are tried again."""
        self._wishes.follow_schedules()
        for name in self._cast.purge():
            self._carrier.forget(name)
        self._stir()
        leaving = [task for place in self._cast for task in place.leaving.values()]
        await asyncio.gather(*leaving, return_exceptions=True)

    def squeeze(self, tier: Tier, used: float) -> None:
        """A tier's memory is so full (share of 1), whoever fills it: above HIGH ours shrinks towards LOW."""
        squeezed = self._room.squeeze(tier, used)
        if tier == "ram":
            self._traffic.ram_is_full = squeezed
        if squeezed:
            self._stir()

    async def reconcile(self) -> None:
        """Compare with what the engine says it has; bring back what it lost and somebody needs."""
        async with self._carrier.turn:
            answered = await self._census.take()
        if answered:
            self._stir()

    async def settled(self) -> None:
        """Until nothing moves."""
        await self._traffic.settled()

    async def close(self) -> None:
        """Stop what moves; what is loaded stays where it is."""
        self._closed = True
        await self._traffic.close()

    # --- what is told

    def places(self) -> Iterator[Place]:
        """Every adapter, in the file's order; those of roles that are gone, last."""
        return self._cast.in_order()

    def capacities(self) -> Json:
        """What each tier may hold and holds."""
        return self._room.told(self._traffic)

    def cached(self, address: str) -> AdapterFiles | None:
        """What was fetched from an address before."""
        return None if self._cache is None else self._cache.find(address)

    def worth(self, place: Place) -> float:
        """Its priority in memory; what is pinned or on duty is above all others."""
        if place.pin is not None or self.on_duty(place):
            return float("inf")
        return self._measures.worth(place)

    def on_duty(self, place: Place) -> bool:
        """Whether its schedule keeps it warm now."""
        return self._wishes.on_duty(place)

    # --- the plan

    def _stir(self) -> None:
        """Ask the plan, start what it says."""
        if self._closed:
            return
        wants = self._wishes.wants()
        wanted = {want.name for want in wants}
        # Who lies on the local disk and is not wanted takes no room and goes nowhere: thousands may.
        alive = (place for place in self._cast if place.tiers or place.moving or place.key in wanted)
        standings = [self._standing(place) for place in alive]
        for move in plan.moves(standings, self._room.limits(self._traffic), wants, self.clock()):
            place = self._cast.places[move.name]
            act = self._traffic.bring if move.do == "bring" else self._traffic.drop
            act(place, move.tier, move.why)

    def _standing(self, place: Place) -> plan.Standing:
        blocked = self._traffic.ram_is_full and not place.speaks
        return place.standing(self.worth(place), too_large_for_ram=blocked)

    def _ended(self, place: Place, tier: Tier, error: AgentflowError | None) -> None:
        """A move has ended."""
        if error is not None:
            self._failed(place, tier, error)
        elif tier == "vram" and place.speaks:
            place.since = self.clock()
            place.failure.clear()
        elif tier == "disk" and self._cast.succeed(place):
            self._wishes.rest(place, at_start=True)
        self._stir()

    def _failed(self, place: Place, tier: Tier, error: AgentflowError) -> None:
        if place.failure.error is error:
            return  # a step above, which waited for this one
        place.failure.add(error, self.clock())
        self.tally.failures[place.role, tier] += 1
        log.warning("adapter not moved", adapter=place.name or place.role, into=tier, reason=error.message)
        if isinstance(error, EngineError):
            self.troubled.set()

    def _is_busy(self) -> bool:
        return any(place.moving or place.waiting for place in self._cast)

    def _want_addresses(self) -> None:
        if self._cache is not None:
            far = [place.adapter.address for place in self._cast]
            self._cache.want([address for address in far if address is not None])

    def _now(self) -> float:
        """The clock may be replaced."""
        return self.clock()
