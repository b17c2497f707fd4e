"""The keeper's state as plain JSON: who is where, and what happens next and why."""

from agentflow.egress import shown
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.places import Place
from agentflow.turn import Json


def table(keeper: AdapterKeeper) -> list[Json]:
    """One row per adapter, in the file's order."""
    return [row(keeper, place) for place in keeper.places()]


def row(keeper: AdapterKeeper, place: Place) -> Json:
    """One adapter. Seconds are counted back from now; `eta` is what it would take to answer."""
    files, residence = place.adapter.files, place.adapter.residence
    now, exact = keeper.clock(), keeper.engine.capabilities.exact_list
    return {
        "role": place.role,
        "adapter": place.name,
        "digest": None if files is None else files.sha256,
        "source": _source(place),
        "tier": place.tier,
        "tiers": sorted(place.tiers | ({"disk"} if place.on_disk else set())),
        "exact": exact or not place.speaks,
        "moving": sorted(place.moving),
        "leaving": sorted(place.leaving),
        "rests": residence.rest,
        "pin": place.pin,
        "bytes": place.octets or None,
        "rank": None if files is None else files.rank,
        "holds": place.holds,
        "uses": place.uses,
        "idle_seconds": round(now - place.last_used, 1) if place.uses else None,
        "eta_seconds": 0.0 if place.retired is not None else round(keeper.eta(place.role), 3),
        "priority": None if place.pin else round(keeper.worth(place), 6),
        "next": next_move(keeper, place),
        "error": None if place.failure.error is None else place.failure.error.message,
    }


def next_move(keeper: AdapterKeeper, place: Place) -> str:
    """What will happen to the adapter, and why: the first that applies."""
    now, held = keeper.clock(), place.holds
    reasons = {
        f"is leaving {', '.join(sorted(place.leaving))}": place.leaving,
        f"is on its way into {', '.join(sorted(place.moving))}: {_why(place)}": place.moving,
        f"is tried again in {max(0.0, place.failure.again - now):.0f} s": place.failure.stalled,
        "leaves with its last turn: its role is gone or has other weights": place.retired is not None,
        f"stays: {held} {'turn holds' if held == 1 else 'turns hold'} it": held,
        f"stays in {place.pin}: pinned": place.pin,
        "stays: its schedule says so": keeper.on_duty(place),
        f"rests in {place.tier}": not place.speaks or place.adapter.residence.rest == "vram",
    }
    return next((told for told, applies in reasons.items() if applies), _idles(now, place))


def _idles(now: float, place: Place) -> str:
    after = place.adapter.residence.unload_after
    if after is None:
        return "stays until its slot is needed"
    return f"leaves VRAM in {max(0.0, after - (now - place.last_used)):.0f} s unless it is used"


def _why(place: Place) -> str:
    reasons = ["a turn waits"] if place.waiting else [*place.wishes]
    return ", ".join(reasons) or "a move that began"


def _source(place: Place) -> str:
    """Where its files come from; addresses without what may be secret in them."""
    if place.adapter.address is not None:
        return shown(place.adapter.address)
    return "" if place.adapter.files is None else str(place.adapter.files.folder)
