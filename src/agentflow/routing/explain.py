"""A decision as plain JSON: what the message looks like to the router, and why."""

import numpy as np

from agentflow.protocols import Vectors
from agentflow.routing.classifier import NOTHING, Classifier, Scored
from agentflow.turn import Json

SHOWN = 5
NEAREST = 3
PARTS = ("discriminant", "regression", "nearest", "mean")


def explained(fitted: Classifier, scored: Scored, row: int, *, present: str | None) -> Json:
    """The ranking (best five, and the thread's present role), scope, margin, confidence, and their reasons.

    `score`s are chances: on left-out examples a score of 0.8 is right eight times in ten.
    """
    chances = scored.chances[row]
    order = [
        place for place in np.argsort(-chances, kind="stable").tolist() if fitted.roles[place] != NOTHING
    ]
    shown = order[:SHOWN] + [place for place in order[SHOWN:] if fitted.roles[place] == present]
    best, second = chances[order[0]], chances[order[1]] if len(order) > 1 else 0.0
    scope = float(scored.scope[row])
    return {
        "ranking": [
            {"role": fitted.roles[place], "score": round(float(chances[place]), 6)} for place in shown
        ],
        "intent": _best_intent(fitted, scored, row, order[0]),
        "confidence": round(float(best), 4),
        "margin": round(float(best - second), 6),
        "scope_score": round(scope, 4) if np.isfinite(scope) else None,
        "nearest": _nearest(fitted, scored.similar[row]),
        "parts": [_parts(fitted, scored, row, place) for place in shown[:NEAREST]],
        "features": fitted.space.name,
        "calibration": _calibration(fitted),
    }


def _best_intent(fitted: Classifier, scored: Scored, row: int, role: int) -> str | None:
    """The name of the likeliest intent of a role that lists several."""
    own = np.flatnonzero(fitted.grouped.of_class == role)
    scores = fitted.scale.labels(scored.evidence)[row, own]
    return fitted.classes[own[int(scores.argmax())]][1] or None


def _nearest(fitted: Classifier, similar: Vectors) -> list[Json]:
    order = np.argsort(-similar, kind="stable")[:NEAREST].tolist()
    found = [(fitted.examples[place], round(float(similar[place]), 4)) for place in order]
    return [{"role": one.role or None, "text": one.text, "similarity": near} for one, near in found]


def _parts(fitted: Classifier, scored: Scored, row: int, role: int) -> Json:
    """The strongest of each kind of evidence for a role, unscaled."""
    own = np.flatnonzero(fitted.grouped.of_class == role)
    parts = zip(PARTS, scored.evidence.parts, strict=True)
    return {"role": fitted.roles[role]} | {
        name: round(float(part[row, own].max()), 4) for name, part in parts
    }


def _calibration(fitted: Classifier) -> str:
    if not fitted.thresholds.sample:
        return "none"
    return "stale" if fitted.stale else "fresh"
