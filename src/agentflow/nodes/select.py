"""Select: which role answers, and its adapter starts to move."""

import math
from collections.abc import Sequence
from dataclasses import replace

from agentflow.errors import ColdAdapter
from agentflow.protocols import Keeper, Ledger, Outlook
from agentflow.routing.roles import RoleExamples
from agentflow.routing.select import SelectInput, Selection
from agentflow.routing.select import select as decide
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Json, Selected, Turn

LIKELY = 0.3
"""Score from which the second-best role's adapter is brought nearer, since the next message may be its."""


async def select(
    turn: Turn, *, ledger: Ledger, keeper: Keeper, roles: Sequence[RoleExamples], router: RouterSettings
) -> Selected:
    """Apply the policy and start the warm-up, which goes on while memory is searched.

    Raises UnknownRole, and ColdAdapter where the role refuses to wait for its adapter.
    """
    context = turn.get("context") or await ledger.context(turn["run_id"], tenant=turn["tenant"], messages=10)
    asked = SelectInput.of(
        context, turn["intent"], roles=roles, settings=router, wanted_role=turn.get("wanted_role")
    )
    waits = {} if router.on_cold.do == "wait" else {one.name: keeper.eta(one.name) for one in roles}
    selection = decide(replace(asked, waits=waits))
    if selection.role is None:
        return _selected(selection, None, None, {"tier": "base"})
    return _warmed(selection, selection.role, turn["intent"], keeper)


def _warmed(selection: Selection, role: str, intent: Json, keeper: Keeper) -> Selected:
    """The decision, with what the role says about an adapter that is too cold."""
    outlook = keeper.outlook(role)
    keeper.warm(role)
    _foresee(role, intent, keeper)
    told: Json = {"tier": outlook.tier}
    if outlook.is_cold:
        told["cold"] = {"role": role, "do": outlook.do, "eta": outlook.eta, "budget": outlook.budget}
    match outlook.do:
        case "refuse":
            raise _refused(role, outlook)
        case "fallback" if outlook.role is not None:
            keeper.warm(outlook.role)
            moved = replace(selection, reason="fallback:cold")
            told |= {"tier": keeper.tier(outlook.role), "because": selection.reason}
            return _selected(moved, outlook.role, keeper.identity(outlook.role), told)
        case "base":
            return _selected(selection, role, None, told)
        case _:
            return _selected(selection, role, keeper.identity(role), told)


def _foresee(role: str, intent: Json, keeper: Keeper) -> None:
    likely = [one["role"] for one in intent.get("ranking", [])[:2] if float(one["score"]) >= LIKELY]
    for other in likely:
        if other != role:
            keeper.foresee(other)


def _selected(selection: Selection, role: str | None, adapter: str | None, told: Json) -> Selected:
    explained = {**selection.explanation, "reason": selection.reason, "role": role, **told}
    return {
        "text": selection.text,
        "role": role,
        "adapter": adapter,
        "selection": {**explained, "question": selection.question},
    }


def _refused(role: str, outlook: Outlook) -> ColdAdapter:
    return ColdAdapter(
        f"The adapter of {role} is in {outlook.tier}, about {outlook.eta:.1f} s from answering, and roles.{role}."
        f"when_cold says not to wait beyond {outlook.budget:g} s. The load has begun; ask again.",
        field="role",
        value=role,
        retry_after=max(1, math.ceil(outlook.eta)),
    )
