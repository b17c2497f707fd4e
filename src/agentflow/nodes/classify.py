"""Classify: what is the message about?"""

from collections.abc import Sequence

from agentflow.protocols import Classifier, Ledger, Message
from agentflow.routing.roles import RoleExamples
from agentflow.routing.select import SelectInput, needs_meaning
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Classified, Context, Turn


async def classify(
    turn: Turn,
    *,
    ledger: Ledger,
    classifier: Classifier,
    roles: Sequence[RoleExamples],
    router: RouterSettings,
) -> Classified:
    """Score every role. A message whose role is settled by name, pin or rule is not looked into.

    Raises EmbedderError.
    """
    context = turn.get("context") or await ledger.context(turn["run_id"], tenant=turn["tenant"], messages=10)
    if not needs_meaning(_asked(turn, context, roles, router)):
        return {"intent": {"ranking": [], "in_scope": True, "skipped": True}}
    message = Message(
        text=context["text"],
        previous=tuple(one["content"] for one in context["history"] if one["role"] == "user"),
        role=context["role"],
    )
    return {"intent": await classifier.classify(message)}


def _asked(
    turn: Turn, context: Context, roles: Sequence[RoleExamples], router: RouterSettings
) -> SelectInput:
    return SelectInput(
        text=context["text"],
        intent={},
        roles=roles,
        settings=router,
        wanted_role=turn.get("wanted_role"),
        pinned_role=context["pinned_role"],
        current_role=context["role"],
        idle=context["idle"],
        offered=context["offered"],
    )
