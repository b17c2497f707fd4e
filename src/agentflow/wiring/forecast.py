"""What a configuration would take before anything is started: the arithmetic behind `agentflow plan`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from agentflow.errors import ConfigError
from agentflow.residency.footprint import BaseModel, OnGpus, on_gpus, smallest_rank
from agentflow.residency.plan import Budgets, Move, Standing, Tier, Want, moves
from agentflow.residency.profiles import Profile, known
from agentflow.settings import Settings
from agentflow.settings.values import Warm
from agentflow.shelves.ram import capacity
from agentflow.wiring.place import Place, base_folder
from agentflow.wiring.reach import Known
from agentflow.wiring.residency import MOST, SHARED_MEMORY, is_near
from agentflow.wiring.spots import ATTENTION, Spot, of_profile, of_roles

_RESERVING = {"vllm", "sglang", "double"}
"""Engines that reserve slots of the highest rank at the start; others take what is loaded."""


@dataclass(frozen=True)
class Level:
    """One tier's budget and what would rest in it, in bytes (VRAM: slots)."""

    tier: Tier
    used: int
    limit: int | None


@dataclass(frozen=True)
class Forecast:
    """Everything `agentflow plan` says. It fits where `mistakes` is empty.

    `reserves`: the engine takes all slots at the start, `slot` bytes each; else adapters take their own size.
    """

    base: BaseModel | None
    base_name: str
    note: str
    gpus: tuple[OnGpus, ...]
    slots: int
    max_rank: int
    reserves: bool
    slot: int
    experts_slot: int
    spots: tuple[Spot, ...]
    levels: tuple[Level, ...]
    moves: tuple[Move, ...]
    mistakes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """The GPUs to reckon with: `most` of them, `memory` bytes each, conversations of `context` tokens."""

    most: int = 4
    memory: int = 80 * 10**9
    context: int = 8192


def forecast(
    place: Place, machine: Machine, profile: Profile | None = None, far: Mapping[str, Known] | None = None
) -> Forecast:
    """Reads config.json and headers of adapters; starts and loads nothing. Raises ConfigError.

    A profile replaces base and roles. `far`: what is known of remote adapters (wiring/reach.py).
    """
    settings = place.settings
    found = profile or known(settings.model.base)
    base, name = _base(place, found)
    spots = of_profile(profile, base) if profile else of_roles(place, base, far or {})
    modules = tuple(sorted({one for spot in spots for one in spot.modules})) or ATTENTION
    max_rank = smallest_rank([one.rank for one in spots]) if profile else settings.model.max_rank
    reserves = profile is not None or settings.model.engine in _RESERVING
    reckoned = _Reckoning(settings, base, spots, max_rank, reserves, _ram(place, found), machine)
    return Forecast(
        base=base,
        base_name=name,
        note=found.note if found else "",
        gpus=reckoned.gpus(modules),
        slots=settings.model.slots,
        max_rank=max_rank,
        reserves=reserves,
        slot=base.slot(max_rank, modules) if base else 0,
        experts_slot=base.slot(max_rank, base.leaves(), experts=True) if base and base.shape.experts else 0,
        spots=spots,
        levels=reckoned.levels(),
        moves=reckoned.moves(),
        mistakes=tuple(reckoned.mistakes(modules)),
        warnings=tuple(reckoned.warnings()),
    )


def _base(place: Place, profile: Profile | None) -> tuple[BaseModel | None, str]:
    if profile:
        return BaseModel.of(profile.name, profile.config), profile.name
    name, folder = place.settings.model.base, Path(base_folder(place))
    if not folder.is_dir():
        return None, name
    try:
        return BaseModel.of(name, json.loads((folder / "config.json").read_text("utf-8"))), name
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / 'config.json'} cannot be read ({error}). Point model.base at a folder with one.",
            field="model.base",
            value=name,
        ) from error


