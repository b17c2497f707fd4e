"""The fitted classifier: immutable; the same input and configuration give the same decision.

Order of roles and examples does not matter: they are sorted before anything is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from agentflow.errors import ConfigError
from agentflow.protocols import Vectors
from agentflow.routing.calibration import Roles, Scale, Thresholds, Wide, scale_of, thresholds_of
from agentflow.routing.evidence import Evidence, LeftOut, Model, fit_model
from agentflow.routing.roles import RoleExamples
from agentflow.routing.space import Space, choose_space
from agentflow.settings.routing import RouterSettings

NOTHING = ""
VERSION = 2


@dataclass(frozen=True, order=True)
class Example:
    """A text and what it is an example of. The role NOTHING is what no role does."""

    role: str
    intent: str
    text: str


@dataclass(frozen=True)
class Scored:
    """Texts scored: chances per role (rows sum to 1, columns as `Classifier.roles`) and scope score."""

    chances: Wide
    scope: Wide
    evidence: Evidence
    similar: Vectors


@dataclass(frozen=True)
class Classifier:
    """`classes` are (role, intent), sorted; `examples` are sorted the same way and match `model.labels`."""

    classes: tuple[tuple[str, str], ...]
    examples: tuple[Example, ...]
    space: Space
    model: Model
    scale: Scale
    thresholds: Thresholds
    left_out: LeftOut | None
    stale: bool = False

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Role names, sorted; the first is NOTHING when there are out-of-scope examples."""
        return tuple(dict.fromkeys(role for role, _ in self.classes))

    @cached_property
    def grouped(self) -> Roles:
        """Which classes are whose."""
        names = np.array([role for role, _ in self.classes])
        starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
        return Roles(starts, len(names), names[0] == NOTHING)

    def score(self, vectors: Vectors, texts: Sequence[str]) -> Scored:
        """Score texts whose unit embeddings are `vectors`, [texts, dim]."""
        evidence, similar = self.model.evidence(self.space.place(vectors, texts))
        return self.weigh(evidence, similar)

    def weigh(self, evidence: Evidence, similar: Vectors) -> Scored:
        """Chances and scope from evidence. What is most like an out-of-scope example has scope -inf."""
        grouped = self.grouped
        chances = grouped.chances(self.scale.labels(evidence))
        scope = self.scale.in_scope(evidence.take(grouped.real) if grouped.nothing else evidence)
        if grouped.nothing:
            scope = np.where(chances.argmax(axis=1) == 0, -np.inf, scope)
        return Scored(chances, scope, evidence, similar)

    def without(self, role: str) -> "Classifier":
        """The same classifier, less one role. The others' scores stay as they are; calibration is stale."""
        gone = np.array([place for place, (name, _) in enumerate(self.classes) if name == role], np.int64)
        if not gone.size or gone.size == len(self.classes):
            raise ConfigError(
                f"There is no role {role!r} to take away."
                if not gone.size
                else f"{role!r} is the last role.",
                field="roles",
                value=role,
            )
        return replace(
            self,
            classes=tuple(one for one in self.classes if one[0] != role),
            examples=tuple(one for one in self.examples if one.role != role),
            model=self.model.without(gone),
            left_out=None,
            stale=True,
        )


def examples_of(roles: Sequence[RoleExamples], settings: RouterSettings) -> tuple[Example, ...]:
    """Everything to learn from, sorted, each once.

    Raises ConfigError for a role without description and examples, and for a text in two roles.
    """
    found = {Example(role.name, intent, text) for role in roles for intent, text in role.texts()}
    found |= {Example(NOTHING, "", text.strip()) for text in settings.out_of_scope if text.strip()}
    owners: dict[str, str] = {}
    for one in sorted(found):
        owner = owners.setdefault(one.text, one.role)
        if owner != one.role:
            raise ConfigError(
                f"{one.text!r} is an example of both {owner or 'out_of_scope'} and {one.role}. "
                "Keep it where it belongs, or make the two sentences different.",
                field=f"roles.{one.role}.examples",
                value=one.text,
            )
    return tuple(sorted(found))


def fit(examples: Sequence[Example], vectors: Mapping[str, Vectors], settings: RouterSettings) -> Classifier:
    """Fit on examples whose unit embeddings are `vectors[text]`. Raises ConfigError for no examples."""
    ordered = tuple(sorted(set(examples)))
    if not any(one.role != NOTHING for one in ordered):
        raise ConfigError("There is no example of any role to learn from.", field="roles", value=None)
    classes = tuple(sorted({(one.role, one.intent) for one in ordered}))
    number = {one: place for place, one in enumerate(classes)}
    labels = np.array([number[one.role, one.intent] for one in ordered])
    texts = [one.text[: settings.text_limit] for one in ordered]
    stacked = np.stack([vectors[one.text] for one in ordered]).astype(np.float32)
    space, placed = choose_space(settings.features, stacked, texts, labels)
    model, left_out = fit_model(placed, labels)
    rough = Classifier(classes, ordered, space, model, _UNSCALED, _UNSET, left_out)
    scale = scale_of(left_out, rough.grouped, model.spread)
    thresholds = thresholds_of(
        left_out, scale, rough.grouped, reject_rate=settings.reject_rate, ask_rate=settings.ask_rate
    )
    return replace(rough, scale=scale, thresholds=thresholds)


_UNSCALED = Scale((1, 1, 1, 1), 1, (0, 0, 1, 0), (0, 0, 0, 0), (1, 1, 1, 1))
_UNSET = Thresholds(0, 0, 0)
