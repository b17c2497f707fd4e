"""A role of the file as routing sees it."""

from agentflow.routing.roles import IntentExamples, RoleExamples, Rule
from agentflow.settings import Role


def role_examples(name: str, role: Role) -> RoleExamples:
    """A role as routing sees it; one without description and examples is told by its name."""
    named = role.description or role.examples or role.intents
    return RoleExamples(
        name=name,
        title=role.title,
        description=role.description if named else name.replace("_", " ").replace("-", " "),
        examples=role.examples,
        intents=tuple(IntentExamples(one.name, one.description, tuple(one.examples)) for one in role.intents),
        rules=tuple(
            Rule.of_regex(one.regex) if one.regex is not None else Rule.of_keywords(one.keywords)
            for one in role.rules
        ),
        threshold=role.threshold,
    )