def _ram(place: Place, profile: Profile | None) -> int | ConfigError:
    """Bytes of the RAM tier as the keeper would have them; what is wrong with it is a mistake of the plan."""
    model = place.settings.model
    if profile and model.ram.max is not None:
        return model.ram.max
    if model.engine == "local":
        return min(MOST, psutil.virtual_memory().total // 4) if model.ram.max is None else model.ram.max
    if model.ram.path is None and not is_near(model):
        return 0
    try:
        return capacity(model.ram.path or SHARED_MEMORY, model.ram.max)
    except ConfigError as error:
        return error


@dataclass(frozen=True)
class _Reckoning:
    settings: Settings
    base: BaseModel | None
    spots: Sequence[Spot]
    max_rank: int
    reserves: bool
    ram: int | ConfigError
    machine: Machine

    def gpus(self, modules: Sequence[str]) -> tuple[OnGpus, ...]:
        base = self.base
        if base is None:
            return ()
        return tuple(
            on_gpus(
                base,
                gpus=count,
                memory=self.machine.memory,
                slots=self._slots(base, modules, count),
                context=min(self.machine.context, base.context),
            )
            for count in range(1, self.machine.most + 1)
        )

    def _slots(self, base: BaseModel, modules: Sequence[str], gpus: int) -> int:
        """Bytes per GPU of what adapters take: all slots where they are reserved, else the largest adapters."""
        slots = self.settings.model.slots
        if self.reserves:
            return slots * base.slot(self.max_rank, modules, gpus=gpus)
        return sum(sorted((one.octets for one in self.spots), reverse=True)[:slots])

    def levels(self) -> tuple[Level, ...]:
        model = self.settings.model
        resting = {tier: [one for one in self.spots if one.location == tier] for tier in ("vram", "ram")}
        return (
            Level("vram", len(resting["vram"]), model.slots),
            Level("ram", sum(one.octets for one in resting["ram"]), self._ram_limit),
            Level("disk", sum(one.octets for one in self.spots if one.remote), model.disk.max),
        )

    def moves(self) -> tuple[Move, ...]:
        """What a start brings in, as the keeper does: everybody to where it rests, pins and early ones higher."""
        tiers = {one.role: _at_start(one) for one in self.spots}
        wants = [Want(role, tier, "start") for role, tier in tiers.items() if tier != "remote"]
        standings = [
            Standing(one.role, one.octets, source="remote" if one.remote else "disk", pin=one.pin)
            for one in self.spots
            if not one.trouble
        ]
        model = self.settings.model
        return tuple(moves(standings, Budgets(model.slots, self._ram_limit, model.disk.max), wants, 0.0))

    def mistakes(self, modules: Sequence[str]) -> Iterator[str]:
        model = self.settings.model
        yield from (f"roles.{one.role}: {one.trouble}" for one in self.spots if one.trouble)
        if isinstance(self.ram, ConfigError):
            yield self.ram.message
        pins = [one.role for one in self.spots if one.pin == "vram"]
        if len(pins) >= model.slots and len(pins) < len(self.spots):
            pinned = ", ".join(pins)
            yield f"{len(pins)} adapters are pinned ({pinned}), but one of model.slots = {model.slots} must stay free."
        for level in self.levels()[2:]:
            if level.limit is not None and level.used > level.limit:
                yield f"model.disk.max = {level.limit} bytes, but fetched adapters take {level.used}."
        found = self.gpus(modules)
        if found and not any(one.fits for one in found):
            yield (
                f"{self.base.name if self.base else ''} with {model.slots} slots of rank {self.max_rank} does not fit "
                f"on {len(found)} GPU{'s' if len(found) > 1 else ''} of {self.machine.memory / 1e9:.0f} GB with one "
                f"conversation of {self.machine.context} tokens. Use fewer slots, a lower rank, more or larger GPUs."
            )

    def warnings(self) -> Iterator[str]:
        yield from self._rank_warning()
        yield from self._room_warnings()
        yield from self._role_warnings()
        if self.base is None:
            yield f"The shapes of {self.settings.model.base} are not at hand; name a folder or a --profile."

    def _rank_warning(self) -> Iterator[str]:
        exact = [one.rank for one in self.spots if one.exact]
        enough = smallest_rank(exact)
        if not self.reserves or self.base is None or not exact or len(exact) < len(self.spots):
            return
        if enough >= self.max_rank:
            return
        modules = {module for one in self.spots for module in one.modules}
        slots = self.settings.model.slots
        spared = slots * (self.base.slot(self.max_rank, modules) - self.base.slot(enough, modules))
        yield (
            f"model.max_rank = {self.max_rank}, but no adapter has more than {max(exact)}: "
            f"{enough} would spare {spared / 1e6:,.0f} MB of VRAM."
        )

    def _room_warnings(self) -> Iterator[str]:
        vram, ram, _disk = self.levels()
        if vram.limit is not None and vram.used > vram.limit:
            yield f"{vram.used} adapters rest in VRAM, but model.slots = {vram.limit}: the last ones wait for demand."
        if ram.limit is not None and ram.used > ram.limit:
            yield (
                f"Adapters that rest in RAM take {ram.used / 1e6:,.0f} MB, model.ram holds {ram.limit / 1e6:,.0f} MB: "
                "the least wanted are read from disk."
            )

    def _role_warnings(self) -> Iterator[str]:
        first: dict[str, str] = {}
        for one in self.spots:
            if one.adapter in first:
                yield f"{first[one.adapter]} and {one.role} name the same adapter: it takes two slots."
            first.setdefault(one.adapter, one.role)
            if one.remote and not one.exact and not one.trouble:
                supposed = "its rank is" if one.looked_at else "rank and size are"
                ask = "" if one.looked_at else ", --look asks its source"
                yield f"{one.role}: {one.adapter} is not fetched yet; {supposed} supposed{ask}."
            if one.cold > one.budget:
                yield (
                    f"{one.role} takes about {one.cold:.1f} s from {one.location}, its cold budget is "
                    f"{one.budget:g} s: its first turn goes by when_cold."
                )
            if (
                self.base
                and self.base.shape.experts
                and {"gate_proj", "up_proj", "down_proj"} & set(one.modules)
            ):
                yield f"{one.role} carries LoRA on experts: few engines apply it, and every slot pays for all experts."

    @property
    def _ram_limit(self) -> int:
        return 0 if isinstance(self.ram, ConfigError) else self.ram


def _at_start(spot: Spot) -> Tier:
    if "vram" in (spot.location, spot.pin) or spot.warm == Warm.START:
        return "vram"
    return spot.pin or spot.location
