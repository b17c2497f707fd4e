"""The cold budget: what a turn does when its adapter will not be ready in time. Pure."""

import math
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
    """What to do now. `wait`: await the adapter for at most `patience` seconds, then ask `overrun`.
    `fallback`: answer as `role`. `refuse`: 503 with `retry_after` whole seconds.
    """

    do: WhenCold
    patience: float = 0.0
    role: str | None = None
    retry_after: int = 0


def decide(policy: ColdPolicy, eta: float, *, fallback_ready: bool = False) -> Verdict:
    """What a turn does whose adapter is ready in about `eta` seconds.

    A fallback role whose own adapter is not resident would only be cold again: the base model answers then.
    """
    if eta <= policy.budget:
        return Verdict("wait", patience=_patience(policy, eta))
    return _beyond(policy, eta, fallback_ready=fallback_ready)


def overrun(policy: ColdPolicy, eta: float, waited: float, *, fallback_ready: bool = False) -> Verdict:
    """As `decide`, after `waited` seconds were in vain: the policy once more, with no more waiting than
    `longest` in all.
    """
    if policy.do == "wait" and waited + eta > policy.longest:
        return Verdict("refuse", retry_after=_whole(eta))
    return _beyond(policy, eta, fallback_ready=fallback_ready, waited=waited)


def _beyond(policy: ColdPolicy, eta: float, *, fallback_ready: bool, waited: float = 0.0) -> Verdict:
    match policy.do:
        case "wait":
            return Verdict("wait", patience=max(0.0, policy.longest - waited))
        case "fallback" if policy.fallback is not None and fallback_ready:
            return Verdict("fallback", role=policy.fallback)
        case "refuse":
            return Verdict("refuse", retry_after=_whole(eta))
        case _:
            return Verdict("base")


def _patience(policy: ColdPolicy, eta: float) -> float:
    """Estimates are never exact: three times as long is borne, and at least the budget, before it is a failure."""
    return min(policy.longest, max(policy.budget, OVERRUN * eta))


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
