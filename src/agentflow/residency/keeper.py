"""The keeper: sole owner of where adapters are. plan.py decides, carrier.py moves, everybody else asks the keeper.

One event loop owns it, and every decision falls without an await: what a decision rests on cannot change under
it. Whatever changes (a turn comes or goes, a move ends, time passes) stirs the plan; the plan's moves become
tasks; their ends stir it again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import count

import structlog

from agentflow.adapters import AdapterFiles
from agentflow.errors import (
    AdapterError,
    AgentflowError,
    ColdAdapter,
    Conflict,
    EngineError,
    NoRoom,
    UnknownRole,
)
from agentflow.protocols import Engine, Outlook
from agentflow.residency import cold, plan
from agentflow.residency.carrier import Carrier, Shelves
from agentflow.residency.pace import Pace
from agentflow.residency.places import STEPS, UPWARDS, Place, Wish
from agentflow.residency.plan import Budgets, Reason, Tier, Want, Why
from agentflow.residency.roster import Adapter, Roster, stamp_of
from agentflow.residency.tally import Tally
from agentflow.residency.worth import AgedWorth
from agentflow.turn import Json

log = structlog.get_logger(__name__)
LEASE = 10.0
"""Seconds that a warm-up of a turn protects its adapter beyond the expected load, until the turn holds it."""
GIVES_WAY = 1.0
"""Seconds after which an adapter that is ready for a turn which has not come gives way to turns that wait."""
GUESS = 60.0
"""Seconds after which a guess that could not be followed is dropped."""
KEPT = 900.0
"""Seconds that a role gone from the file stays known to turns which chose it before."""
RECENT = 600.0
"""After an engine's restart what was used within so many seconds comes back by itself."""
DRAIN = 10.0
"""Seconds that an unload asked for by people waits for turns to end."""
HIGH, LOW = 0.9, 0.8
"""Shares of a tier: above the first one it is emptied down to the second."""


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
        self.budgets = budgets
        self.clock = clock
        self.tally = Tally()
        self.pace = Pace()
        self.troubled = asyncio.Event()
        self.engine_fault: str | None = None
        shelves = shelves or Shelves()
        self._carrier = Carrier(engine, shelves)
        self._cache = shelves.cache
        self._vram_octets = vram_octets
        self._calendar = calendar
        self._worth = AgedWorth()
        self._serial = count(1)
        self.roster: Roster = {}
        self._places: dict[str, Place] = {}
        self._by_role: dict[str, Place] = {}
        self._coming: dict[str, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_at = calendar()
        self._closed = False
        self._restarts = engine.restarts
        self._squeezed: dict[Tier, int] = {}
        self.adopt(roster)

    # --- what turns ask

    def warm(self, role: str) -> None:
        """See Keeper.warm. What goes wrong is raised by the `hold` that follows."""
        place = self._by_role.get(role)
        if place is None:
            return
        self.tally.hits[role, place.tier] += 1
        self._demand(place, LEASE + 3 * self.eta(role))

    def foresee(self, role: str) -> None:
        """See Keeper.foresee: a guess is followed only while nothing else is loaded, and pushes out nobody."""
        place = self._by_role.get(role)
        if place is None or not place.adapter.residence.foreseen or self._is_loading():
            return
        self._wish(place, "predicted", "ram", GUESS)

    def resume(self, role: str) -> None:
        """See Keeper.resume."""
        place = self._by_role.get(role)
        if place is not None and place.tier in ("disk", "remote"):
            self._wish(place, "resume", "ram", GUESS)

    def tier(self, role: str) -> str:
        """See Keeper.tier."""
        place = self._by_role.get(role)
        return "base" if place is None else place.tier

    def identity(self, role: str) -> str | None:
        """See Keeper.identity."""
        place = self._by_role.get(role)
        return None if place is None else place.name

    def eta(self, role: str) -> float:
        """See Keeper.eta: missing steps by what such steps took before, less what has passed, behind other loads."""
        place = self._by_role.get(role)
        if place is None or place.speaks:
            return 0.0
        own = sum(self._left(place, tier) for tier in place.missing(ram=self._uses_ram(place)))
        others = (one for one in self._places.values() if one is not place and "vram" in one.moving)
        return own + sum(self._left(one, "vram") for one in others)

    def outlook(self, role: str, *, waited: float = 0.0) -> Outlook:
        """See Keeper.outlook."""
        place = self._by_role.get(role)
        if place is None:
            return Outlook("base")
        policy, eta = place.adapter.residence.cold, self.eta(role)
        other = self._by_role.get(policy.fallback or "")
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
        place = self._known(role, name)
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
            self._stir()

    # --- what people and schedules ask

    def warm_at_start(self) -> None:
        """Bring every adapter to where it rests, first those that are to speak at once."""
        for place in self._by_role.values():
            residence = place.adapter.residence
            tier: Tier = "vram" if residence.at_start or place.pin == "vram" else residence.rest
            if tier != "remote":
                self._wish(place, "start", place.pin or tier if tier != "vram" else tier, None)

    def demand(self, role: str, *, seconds: float = GUESS) -> None:
        """Somebody asks by hand. Raises UnknownRole or what is wrong with the adapter."""
        place = self._known(role, None)
        if place is not None:
            self._demand(place, seconds + 3 * self.eta(role))

    async def unload(self, role: str) -> None:
        """Out of the engine once its turns have ended. Raises Conflict while they go on, or for a pinned one."""
        place = self._known(role, None)
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
            self._drop(place, "vram", "idle")
            await asyncio.gather(*place.leaving.values(), return_exceptions=True)

    async def pin(self, role: str, tier: Tier | None) -> None:
        """Keep the adapter in a tier whatever comes, None: no longer. Raises UnknownRole, NoRoom."""
        place = self._known(role, None)
        if place is None:
            raise Conflict(f"{role} speaks as the base model: there is nothing to pin.", field="role")
        if tier == "vram":
            self._check_pins(place)
        before, place.pin = place.pin, tier
        await self._pin_in_engine(place, before)
        if tier is not None and tier != "remote":
            self._wish(place, "start", tier, None)
        self._stir()

    # --- what time brings

    async def sweep(self) -> None:
        """Let time work: idle adapters leave, duties begin and end, failed ones are tried again."""
        self._follow_schedules()
        self._purge()
        self._stir()
        await asyncio.gather(
            *(task for place in self._places.values() for task in place.leaving.values()),
            return_exceptions=True,
        )

    def squeeze(self, tier: Tier, used: float) -> None:
        """A tier's memory is so full (share of 1), whoever fills it: beyond HIGH ours is emptied towards LOW."""
        if used <= HIGH:
            self._squeezed.pop(tier, None)
            return
        inside = [place for place in self._places.values() if tier in place.tiers]
        ours = len(inside) if tier == "vram" else sum(place.octets for place in inside)
        self._squeezed[tier] = int(ours * LOW / used)
        self._stir()

    async def reconcile(self) -> None:
        """Compare with what the engine says it has; bring back what it lost and somebody needs."""
        async with self._carrier.turn:
            health = await self.engine.health()
            self.engine_fault = None if health.ok else health.detail
            if not health.ok:
                self._lost_all()
                return
            listed = {one.name for one in await self.engine.loaded()}
            if self.engine.restarts != self._restarts:
                self._restarts = self.engine.restarts
                self.tally.restarts += 1
            self._compare(listed)
        self._stir()

    def adopt(self, roster: Roster) -> None:
        """Take over a new roster. Turns under way end with the adapter they began with.

        An adapter that is still far away takes over from its predecessor only once it is here.
        """
        self.roster = roster
        for role, adapter in roster.items():
            if isinstance(adapter, Adapter):
                self._take(role, adapter)
        for role in [one for one in self._by_role if not isinstance(roster.get(one), Adapter)]:
            self._retire(self._by_role.pop(role))
        for role in [one for one in self._coming if not isinstance(roster.get(one), Adapter)]:
            self._retire(self._coming.pop(role))
        if self._cache is not None:
            far = [place.adapter.address for place in self._places.values()]
            self._cache.want([address for address in far if address is not None])
        self._check_pins()
        self._stir()

    def places(self) -> Iterator[Place]:
        """Every adapter, in the file's order; those of roles that are gone, last."""
        yield from self._by_role.values()
        shown = set(map(id, self._by_role.values()))
        yield from (place for place in self._places.values() if id(place) not in shown)

    def capacities(self) -> Json:
        """What each tier may hold and holds: slots of VRAM, bytes of RAM and disk."""
        speaking = [place for place in self._places.values() if place.speaks]
        pinned = sum(place.pin == "vram" for place in speaking)
        ram = sum(place.octets for place in self._places.values() if "ram" in place.tiers)
        slots = self._slots()
        return {
            "vram": {"slots": slots, "used": len(speaking), "pinned": pinned},
            "ram": {"max": self.budgets.ram, "used": ram},
            "disk": {"max": self.budgets.disk, "used": sum(self._on_disk(arrived=True).values())},
        }

    def cached(self, address: str) -> AdapterFiles | None:
        """What was fetched from an address before."""
        return None if self._cache is None else self._cache.find(address)

    def worth(self, place: Place) -> float:
        """Its priority in memory; see residency/worth.py."""
        if place.pin is not None or self.on_duty(place):
            return float("inf")
        return self._worth.priority(place.key) or 0.0

    async def settled(self) -> None:
        """Until nothing moves."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Stop what moves; what is loaded stays where it is."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- holding

    def _known(self, role: str, name: str | None) -> Place | None:
        """The place under that name, if the turn chose one, else the role's present one."""
        if name is not None:
            found = next((place for place in self._places.values() if place.name == name), None)
            if found is not None:
                return found
        if role not in self.roster:
            raise UnknownRole(f"There is no role {role!r}.", field="role", value=role)
        adapter = self.roster[role]
        if isinstance(adapter, AdapterError) and role not in self._by_role:
            raise adapter
        return self._by_role.get(role)

    async def _arrived(self, place: Place) -> None:
        """Wait until it speaks, as long as the role allows."""
        began, patience = self.clock(), self._patience(place)
        seen = place.failure.told
        self._count_use(place)
        self._try_again(place)
        place.waiting += 1
        try:
            async with asyncio.timeout(patience):
                while not place.speaks:
                    self._raise_failure(place, seen)
                    self._stir()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(place.news.wait(), GIVES_WAY)
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
        if not place.moving and self._is_full(place):
            held = ", ".join(sorted(one.role for one in self._places.values() if one.speaks))
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

    def _count_use(self, place: Place) -> None:
        now = self.clock()
        place.uses += 1
        place.last_used = now
        self._worth.access(place.key, seconds=self._return(place), octets=max(place.octets, 1), now=now)

    # --- wishes

    def _demand(self, place: Place, seconds: float) -> None:
        if not place.moving:
            place.failure.told = place.failure.total
        self._try_again(place)
        place.last_used = self.clock()
        self._wish(place, "demand", "vram", seconds)

    def _wish(self, place: Place, reason: Reason, tier: Tier, seconds: float | None) -> None:
        until = None if seconds is None else self.clock() + seconds
        place.wishes[reason] = Wish(tier, until, next(self._serial))
        self._stir()

    def _try_again(self, place: Place) -> None:
        place.failure.try_again(self.clock(), at_once=True)

    def _wants(self, now: float) -> Iterator[tuple[int, Want]]:
        """What is wished for and can be tried now, with the order in which it was asked."""
        for place in self._places.values():
            place.wishes = {
                why: one for why, one in place.wishes.items() if not self._is_over(place, one, now)
            }
            if place.failure.stalled:
                place.failure.try_again(now, at_once=False)
            if place.failure.stalled:
                continue
            wishes = dict(place.wishes)
            if place.waiting and not place.speaks:
                wishes["demand"] = wishes.get("demand") or Wish("vram", None, 0)
            for reason, wish in wishes.items():
                yield wish.serial, Want(place.key, self._reachable(place, wish.tier), reason)

    def _is_over(self, place: Place, wish: Wish, now: float) -> bool:
        """A demand lasts until its turn holds the adapter; other wishes are fulfilled once."""
        if wish.until is not None and now >= wish.until:
            return True
        if wish is place.wishes.get("demand"):
            return place.speaks and now - place.since >= GIVES_WAY and self._somebody_waits()
        return wish.tier in place.tiers or (wish.tier == "disk" and place.on_disk)

    def _somebody_waits(self) -> bool:
        return any(place.waiting and not place.speaks and not place.moving for place in self._places.values())

    def _reachable(self, place: Place, tier: Tier) -> Tier:
        """What is not on the disk yet has no size and no name: everything else comes after."""
        if place.is_far and "disk" in place.tiers and not place.moving and not self._whole(place):
            log.warning("fetched adapter has gone from the disk", adapter=place.name)
            place.tiers.discard("disk")
        return tier if place.on_disk and "disk" not in place.moving else "disk"

    def _whole(self, place: Place) -> bool:
        files = place.adapter.files
        return files is not None and bool(stamp_of(files.folder))

    def _follow_schedules(self) -> None:
        now, before = self._calendar(), self._asked_at
        self._asked_at = now
        for place in self._by_role.values():
            duty = place.adapter.residence.duty
            if duty is not None and duty.on(now, before) and not place.speaks:
                self._wish(place, "schedule", "vram", GUESS)

    def on_duty(self, place: Place) -> bool:
        duty = place.adapter.residence.duty
        return duty is not None and duty.until is not None and duty.on(self._calendar(), self._asked_at)

    # --- the plan and its moves

    def _stir(self) -> None:
        """Ask the plan, start what it says."""
        if self._closed:
            return
        now = self.clock()
        wants = [want for _, want in sorted(self._wants(now), key=lambda one: one[0])]
        standings = [self._standing(place, now) for place in self._places.values()]
        for move in plan.moves(standings, self._limits(), wants, now):
            place = self._places[move.name]
            if move.do == "bring":
                self._bring(place, move.tier, move.why)
            else:
                self._drop(place, move.tier, move.why)

    def _standing(self, place: Place, now: float) -> plan.Standing:
        if self.on_duty(place):
            place.last_used = now
        blocked = self._squeezed.get("ram") is not None and not place.speaks
        return place.standing(self.worth(place), too_large_for_ram=blocked)

    def _limits(self) -> Budgets:
        ram = self.budgets.ram
        if "ram" in self._squeezed and ram is not None:
            ram = min(ram, self._squeezed["ram"])
        disk = self.budgets.disk
        if disk is not None:  # the plan counts every adapter; roles with one address share its files
            twice = sum(one.octets for one in self._places.values() if one.is_far and "disk" in one.tiers)
            disk += max(0, twice - sum(self._on_disk(arrived=True).values()))
        return Budgets(self._slots(), ram, disk)

    def _on_disk(self, *, arrived: bool = False) -> dict[str | None, int]:
        """Bytes by address of what was fetched, or is on its way."""
        return {
            one.adapter.address: one.octets
            for one in self._places.values()
            if one.is_far and ("disk" in one.tiers or (not arrived and "disk" in one.moving))
        }

    def _slots(self) -> int | None:
        """Slots of VRAM; where it is limited in bytes too, as many as hold the largest adapter."""
        slots, largest = (
            self._squeezed.get("vram", self.budgets.vram),
            max((one.octets for one in self._places.values()), default=0),
        )
        if self._vram_octets is None or not largest:
            return slots
        return max(1, min(slots or self._vram_octets, self._vram_octets // largest))

    def _bring(self, place: Place, tier: Tier, why: Why) -> None:
        if tier in place.moving or tier in place.tiers:
            return
        place.began[tier] = self.clock()
        self.tally.moves[place.role, tier, why] += 1
        task = asyncio.create_task(self._rise(place, tier), name=f"{place.role} into {tier}")
        place.moving[tier] = task
        self._keep(task, lambda ended: self._risen(place, tier, ended))

    async def _rise(self, place: Place, tier: Tier) -> None:
        """After the tiers below, and after those have left who make room."""
        for below in UPWARDS[: UPWARDS.index(tier)]:
            if below in place.moving:
                await asyncio.shield(place.moving[below])
        if tier == "disk":
            await self._make_room_on_disk(place)
        leaving = [one.leaving[tier] for one in self._places.values() if tier in one.leaving]
        await asyncio.gather(*leaving, *place.leaving.values(), return_exceptions=True)
        began = self.clock()
        place.began[tier] = began
        try:
            await self._carrier.bring(place, tier)
        except NoRoom as error:
            if tier != "ram":
                raise
            log.warning("adapter is loaded from disk", adapter=place.name, reason=error.message)
            self._squeezed["ram"] = sum(one.octets for one in self._places.values() if "ram" in one.tiers)
            return
        seconds = self.clock() - began
        place.tiers.add(tier)
        self._weighed(place)
        self.pace.learn(STEPS[tier], max(place.octets, 1), seconds)
        self.tally.arrived(place.role, tier, seconds)
        log.info("adapter moved", adapter=place.name, into=tier, seconds=round(seconds, 3))

    def _risen(self, place: Place, tier: Tier, ended: asyncio.Task[None]) -> None:
        place.moving.pop(tier, None)
        error = None if ended.cancelled() else ended.exception()
        if isinstance(error, AgentflowError):
            self._failed(place, tier, error)
        elif error is not None:
            log.error("a move of an adapter broke", adapter=place.name, into=tier, exc_info=error)
            self._failed(
                place, tier, AdapterError(f"The adapter of {place.role} could not be moved into {tier}.")
            )
        elif tier in place.tiers:
            self._reached(place, tier)
        place.tell()
        self._stir()

    def _reached(self, place: Place, tier: Tier) -> None:
        if tier == "ram":
            seconds = self._return(place)
            self._worth.insert(place.key, seconds=seconds, octets=max(place.octets, 1), now=self.clock())
        if tier == "vram":
            place.since = self.clock()
            place.failure.clear()
        if tier == "disk" and self._coming.get(place.role) is place:
            self._succeed(place)

    def _failed(self, place: Place, tier: Tier, error: AgentflowError) -> None:
        if place.failure.error is error:
            return  # a step above, which waited for this one
        place.failure.add(error, self.clock())
        self.tally.failures[place.role, tier] += 1
        log.warning("adapter not moved", adapter=place.name or place.role, into=tier, reason=error.message)
        if isinstance(error, EngineError):
            self.troubled.set()

    def _drop(self, place: Place, tier: Tier, why: Why) -> None:
        """Out of the plan's sight at once; the way out itself takes its time."""
        if tier in place.leaving or (tier == "disk" and self._is_shared(place)):
            return
        place.tiers.discard(tier)
        self.tally.moves[place.role, tier, why] += 1
        if tier == "ram" and why in ("room", "pressure"):
            self._worth.evict(place.key)
        elif tier == "ram":
            self._worth.forget(place.key)
        task = asyncio.create_task(self._sink(place, tier, why), name=f"{place.role} out of {tier}")
        place.leaving[tier] = task
        self._keep(task, lambda _: self._sunk(place, tier))

    async def _sink(self, place: Place, tier: Tier, why: Why) -> None:
        for above in reversed(UPWARDS[UPWARDS.index(tier) + 1 :]):
            if above in place.leaving:
                await asyncio.gather(place.leaving[above], return_exceptions=True)
        try:
            await self._carrier.drop(place, tier)
            log.info("adapter left", adapter=place.name, out_of=tier, why=why)
        except AgentflowError as error:
            log.warning("adapter did not leave", adapter=place.name, out_of=tier, reason=error.message)
            self.troubled.set()

    def _sunk(self, place: Place, tier: Tier) -> None:
        place.leaving.pop(tier, None)
        place.tell()
        self._stir()

    def _keep(self, task: asyncio.Task[None], ended: Callable[[asyncio.Task[None]], None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)

    async def _make_room_on_disk(self, place: Place) -> None:
        """What a download will take is known only once its source was asked."""
        place.octets = max(place.octets, await self._carrier.weigh(place))
        self._stir()
        leaving = [one.leaving["disk"] for one in self._places.values() if "disk" in one.leaving]
        await asyncio.gather(*leaving, return_exceptions=True)
        total, limit = sum(self._on_disk().values()), self.budgets.disk
        if limit is not None and total > limit:
            raise NoRoom(
                f"{place.role} needs {place.octets} bytes, but model.disk.max = {limit} is taken by adapters in use. "
                "Raise it, or let some go.",
                field="model.disk.max",
                value=limit,
                retry_after=60,
            )

    # --- estimates

    def _left(self, place: Place, tier: Tier) -> float:
        seconds = self.pace.seconds(STEPS[tier], place.octets)
        if tier not in place.moving:
            return seconds
        return max(0.0, seconds - (self.clock() - place.began[tier]))

    def _return(self, place: Place) -> float:
        """Seconds to bring it back into memory from where it would then be."""
        seconds = self.pace.seconds("copy", place.octets)
        return seconds if place.on_disk else seconds + self.pace.seconds("download", place.octets)

    def _uses_ram(self, place: Place) -> bool:
        limit = self._limits().ram
        return limit is None or 0 < place.octets <= limit

    def _weighed(self, place: Place) -> None:
        if place.adapter.files is not None:
            place.octets = place.adapter.files.bytes

    def _is_loading(self) -> bool:
        return any(place.moving or place.waiting for place in self._places.values())

    def _is_full(self, newcomer: Place) -> bool:
        limit = self._slots()
        inside = sum(place.speaks or "vram" in place.moving for place in self._places.values())
        return limit is not None and not newcomer.speaks and inside >= limit

    def _is_shared(self, place: Place) -> bool:
        """Whether another role's adapter lies in the same folder of the cache and still needs it."""
        address = place.adapter.address
        twins = (one for one in self._places.values() if one is not place and one.adapter.address == address)
        return any(one.holds or one.moving or {"ram", "vram"} & one.tiers for one in twins)

    # --- pins

    def _check_pins(self, newcomer: Place | None = None) -> None:
        """An engine whose every slot is pinned dies of the next adapter. Raises NoRoom."""
        pinned = [one for one in self._by_role.values() if one.pin == "vram" or one is newcomer]
        slots = self._slots()
        if slots is None or len(pinned) <= (slots if len(pinned) == len(self._by_role) else slots - 1):
            return
        names = ", ".join(one.role for one in pinned)
        message = (
            f"{len(pinned)} adapters pinned in VRAM ({names}) leave no slot of {slots} for the others. "
            "Unpin one, or raise model.slots."
        )
        if newcomer is not None:
            raise NoRoom(message, field="pin", value="vram")
        log.warning("too many pins", reason=message)

    async def _pin_in_engine(self, place: Place, before: Tier | None) -> None:
        if not place.speaks or not self.engine.capabilities.pin or place.name is None:
            return
        async with self._carrier.turn:
            if place.pin == "vram" and before != "vram":
                await self._carrier.pin(place.name)
            elif before == "vram" and place.pin != "vram":
                await self.engine.unpin(place.name)

    # --- rosters

    def _take(self, role: str, adapter: Adapter) -> None:
        present = self._by_role.get(role)
        if present is not None and present.adapter.same_weights(adapter):
            self._changed(present, adapter)
            return
        former = self._former(adapter)
        place = former if former is not None else self._place(adapter)
        place.retired = None
        place.adapter = adapter
        if present is not None and adapter.files is None and present.adapter.files is not None:
            self._coming[role] = place
            self._wish(place, "start", "disk", None)
            return
        self._by_role[role] = place
        if present is not None:
            self._retire(present)
            self._settle(place)

    def _place(self, adapter: Adapter) -> Place:
        place = Place(f"{adapter.role}#{next(self._serial)}", adapter, last_used=self.clock())
        place.pin = adapter.residence.pin
        if adapter.address is not None and adapter.files is not None:
            place.tiers.add("disk")
        self._weighed(place)
        self._places[place.key] = place
        return place

    def _former(self, adapter: Adapter) -> Place | None:
        """Weights that were this role's before, and are still here."""
        if adapter.name is None:
            return None
        return next((one for one in self._places.values() if one.retired and one.name == adapter.name), None)

    def _changed(self, place: Place, adapter: Adapter) -> None:
        """The same weights under other rules. A pin set by hand lasts until the file says something else."""
        said = adapter.residence.pin != place.adapter.residence.pin
        place.adapter = adapter
        if said:
            place.pin = adapter.residence.pin
        self._settle(place)

    def _settle(self, place: Place) -> None:
        """Where the file wants it now, if that is higher than where it is."""
        residence = place.adapter.residence
        tier: Tier = place.pin or ("vram" if residence.at_start else residence.rest)
        if tier != "remote":
            self._wish(place, "start", tier, None)

    def _succeed(self, place: Place) -> None:
        """The newcomer is on the disk: from now on it speaks for the role."""
        self._coming.pop(place.role, None)
        before = self._by_role.get(place.role)
        self._by_role[place.role] = place
        if before is not None:
            self._retire(before)
        self._settle(place)

    def _retire(self, place: Place) -> None:
        place.retired = self.clock()
        place.wishes = {reason: one for reason, one in place.wishes.items() if reason == "demand"}

    def _purge(self) -> None:
        """Roles that left the file long ago and are nowhere any more."""
        now = self.clock()
        gone = [
            place
            for place in self._places.values()
            if place.retired is not None
            and now - place.retired > KEPT
            and not (place.holds or place.moving or place.leaving or place.tiers - {"disk"})
        ]
        for place in gone:
            del self._places[place.key]
            if place.name is not None and all(one.name != place.name for one in self._places.values()):
                self._carrier.forget(place.name)

    # --- the engine's own view

    def _compare(self, listed: set[str]) -> None:
        """`listed` is what the engine has. A difference is drift; what is not ours is counted and left alone."""
        ours = {place.name: place for place in self._places.values() if place.name is not None}
        self.tally.foreign = len(listed - set(ours))
        for name, place in ours.items():
            if "vram" in place.moving or "vram" in place.leaving:
                continue
            if place.speaks and name not in listed:
                self._lost(place)
            elif not place.speaks and name in listed and "ram" not in place.tiers:
                self.tally.drift += 1
                place.tiers.add("vram")
                place.tell()

    def _lost_all(self) -> None:
        for place in self._places.values():
            if place.speaks and "vram" not in place.leaving:
                self._lost(place)

    def _lost(self, place: Place) -> None:
        """The engine has forgotten it: bring it back if somebody holds it, pinned it or used it lately."""
        self.tally.drift += 1
        place.tiers.discard("vram")
        log.warning("adapter lost by the engine", adapter=place.name)
        recent = self.clock() - place.last_used < RECENT
        if place.retired is None and (place.holds or place.pin == "vram" or recent or self.on_duty(place)):
            self._wish(place, "start", "vram", None)
        place.tell()
