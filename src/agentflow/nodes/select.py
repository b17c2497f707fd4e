"""Select: which role answers, and its adapter starts to move."""

from collections.abc import Sequence

from agentflow.protocols import Keeper, Ledger
from agentflow.routing.roles import RoleExamples
from agentflow.routing.select import SelectInput
from agentflow.routing.select import select as decide
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Selected, Turn


async def select(
    turn: Turn, *, ledger: Ledger, keeper: Keeper, roles: Sequence[RoleExamples], router: RouterSettings
) -> Selected:
    """Apply the policy and start the warm-up, which goes on while memory is searched. Raises UnknownRole."""
    context = turn.get("context") or await ledger.context(turn["run_id"], tenant=turn["tenant"], messages=10)
    wanted = turn.get("wanted_role")
    selection = decide(
        SelectInput.of(context, turn["intent"], roles=roles, settings=router, wanted_role=wanted)
    )
    role = selection.role
    tier = "base" if role is None else keeper.tier(role)
    if role is not None:
        keeper.warm(role)
    return {
        "text": selection.text,
        "role": role,
        "adapter": None if role is None else keeper.identity(role),
        "selection": {**selection.explanation, "tier": tier, "question": selection.question},
    }
