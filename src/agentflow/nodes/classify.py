"""Classify: what is the message about?"""

from collections.abc import Sequence

import structlog

from agentflow.errors import EmbedderError
from agentflow.protocols import Classifier, Ledger
from agentflow.routing.intents import message_of
from agentflow.routing.roles import RoleExamples
from agentflow.routing.select import SelectInput, needs_meaning
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Classified, Turn

log = structlog.get_logger(__name__)


async def classify(
    turn: Turn,
    *,
    ledger: Ledger,
    classifier: Classifier,
    roles: Sequence[RoleExamples],
    router: RouterSettings,
) -> Classified:
    """Score every role. A message whose role is settled by name, pin or rule is not looked into.

    While the embedder is down nothing is known of the message: its thread's role stays, else none fits.
    """
    context = turn.get("context") or await ledger.context(turn["run_id"], tenant=turn["tenant"], messages=10)
    asked = SelectInput.of(context, {}, roles=roles, settings=router, wanted_role=turn.get("wanted_role"))
    if not needs_meaning(asked):
        return {"intent": {"ranking": [], "in_scope": True, "skipped": True}}
    try:
        return {"intent": await classifier.classify(message_of(context))}
    except EmbedderError as error:
        log.warning(
            "a role is chosen without the message's meaning", reason=error.message, run_id=turn["run_id"]
        )
        return {"intent": {"ranking": [], "in_scope": False, "unavailable": error.message}}
