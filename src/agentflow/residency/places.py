"""Where one adapter is, who wants it where, and who holds it: state without effects."""

import asyncio
from dataclasses import dataclass, field

from agentflow.errors import AgentflowError, FetchFailed
from agentflow.residency.pace import Step
from agentflow.residency.plan import Reason, Standing, Tier
from agentflow.residency.roster import Adapter

STEPS: dict[Tier, Step] = {"disk": "download", "ram": "copy", "vram": "load"}
UPWARDS: tuple[Tier, ...] = ("disk", "ram", "vram")
PATIENCE = 300.0
"""Seconds between two attempts at an adapter that fails again and again, at most."""


@dataclass(frozen=True)
class Wish:
    """Somebody wants the adapter in a tier, until then (seconds of the keeper's clock; None: for good)."""

    tier: Tier
    until: float | None
    serial: int


@dataclass
class Failure:
    """The last attempt that failed; `count` in a row, the next not before `again`. `told` counts those that a
    turn has heard of, so that what goes wrong in a warm-up reaches the turn that follows.
    """

    error: AgentflowError | None = None
    count: int = 0
    total: int = 0
    told: int = 0
    at: float = 0.0
    again: float = 0.0
    stalled: bool = False

    def add(self, error: AgentflowError, now: float) -> None:
        self.error, self.stalled = error, True
        self.count += 1
        self.total += 1
        self.at = now
        self.again = now + min(PATIENCE, 2.0**self.count)

    def heard(self, now: float, recent: float) -> int:
        """How many failures a turn that begins now need not hear of: those told, and those long ago."""
        return self.told if now - self.at <= recent else self.total

    def clear(self) -> None:
        self.error, self.count, self.stalled = None, 0, False

    def try_again(self, now: float, *, at_once: bool) -> None:
        """A turn may try again at once what fails here; sources far away are given their pause."""
        if now >= self.again or (at_once and not isinstance(self.error, FetchFailed)):
            self.stalled = False


@dataclass
class Place:
    """An adapter on its ways. `tiers`: where it is for certain; `moving`: on the way in; `leaving`: on the way out.

    `holds` counts turns that have or await it, `waiting` those that await it; `since` is when it last reached VRAM,
    `retired` when its role left the file.
    """

    key: str
    adapter: Adapter
    tiers: set[Tier] = field(default_factory=set)
    moving: dict[Tier, asyncio.Task[None]] = field(default_factory=dict)
    began: dict[Tier, float] = field(default_factory=dict)
    leaving: dict[Tier, asyncio.Task[None]] = field(default_factory=dict)
    wishes: dict[Reason, Wish] = field(default_factory=dict)
    failure: Failure = field(default_factory=Failure)
    pin: Tier | None = None
    holds: int = 0
    waiting: int = 0
    uses: int = 0
    last_used: float = 0.0
    since: float = 0.0
    octets: int = 0
    retired: float | None = None
    changes: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def role(self) -> str:
        return self.adapter.role

    @property
    def name(self) -> str | None:
        """What the engine calls it; None until it was fetched."""
        return self.adapter.name

    @property
    def speaks(self) -> bool:
        """Whether it is in the engine and stays there."""
        return "vram" in self.tiers

    @property
    def is_far(self) -> bool:
        """Whether its files come from elsewhere."""
        return self.adapter.address is not None

    @property
    def on_disk(self) -> bool:
        return not self.is_far or "disk" in self.tiers

    @property
    def tier(self) -> Tier:
        """The best tier it is in."""
        for tier in reversed(UPWARDS):
            if tier in self.tiers or (tier == "disk" and self.on_disk):
                return tier
        return "remote"

    def weigh(self) -> None:
        """Its size, once its files are known."""
        if self.adapter.files is not None:
            self.octets = self.adapter.files.bytes

    def is_gone(self, now: float, after: float) -> bool:
        """Whether its role left the file so many seconds ago, and it is nowhere but on the disk."""
        busy = self.holds or self.moving or self.leaving or self.tiers - {"disk"}
        return self.retired is not None and now - self.retired > after and not busy

    def tell(self) -> None:
        """Something has changed: wake whoever waits."""
        self.changes += 1
        self.news.set()
        self.news = asyncio.Event()

    def missing(self, *, ram: bool) -> list[Tier]:
        """The tiers on its way up to VRAM; `ram`: whether the way leads through memory."""
        if self.speaks:
            return []
        way: list[Tier] = [] if self.on_disk else ["disk"]
        if ram and "ram" not in self.tiers:
            way.append("ram")
        return [*way, "vram"]

    def standing(self, worth: float, *, too_large_for_ram: bool) -> Standing:
        """As the policy sees it. A place without a role keeps nothing: it sinks to the disk as soon as nobody
        holds it.
        """
        residence, gone = self.adapter.residence, self.retired is not None
        inside = self.tiers | set(self.moving)
        return Standing(
            name=self.key,
            octets=1 << 62 if too_large_for_ram and "ram" not in inside else self.octets,
            tiers=frozenset(inside),
            arriving=frozenset(self.moving),
            source="remote" if self.is_far else "disk",
            rest="disk" if gone else residence.rest,
            pin=None if gone else self.pin,
            holds=self.holds,
            last_used=self.last_used,
            unload_after=0.0 if gone else residence.unload_after,
            worth=worth,
        )
