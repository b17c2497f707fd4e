"""A decision without a turn: which role a message would get, and why. Nothing is written, nothing is warmed."""

from collections.abc import Sequence

from agentflow.protocols import Classifier
from agentflow.routing.intents import message_of
from agentflow.routing.roles import RoleExamples
from agentflow.routing.select import SelectInput, select
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Context, Json


def alone(text: str) -> Context:
    """A message that begins a thread."""
    return {"text": text, "history": [], "role": None, "pinned_role": None, "idle": 0.0, "offered": []}


async def preview(
    context: Context,
    *,
    wanted_role: str | None,
    classifier: Classifier,
    roles: Sequence[RoleExamples],
    router: RouterSettings,
) -> Json:
    """The selection and the intent behind it; meaning is looked at even where the policy would not need it.

    Raises EmbedderError and UnknownRole.
    """
    intent = await classifier.classify(message_of(context))
    asked = SelectInput.of(context, intent, roles=roles, settings=router, wanted_role=wanted_role)
    selection = select(asked)
    return {
        "role": selection.role,
        "reason": selection.reason,
        "text": selection.text,
        "question": selection.question,
        "selection": selection.explanation,
        "intent": intent,
    }
