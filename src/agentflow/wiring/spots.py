"""Every role's adapter in numbers, read from headers or supposed: what `agentflow plan` reckons with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentflow.adapters import AdapterFiles, check
from agentflow.errors import AdapterError, AgentflowError
from agentflow.residency.footprint import BaseModel
from agentflow.residency.pace import Pace, Step, eta
from agentflow.residency.plan import Tier
from agentflow.residency.profiles import Profile
from agentflow.residency.roster import located
from agentflow.settings import Role
from agentflow.settings.values import Location
from agentflow.wiring.place import Place
from agentflow.wiring.reach import Known

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MISSING: Mapping[Tier, tuple[Step, ...]] = {
    "vram": (),
    "ram": ("load",),
    "disk": ("copy", "load"),
    "remote": ("download", "copy", "load"),
}


@dataclass(frozen=True)
class Spot:
    """A role's adapter in numbers. `exact` False: its files are not at hand, so rank and bytes are supposed.

    `cold` is how many seconds a turn waits that finds it where it rests. `looked_at`: its source has answered.
    """

    role: str
    adapter: str
    rank: int
    modules: tuple[str, ...]
    octets: int
    exact: bool
    location: Tier
    warm: str
    pin: Tier | None
    remote: bool
    cold: float
    budget: float
    trouble: str = ""
    looked_at: bool = False


def of_roles(place: Place, base: BaseModel | None, far: Mapping[str, Known]) -> tuple[Spot, ...]:
    """The adapters that roles name; what is wrong with one is its `trouble`. `far`: wiring/reach.py."""
    return tuple(
        _spot(place, name, role, role.lora_path, base, far)
        for name, role in place.settings.roles.items()
        if role.lora_path is not None
    )


def _spot(
    place: Place, name: str, role: Role, path: str, base: BaseModel | None, far: Mapping[str, Known]
) -> Spot:
    model = place.settings.model
    remote = "://" in path
    spot = Spot(
        role=name,
        adapter=path,
        rank=model.max_rank,
        modules=ATTENTION,
        octets=base.adapter(model.max_rank, ATTENTION) if base else 0,
        exact=False,
        location=_tier(role.location, remote=remote),
        warm=role.warm.value,
        pin=role.pin,
        remote=remote,
        cold=0.0,
        budget=role.cold_budget_ms / 1e3,
    )
    return _timed(_told(spot, far.get(path)) if remote else _measured(place, spot, base))


def _told(spot: Spot, known: Known | None) -> Spot:
    """A remote adapter with what its fetched files or its source say."""
    match known:
        case AdapterFiles():
            return replace(spot, rank=known.rank, modules=known.modules, octets=known.bytes, exact=True)
        case AgentflowError():
            return replace(spot, trouble=known.message)
        case int() if known > 0:
            return replace(spot, octets=known, looked_at=True)
        case _:
            return replace(spot, looked_at=known is not None)


def _measured(place: Place, spot: Spot, base: BaseModel | None) -> Spot:
    model = place.settings.model
    try:
        folder = located(spot.adapter, place.folder, field=f"roles.{spot.role}.lora_path")
        roots = () if spot.adapter.startswith("tiny:") else model.roots
        files = check(folder, base=base.shape if base else None, max_rank=model.max_rank, roots=roots)
    except AdapterError as error:
        return replace(spot, trouble=error.message)
    return replace(spot, rank=files.rank, modules=files.modules, octets=files.bytes, exact=True)


def of_profile(profile: Profile, base: BaseModel | None) -> tuple[Spot, ...]:
    """The adapters that a profile brings along."""
    return tuple(
        _timed(
            Spot(
                role=one["role"],
                adapter=f"{one['role']} of the profile",
                rank=one["rank"],
                modules=tuple(one["modules"]),
                octets=base.adapter(one["rank"], one["modules"]) if base else 0,
                exact=True,
                location=one["location"],
                warm="start" if one["location"] == "vram" else "predicted",
                pin=None,
                remote=False,
                cold=0.0,
                budget=1.5,
            )
        )
        for one in profile.adapters
    )


def _timed(spot: Spot) -> Spot:
    return replace(spot, cold=eta(Pace(), _MISSING[spot.location], spot.octets))


def _tier(location: Location, *, remote: bool) -> Tier:
    """A local folder rests on disk even where the file says remote."""
    tier: Tier = location.value
    return "disk" if tier == "remote" and not remote else tier
