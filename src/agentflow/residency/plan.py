"""The residency policy: pure functions of who is in, who is held, what is wanted, and the time.

`moves` is the whole policy: the state in, what to do out. It does nothing itself; the keeper does, and asks
again whenever something has changed. Its promises are property tests (tests/unit/test_plan.py):

1. No move leads over a budget.
2. Nothing held, pinned, arriving or wanted is dropped, and no files that a higher tier still needs.
3. Only a turn that waits may push out whatever is free; a warm-up pushes out less than itself; a guess nobody.
4. Asked again after its moves, with the same wants, it has nothing more to say (no thrash).
5. A wanted adapter gets on as far as there is any room that is free or can be freed (progress).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Tier = Literal["remote", "disk", "ram", "vram"]
Reason = Literal["demand", "start", "schedule", "resume", "predicted"]
Why = Reason | Literal["room", "idle", "pressure"]
_RANK: dict[Reason, int] = {reason: rank for rank, reason in enumerate(get_args(Reason))}
_UPWARDS: tuple[Tier, ...] = ("disk", "ram", "vram")


@dataclass(frozen=True)
class Budgets:
    """What a tier may hold: slots of VRAM, bytes of RAM and disk. None: no limit; 0: the tier is not used."""

    vram: int | None
    ram: int | None = 0
    disk: int | None = None


@dataclass(frozen=True)
class Standing:
    """Where an adapter stands.

    `tiers`: where it is or is going (`arriving` is the part that is still on its way). `source`: "disk" for a
    local folder, which is no cache and takes no disk budget. `rest`: the tier it keeps when idle for
    `unload_after` seconds. `pin`: a tier it never leaves. `worth`: its priority in RAM and on disk
    (residency/worth.py); VRAM gives up the least recently used, as engines do.
    """

    name: str
    octets: int
    tiers: frozenset[Tier] = frozenset()
    arriving: frozenset[Tier] = frozenset()
    source: Literal["disk", "remote"] = "disk"
    rest: Tier = "ram"
    pin: Tier | None = None
    holds: int = 0
    last_used: float = 0.0
    unload_after: float | None = None
    worth: float = 0.0


@dataclass(frozen=True)
class Want:
    """Somebody wants the adapter in a tier; `demand` is a turn that waits."""

    name: str
    tier: Tier
    reason: Reason = "demand"


@dataclass(frozen=True)
class Move:
    """One step for the keeper, in this order: into the tier, or out of it."""

    do: Literal["bring", "drop"]
    name: str
    tier: Tier
    why: Why


def moves(standings: Iterable[Standing], budgets: Budgets, wants: Sequence[Want], now: float) -> list[Move]:
    """What to do now: drop what is idle, relieve tiers over their budget, then bring what is wanted.

    Round by round, since who leaves VRAM may let go of its files too. It ends: what is wanted only rises,
    everything else only falls.
    """
    board = _Board({one.name: one for one in standings}, budgets, frozenset(want.name for want in wants))
    in_turn = sorted(wants, key=lambda one: _RANK[one.reason])
    said = -1
    while said < len(board.moves):
        said = len(board.moves)
        board.drop_idle(now)
        board.relieve()
        for want in in_turn:
            board.serve(want)
    return board.moves


@dataclass
class _Board:
    """The tiers as they will be once the moves so far are made."""

    standings: dict[str, Standing]
    budgets: Budgets
    wanted: frozenset[str]
    moves: list[Move] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside: dict[Tier, set[str]] = {
            tier: {one.name for one in self.standings.values() if tier in one.tiers} for tier in _UPWARDS
        }

    def relieve(self) -> None:
        for tier in reversed(_UPWARDS):
            while self._over(tier, 0) and (leaver := self._leaver(tier)) is not None:
                self._drop(leaver, tier, "pressure")

    def drop_idle(self, now: float) -> None:
        for one in sorted(self.standings.values(), key=lambda one: (one.last_used, one.name)):
            rests = one.unload_after is None or now - one.last_used < one.unload_after
            if rests or one.name in self.wanted:
                continue
            for tier in ("vram", "ram"):
                if _above(tier, one.rest) and one.name in self.inside[tier] and self._may_leave(one, tier):
                    self._drop(one.name, tier, "idle")

    def serve(self, want: Want) -> None:
        """Up the tiers as far as there is room. RAM is a short cut that may be left out; disk is not."""
        one = self.standings.get(want.name)
        if one is None:
            return
        for tier in _UPWARDS[: _UPWARDS.index(want.tier) + 1] if want.tier != "remote" else ():
            if self._there(one, tier) or self._bring(one, tier, want):
                continue
            if tier != "ram":
                return

    def _there(self, one: Standing, tier: Tier) -> bool:
        return one.name in self.inside[tier] or (tier == "disk" and one.source == "disk")

    def _bring(self, one: Standing, tier: Tier, want: Want) -> bool:
        if tier == "ram" and one.name in self.inside["vram"]:
            return False  # it speaks already: a copy in RAM would gain nothing now
        leavers = self._room(one, tier, want)
        if leavers is None:
            return False
        for leaver in leavers:
            self._drop(leaver, tier, "room")
        self.inside[tier].add(one.name)
        self.moves.append(Move("bring", one.name, tier, want.reason))
        return True

    def _room(self, one: Standing, tier: Tier, want: Want) -> list[str] | None:
        """Who must leave so that the adapter fits; None if not enough may."""
        need, leavers = self._size(one, tier), list[str]()
        limit = self._limit(tier)
        if limit is not None and need > limit:
            return None
        while self._over(tier, need, leavers):
            leaver = self._leaver(tier, leavers, want, one)
            if leaver is None:
                return None
            leavers.append(leaver)
        return leavers

    def _leaver(
        self, tier: Tier, gone: Sequence[str] = (), want: Want | None = None, newcomer: Standing | None = None
    ) -> str | None:
        free = [
            self.standings[name]
            for name in self.inside[tier]
            if name not in gone and name not in self.wanted and self._may_leave(self.standings[name], tier)
        ]
        if want is not None and newcomer is not None and want.reason != "demand":
            free = [] if want.reason == "predicted" else [one for one in free if one.worth < newcomer.worth]
        if tier == "vram":
            return min(free, key=lambda one: (one.last_used, one.name)).name if free else None
        return min(free, key=lambda one: (one.worth, one.last_used, one.name)).name if free else None

    def _may_leave(self, one: Standing, tier: Tier) -> bool:
        if one.holds or one.arriving or one.pin == tier:
            return False
        needed_above = tier == "disk" and any(one.name in self.inside[upper] for upper in ("ram", "vram"))
        return not needed_above and not (tier == "disk" and one.source == "disk")

    def _over(self, tier: Tier, need: int, gone: Sequence[str] = ()) -> bool:
        limit = self._limit(tier)
        if limit is None:
            return False
        stays = (self.standings[name] for name in self.inside[tier] if name not in gone)
        return need + sum(self._size(one, tier) for one in stays) > limit

    def _size(self, one: Standing, tier: Tier) -> int:
        if tier == "vram":
            return 1
        return 0 if tier == "disk" and one.source == "disk" else one.octets

    def _limit(self, tier: Tier) -> int | None:
        return {"vram": self.budgets.vram, "ram": self.budgets.ram, "disk": self.budgets.disk}[tier]

    def _drop(self, name: str, tier: Tier, why: Why) -> None:
        self.inside[tier].discard(name)
        self.moves.append(Move("drop", name, tier, why))


def _above(tier: Tier, rest: Tier) -> bool:
    order = get_args(Tier)
    return bool(order.index(tier) > order.index(rest))
