"""What routing knows of a role: words about it, example messages, rules."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from agentflow.errors import ConfigError


@dataclass(frozen=True)
class IntentExamples:
    """One of several things a role is for."""

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A rule that decides before meaning does; `source` is how the config wrote it."""

    pattern: re.Pattern[str]
    source: str

    @staticmethod
    def of_regex(regex: str) -> "Rule":
        return Rule(re.compile(regex, re.IGNORECASE), regex)

    @staticmethod
    def of_keywords(keywords: Sequence[str]) -> "Rule":
        """Any of the words, as whole words."""
        words = "|".join(re.escape(word) for word in sorted(keywords, key=lambda word: (-len(word), word)))
        return Rule(re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE), ", ".join(keywords))


@dataclass(frozen=True)
class RoleExamples:
    """A role as the classifier and the policy see it.

    `threshold` replaces the calibrated scope threshold for this role. `cold_budget` (seconds) replaces
    the router's. Raises ConfigError when nothing says what the role is for (`texts`).
    """

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()
    intents: tuple[IntentExamples, ...] = ()
    title: str = ""
    rules: tuple[Rule, ...] = ()
    threshold: float | None = None
    cold_budget: float | None = None

    def texts(self) -> Iterator[tuple[str, str]]:
        """(intent name, text) of everything that tells what the role is for; the role's own intent is ""."""
        found = [("", text) for text in (self.description, *self.examples)]
        found += [(one.name, text) for one in self.intents for text in (one.description, *one.examples)]
        kept = [(intent, text.strip()) for intent, text in found if text.strip()]
        if not kept:
            raise ConfigError(
                f"Role {self.name!r} has neither a description nor examples, so no message can find it. "
                f"Add `description:` or a few `examples:` under roles.{self.name}.",
                field=f"roles.{self.name}.examples",
                value=None,
            )
        yield from kept


@dataclass(frozen=True)
class Lesson:
    """A message that feedback has given a role; None: no role should take it."""

    role: str | None
    text: str


def taught(
    roles: Sequence[RoleExamples], outside: Sequence[str], lessons: Sequence[Lesson]
) -> tuple[tuple[RoleExamples, ...], tuple[str, ...]]:
    """Roles and out-of-scope examples with what was learned, oldest lesson first.

    What the file says stays: a lesson about one of its texts, or for a role that is gone, is left out. Of
    lessons about the same text the last counts.
    """
    said = {text for role in roles for _, text in role.texts()} | {text.strip() for text in outside}
    last = {lesson.text.strip(): lesson.role for lesson in lessons if lesson.text.strip() not in said}
    own = {name: tuple(text for text, role in last.items() if role == name) for name in {*last.values()}}
    grown = tuple(replace(role, examples=(*role.examples, *own.get(role.name, ()))) for role in roles)
    return grown, (*outside, *own.get(None, ()))
