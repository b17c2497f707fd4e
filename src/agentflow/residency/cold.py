"""The cold budget: what a turn does when its adapter will not be ready in time. Pure."""

from dataclasses import dataclass
from typing import Literal

WhenCold = Literal["wait", "base", "fallback", "refuse"]
OVERRUN = 3.0
"""A load that takes so many times its estimate counts as cold once more."""


@dataclass(frozen=True)
class ColdPolicy:
    """What a role says about cold adapters. Seconds throughout.

    Up to `budget` everybody waits. Beyond it `do` decides: wait on, up to `longest`; the base model; another
    role (`fallback`); or refuse.
    """

    budget: float = 1.5
    do: WhenCold = "wait"
    longest: float = 60.0
    fallback: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What to do now. `wait`: await the adapter, see `patience`. `fallback`: answer as `role`."""

    do: WhenCold
    role: str | None = None


def decide(policy: ColdPolicy, eta: float, *, fallback_ready: bool = False) -> Verdict:
    """What a turn does whose adapter is ready in about `eta` seconds.

    A fallback role whose own adapter is not resident would only be cold again: the base model answers then.
    """
    if eta <= policy.budget:
        return Verdict("wait")
    return _beyond(policy, fallback_ready=fallback_ready)


def overrun(policy: ColdPolicy, eta: float, waited: float, *, fallback_ready: bool = False) -> Verdict:
    """As `decide`, after `waited` seconds were in vain: the policy once more, with no more waiting than
    `longest` in all.
    """
    if policy.do == "wait" and waited + eta > policy.longest:
        return Verdict("refuse")
    return _beyond(policy, fallback_ready=fallback_ready)


def patience(policy: ColdPolicy, eta: float) -> float:
    """Seconds for which a turn awaits an adapter that should be ready in `eta`.

    Who has something better to do gives up a load that takes three times as long as expected: estimates are never
    exact.
    """
    if policy.do == "wait":
        return policy.longest
    return min(policy.longest, max(policy.budget, OVERRUN * eta))


def _beyond(policy: ColdPolicy, *, fallback_ready: bool) -> Verdict:
    match policy.do:
        case "wait" | "refuse":
            return Verdict(policy.do)
        case "fallback" if policy.fallback is not None and fallback_ready:
            return Verdict("fallback", role=policy.fallback)
        case _:
            return Verdict("base")
