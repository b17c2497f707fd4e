"""Care of the examples: what is wrong with them, and where the limits could be set. Nothing is changed here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agentflow.routing.calibration import Mask, Wide
from agentflow.routing.classifier import NOTHING, Classifier, Example
from agentflow.routing.report import Report, evaluate_left_out, share
from agentflow.routing.roles import RoleExamples
from agentflow.routing.words import folded

FEW = 5
TOO_NEAR = 0.95
CONFUSED = 0.2
SURE = 0.8
LONG = 1200
RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class Finding:
    """Something about the examples. An error keeps the router from starting; a warning costs accuracy."""

    severity: Literal["error", "warning", "hint"]
    role: str
    message: str


@dataclass(frozen=True)
class Setting:
    """What a scope threshold would do to left-out examples (shares)."""

    rate: float
    threshold: float
    in_scope_kept: float
    kept_right: float
    outside_caught: float | None


@dataclass(frozen=True)
class MarginSetting:
    """What a margin threshold would do to left-out examples (shares)."""

    rate: float
    threshold: float
    asked: float
    errors_asked: float
    rest_right: float


def inspect(roles: Sequence[RoleExamples], fitted: Classifier) -> list[Finding]:
    """Everything suspicious about the examples, errors first."""
    found = [*_duplicates(fitted.examples), *_sizes(roles), *_neighbours(fitted), *_contradictions(fitted)]
    report = evaluate_left_out(fitted)
    found += [] if report is None else _confusions(report)
    rank = {"error": 0, "warning": 1, "hint": 2}
    return sorted(found, key=lambda one: (rank[one.severity], one.role, one.message))


def _duplicates(examples: Sequence[Example]) -> list[Finding]:
    seen: dict[str, Example] = {}
    found = []
    for one in examples:
        first = seen.setdefault(folded(one.text), one)
        if first.role != one.role:
            message = f"{one.text!r} says the same as {first.text!r} of {first.role or 'out_of_scope'}"
            found.append(Finding("error", one.role, f"{message}; keep it in one of them"))
        elif first is not one:
            found.append(Finding("hint", one.role, f"{one.text!r} repeats {first.text!r}"))
    return found


def _sizes(roles: Sequence[RoleExamples]) -> list[Finding]:
    found = []
    for role in roles:
        texts = [text for _, text in role.texts()]
        if len(texts) < FEW:
            message = f"only {len(texts)} examples; five make a usable role, twenty a good one"
            found.append(Finding("warning", role.name, message))
        long = [text for text in texts if len(text) > LONG]
        found += [
            Finding("warning", role.name, f"{text[:60]!r}... is so long that its end is not looked at")
            for text in long
        ]
    return found


def _neighbours(fitted: Classifier) -> list[Finding]:
    """Pairs across roles that are nearly the same to the embedder."""
    unit, examples = fitted.model.unit, fitted.examples
    numbers = {name: number for number, name in enumerate(fitted.roles)}
    owner = np.array([numbers[one.role] for one in examples])
    found = []
    for row in range(len(examples)):
        similar = unit[row + 1 :] @ unit[row]
        close = np.flatnonzero((similar > TOO_NEAR) & (owner[row + 1 :] != owner[row]))
        for other in (examples[row + 1 + place] for place in close.tolist()):
            message = f"{other.text!r} is very near {examples[row].text!r} of {examples[row].role or 'out_of_scope'}"
            found.append(Finding("warning", other.role, message))
    return found


def _contradictions(fitted: Classifier) -> list[Finding]:
    """Examples that, left out, surely belong to another role."""
    report = evaluate_left_out(fitted)
    if report is None:
        return []
    return [
        Finding(
            "hint",
            confusion.truth,
            f"{mistake.text!r} reads like {mistake.role} ({mistake.chance:.0%}); move it, or add others like it",
        )
        for confusion in report.worst
        for mistake in confusion.examples
        if mistake.chance >= SURE
    ]


def _confusions(report: Report) -> list[Finding]:
    found = []
    totals = report.matrix.sum(axis=1)
    for one in report.worst:
        share = one.count / max(int(totals[report.roles.index(one.truth)]), 1)
        if share > CONFUSED:
            texts = "; ".join(repr(mistake.text) for mistake in one.examples)
            message = f"{share:.0%} of its examples, left out, go to {one.said}: {texts}"
            found.append(Finding("warning", one.truth, message))
    return found


def tune(fitted: Classifier) -> list[Setting]:
    """What each `reject_rate` would mean, on left-out examples (and those of `out_of_scope`)."""
    sample = _sample(fitted)
    if sample is None:
        return []
    found = []
    for rate in RATES:
        threshold = float(np.quantile(sample.scope[sample.inside], rate))
        kept = sample.scope >= threshold
        caught = share(~kept[~sample.inside]) if (~sample.inside).any() else None
        right = share(sample.right[sample.inside & kept])
        found.append(Setting(rate, threshold, share(kept[sample.inside]), right, caught))
    return found


def tune_margin(fitted: Classifier) -> list[MarginSetting]:
    """What each `ask_rate` would mean, on left-out examples of roles."""
    sample = _sample(fitted)
    if sample is None:
        return []
    lead, right = sample.lead[sample.inside], sample.right[sample.inside]
    found = []
    for rate in RATES:
        threshold = float(np.quantile(lead, rate))
        asked = lead < threshold
        found.append(MarginSetting(rate, threshold, share(asked), share(asked[~right]), share(right[~asked])))
    return found


@dataclass(frozen=True)
class _Sample:
    """Left-out examples, scored: `inside` are those of roles."""

    scope: Wide
    lead: Wide
    right: Mask
    inside: Mask


def _sample(fitted: Classifier) -> _Sample | None:
    left = fitted.left_out
    if left is None or left.alone:
        return None
    scored = fitted.weigh(left.evidence, np.zeros((0, 0), np.float32))
    owner = np.array([fitted.roles.index(fitted.examples[row].role) for row in left.rows.tolist()])
    best = np.sort(scored.chances, axis=1)
    lead = best[:, -1] - (best[:, -2] if best.shape[1] > 1 else 0.0)
    inside = np.array([fitted.roles[number] != NOTHING for number in owner.tolist()])
    return _Sample(scored.scope, lead, scored.chances.argmax(axis=1) == owner, inside)
