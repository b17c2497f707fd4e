"""The keeper: sole owner of where adapters are. plan.py decides, traffic.py moves, everybody else asks the keeper.

One event loop owns it, and every decision falls without an await: what a decision rests on cannot change under
it. Whatever changes (a turn comes or goes, a move ends, time passes) stirs the plan; the plan's moves become
tasks; their ends stir it again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import structlog

from agentflow.adapters import AdapterFiles
from agentflow.errors import AdapterError, AgentflowError, ColdAdapter, Conflict, EngineError, NoRoom
from agentflow.protocols import Engine, Outlook
from agentflow.residency import cold, plan
from agentflow.residency.carrier import Carrier, Shelves
from agentflow.residency.cast import Cast
from agentflow.residency.census import Census
from agentflow.residency.measures import Measures
from agentflow.residency.places import Place
from agentflow.residency.plan import Budgets, Tier
from agentflow.residency.room import Room
from agentflow.residency.roster import Roster
from agentflow.residency.tally import Tally
from agentflow.residency.traffic import Traffic
from agentflow.residency.wishes import GUESS, Wishes
from agentflow.turn import Json

log = structlog.get_logger(__name__)
LEASE = 10.0
"""Seconds that a warm-up of a turn protects its adapter beyond the expected load, until the turn holds it."""
DRAIN = 10.0
"""Seconds that an unload asked for by people waits for turns to end."""
LOOK = 0.5
"""Seconds after which a turn that waits asks the plan again, since time alone may have freed a slot."""


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
        self._wishes.demand(place, LEASE + 3 * self.eta(role))
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
        """See Keeper.eta: missing steps by what such steps took before, less what has passed, behind other loads."""
        place = self._cast.of(role)
        if place is None or place.speaks:
            return 0.0
        ram = self._room.ram()
        steps = place.missing(ram=ram is None or 0 < place.octets <= ram)
        own = sum(self._measures.left(place, tier) for tier in steps)
        others = (self._cast.places[key] for key in self._traffic.loading if key != place.key)
        return own + sum(self._measures.left(one, "vram") for one in others)

    def outlook(self, role: str, *, waited: float = 0.0) -> Outlook:
        """See Keeper.outlook."""
        place = self._cast.of(role)
        if place is None:
            return Outlook("base")
        policy, eta = place.adapter.residence.cold, self.eta(role)
        other = self._cast.of(policy.fallback or "")
        ready = policy.fallback in self.roster and (other is None or other.speaks)
        verdict = (
            cold.overrun(policy, eta, waited, fallback_ready=ready)
            if waited
            else cold.decide(policy, eta, fallback_ready=ready)
        )
        found = Outlook(place.tier, round(eta, 3), policy.budget, verdict.do, verdict.role)
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
            await self._arrived(place)
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
        """Somebody asks by hand. Raises UnknownRole or what is wrong with the adapter."""
        place = self._cast.chosen(role, None)
        if place is not None:
            self._wishes.demand(place, seconds + 3 * self.eta(role))
            self._stir()

    async def unload(self, role: str) -> None:
        """Out of the engine once its turns have ended. Raises Conflict while they go on, or for a pinned one."""
        place = self._cast.chosen(role, None)
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
            self._traffic.drop(place, "vram", "idle")
            await asyncio.gather(*place.leaving.values(), return_exceptions=True)

    async def pin(self, role: str, tier: Tier | None) -> None:
        """Keep the adapter in a tier whatever comes, None: no longer. Raises UnknownRole, Conflict, NoRoom."""
        place = self._cast.chosen(role, None)
        if place is None:
            raise Conflict(f"{role} speaks as the base model: there is nothing to pin.", field="role")
        if tier == "vram":
            self._check_pins(place)
        before, place.pin = place.pin, tier
        await self._pin_in_engine(place, before)
        place.wishes.pop("start", None)
        self._wishes.rest(place, at_start=False)
        self._stir()

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

    # --- waiting

    async def _arrived(self, place: Place) -> None:
        """Wait until it speaks, as long as the role allows."""
        began = self.clock()
        seen = place.failure.heard(began, LEASE)
        self._measures.used(place)
        place.failure.try_again(began, at_once=True)
        place.waiting += 1
        try:
            async with asyncio.timeout(self._patience(place)):
                while not place.speaks:
                    self._raise_failure(place, seen)
                    self._stir()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(place.news.wait(), LOOK)
        except TimeoutError:
            raise self._too_cold(place, self.clock() - began) from None
        finally:
            place.waiting -= 1
        self.tally.waited(place.role, self.clock() - began)

    def _patience(self, place: Place) -> float:
        """Who has something better to do than to wait gives up a load that takes much longer than expected."""
        policy = place.adapter.residence.cold
        if policy.do == "wait":
            return policy.longest
        return min(policy.longest, max(policy.budget, cold.OVERRUN * self.eta(place.role)))

    def _raise_failure(self, place: Place, seen: int) -> None:
        failure = place.failure
        if failure.error is None or not (failure.total > seen or failure.stalled):
            return
        failure.told = failure.total
        if failure.stalled and failure.again > self.clock() and failure.error.retry_after is not None:
            failure.error.retry_after = max(failure.error.retry_after, failure.again - self.clock())
        raise failure.error

    def _too_cold(self, place: Place, waited: float) -> AdapterError:
        eta = max(1.0, self.eta(place.role))
        if not place.moving and self._room.is_full(place):
            held = ", ".join(sorted(one.role for one in self._cast if one.speaks))
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

    # --- pins

    def _check_pins(self, newcomer: Place) -> None:
        pinned = [one for one in self._cast.present.values() if one.pin == "vram" or one is newcomer]
        if not self._room.allows_pins(len(pinned)):
            names = ", ".join(one.role for one in pinned)
            raise NoRoom(
                f"{len(pinned)} adapters pinned in VRAM ({names}) leave no slot of {self._room.slots()} for the "
                "others. Unpin one, or raise model.slots.",
                field="pin",
                value="vram",
            )

    async def _pin_in_engine(self, place: Place, before: Tier | None) -> None:
        if not place.speaks or not self.engine.capabilities.pin or place.name is None:
            return
        async with self._carrier.turn:
            if place.pin == "vram" and before != "vram":
                await self._carrier.pin(place.name)
            elif before == "vram" and place.pin != "vram":
                await self.engine.unpin(place.name)
