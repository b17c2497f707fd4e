"""How good the router is: on a file of labelled messages, or on its own examples, each left out in turn."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigError
from agentflow.protocols import Vectors
from agentflow.routing.calibration import Wide
from agentflow.routing.classifier import NOTHING, Classifier

SHOWN = 3


@dataclass(frozen=True)
class Labelled:
    """A message and the role it should get; None is what no role does."""

    text: str
    role: str | None


@dataclass(frozen=True)
class Mistake:
    """A message that went to the wrong role."""

    text: str
    role: str
    chance: float


@dataclass(frozen=True)
class Confusion:
    """`count` messages of `truth` went to `said`; the surest of them as examples."""

    truth: str
    said: str
    count: int
    examples: tuple[Mistake, ...]


@dataclass(frozen=True)
class Report:
    """How the router does on labelled messages.

    `accuracy` is of in-scope messages, before any is rejected; `kept` the share of them that passes the scope
    threshold; `outside_caught` the share of out-of-scope messages that does not (None without any), `auroc`
    how well the scope score parts the two. `matrix`[truth][said] counts; the column after the last role is
    what was rejected, the row after the last role what is out of scope. `calibration_error` is the expected
    gap between chance and truth over ten bins.
    """

    roles: tuple[str, ...]
    accuracy: float
    kept: float
    outside_caught: float | None
    auroc: float | None
    calibration_error: float
    matrix: NDArray[np.int64]
    worst: tuple[Confusion, ...]


def parsed(text: str, roles: Sequence[str], *, name: str) -> list[Labelled]:
    """Messages from lines of {"text", "role"}; "label" stands for "role" too, and null for no role.

    Raises ConfigError with the line that cannot be used.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        one = _line(line, f"{name}, line {number}")
        role = one.get("role", one.get("label")) or None
        if role is not None and role not in roles:
            known = ", ".join(role for role in roles if role != NOTHING)
            raise ConfigError(
                f"{name}, line {number}: there is no role {role!r}. Roles: {known}.", field="role"
            )
        found.append(Labelled(one["text"], role))
    if not found:
        raise ConfigError(f"{name} has no messages.", field="file", value=name)
    return found


def _line(line: str, place: str) -> Mapping[str, Any]:
    try:
        one = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place} is not JSON: {error}.", field="line", value=line[:80]) from error
    if not isinstance(one, dict) or not isinstance(one.get("text"), str):
        expected = '{"text": "...", "role": "..."}'
        raise ConfigError(f"{place} should be {expected}.", field="line", value=line[:80])
    return one


def evaluate(fitted: Classifier, labelled: Sequence[Labelled], vectors: Vectors) -> Report:
    """Measure on messages whose unit embeddings are `vectors`."""
    scored = fitted.score(vectors, [one.text for one in labelled])
    names = [role for role in fitted.roles if role != NOTHING]
    chances = scored.chances[:, int(NOTHING in fitted.roles) :]
    return _report(names, chances, scored.scope, labelled, fitted.thresholds.scope)


def evaluate_left_out(fitted: Classifier) -> Report | None:
    """Measure on the examples themselves, each left out in turn; None when they are too few for that."""
    left = fitted.left_out
    if left is None or left.alone:
        return None
    scored = fitted.weigh(left.evidence, np.zeros((0, 0), np.float32))
    labelled = [Labelled(one.text, one.role or None) for one in (fitted.examples[row] for row in left.rows)]
    names = [role for role in fitted.roles if role != NOTHING]
    chances = scored.chances[:, int(NOTHING in fitted.roles) :]
    return _report(names, chances, scored.scope, labelled, fitted.thresholds.scope)


def _report(
    names: Sequence[str], chances: Wide, scope: Wide, labelled: Sequence[Labelled], threshold: float
) -> Report:
    place = {name: number for number, name in enumerate(names)}
    outside = len(names)
    truth = np.array([outside if one.role is None else place[one.role] for one in labelled])
    said = chances.argmax(axis=1)
    passed, inside = scope >= threshold, truth < outside
    right = said == truth
    matrix = np.zeros((outside + 1, outside + 1), np.int64)
    np.add.at(matrix, (truth, np.where(passed, said, outside)), 1)
    return Report(
        roles=tuple(names),
        accuracy=share(right[inside]),
        kept=share(passed[inside]),
        outside_caught=share(~passed[~inside]) if (~inside).any() else None,
        auroc=_auroc(scope[inside], scope[~inside]),
        calibration_error=_calibration_error(chances.max(axis=1)[inside], right[inside]),
        matrix=matrix,
        worst=_worst(names, chances, truth, said, labelled),
    )


def _worst(
    names: Sequence[str],
    chances: Wide,
    truth: NDArray[np.int64],
    said: NDArray[np.int64],
    labelled: Sequence[Labelled],
) -> tuple[Confusion, ...]:
    wrong: dict[tuple[int, int], list[Mistake]] = {}
    for row in np.flatnonzero((truth != said) & (truth < len(names))).tolist():
        mistake = Mistake(labelled[row].text, names[said[row]], round(float(chances[row, said[row]]), 4))
        wrong.setdefault((int(truth[row]), int(said[row])), []).append(mistake)
    order = sorted(wrong, key=lambda pair: (-len(wrong[pair]), pair))
    return tuple(
        Confusion(names[pair[0]], names[pair[1]], len(wrong[pair]), _surest(wrong[pair])) for pair in order
    )


def _surest(mistakes: Sequence[Mistake]) -> tuple[Mistake, ...]:
    return tuple(sorted(mistakes, key=lambda one: (-one.chance, one.text))[:SHOWN])


def as_json(report: Report) -> Mapping[str, object]:
    """The report as plain values."""
    return {
        "roles": list(report.roles),
        "accuracy": report.accuracy,
        "kept": report.kept,
        "outside_caught": report.outside_caught,
        "auroc": report.auroc,
        "calibration_error": report.calibration_error,
        "matrix": report.matrix.tolist(),
        "worst": [
            {
                "truth": one.truth,
                "said": one.said,
                "count": one.count,
                "examples": [{"text": mistake.text, "chance": mistake.chance} for mistake in one.examples],
            }
            for one in report.worst
        ],
    }


def share(mask: NDArray[np.bool_]) -> float:
    """The mean of a mask, rounded; 0 for an empty one."""
    return round(float(mask.mean()), 4) if mask.size else 0.0


def _auroc(inside: Wide, outside: Wide) -> float | None:
    """Chance that an in-scope message scores above an out-of-scope one; a tie is half (Mann-Whitney)."""
    if not inside.size or not outside.size:
        return None
    ordered = np.sort(outside)
    below, up_to = (np.searchsorted(ordered, inside, side) for side in ("left", "right"))
    return round(float((below + up_to).mean()) / 2 / outside.size, 4)


def _calibration_error(chance: Wide, right: NDArray[np.bool_]) -> float:
    bins = np.minimum((chance * 10).astype(int), 9)
    gaps = [
        abs(float(chance[bins == one].mean() - right[bins == one].mean())) * float((bins == one).mean())
        for one in set(bins.tolist())
    ]
    return round(sum(gaps), 4)
