"""What speaks for each class: four independent kinds of evidence, fitted together, each adding up per class.

All four are such that leaving a class out changes nothing for the others, so that a role can be removed
from a fitted model exactly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentflow.protocols import Vectors
from agentflow.routing.discriminant import Labels, Linear, class_means, fit_discriminant
from agentflow.routing.regression import fit_regression
from agentflow.routing.space import Placed, unit

LEFT_OUT = 2000
REGRESSION_LIMIT = 4e9
NOWHERE = np.float32(-1.0)


@dataclass(frozen=True)
class Evidence:
    """Per text and class: two logits, cosine of the class's nearest example, cosine of its mean."""

    discriminant: Vectors
    regression: Vectors
    nearest: Vectors
    mean: Vectors

    def take(self, classes: NDArray[np.int64]) -> "Evidence":
        """The evidence for some of the classes."""
        return Evidence(*(part[:, classes] for part in self.parts))

    @property
    def parts(self) -> tuple[Vectors, Vectors, Vectors, Vectors]:
        return self.discriminant, self.regression, self.nearest, self.mean


@dataclass(frozen=True)
class Model:
    """The fitted arrays. Examples (`unit`, `labels`) are sorted by class.

    `spread` is the share of the examples' variance that lies within classes: near 0.5 for narrow intents,
    near 1 for roles of many unlike topics.
    """

    discriminant: Linear
    regression: Linear
    unit: Vectors
    labels: Labels
    mean: Vectors
    spread: float

    @property
    def classes(self) -> int:
        return len(self.mean)

    def evidence(self, placed: Placed) -> tuple[Evidence, Vectors]:
        """The evidence for every class, and the cosine of every example."""
        similar = placed.unit @ self.unit.T
        found = Evidence(
            self.discriminant.logits(placed.features),
            self.regression.logits(placed.features),
            np.maximum.reduceat(similar, _starts(self.labels, self.classes), axis=1),
            placed.unit @ self.mean.T,
        )
        return found, similar

    def without(self, gone: Labels) -> "Model":
        """The same model, less some classes: what it says of the others stays as it was."""
        kept = ~np.isin(self.labels, gone)
        renumbered = np.cumsum(~np.isin(np.arange(self.classes), gone)) - 1
        return Model(
            self.discriminant.without(gone),
            self.regression.without(gone),
            self.unit[kept],
            renumbered[self.labels[kept]],
            np.delete(self.mean, gone, axis=0),
            self.spread,
        )


@dataclass(frozen=True)
class LeftOut:
    """Evidence for examples as if each had not been there: the sample on which everything is calibrated.

    `rows` are their places among all `examples`. Where no class has two examples all are left out, so that
    nothing speaks for an example's own class: that sample only shows how alike the classes are.
    """

    evidence: Evidence
    labels: Labels
    rows: Labels
    examples: int
    alone: bool

    def take(self, rows: NDArray[np.bool_]) -> "LeftOut":
        """Some of the rows."""
        evidence = Evidence(*(part[rows] for part in self.evidence.parts))
        return LeftOut(evidence, self.labels[rows], self.rows[rows], self.examples, self.alone)


def fit_model(placed: Placed, labels: Labels) -> tuple[Model, LeftOut]:
    """Fit on examples sorted by class; at most LEFT_OUT examples, evenly chosen, are left out in turn."""
    classes = int(labels[-1]) + 1
    counts = np.bincount(labels)
    alone = bool(counts.max() == 1)
    rows = np.arange(len(labels)) if alone else np.flatnonzero(counts[labels] > 1)
    rows = rows[:: max(1, -(-rows.size // LEFT_OUT))]
    discriminant = fit_discriminant(placed.features, labels, classes, rows)
    regression, regression_out = _regression(placed.features, labels, classes, rows)
    means = class_means(placed.unit, labels, classes).astype(np.float32)
    model = Model(
        discriminant.linear,
        regression,
        placed.unit,
        labels,
        unit(means),
        _spread(placed.unit, means, labels),
    )
    nearest = _nearest_others(placed.unit, labels, rows, classes)
    mean = _means_of_others(placed.unit, labels, rows, means, counts)
    evidence = Evidence(discriminant.left_out, regression_out, nearest, mean)
    return model, LeftOut(evidence, labels[rows], rows, len(labels), alone)


def _regression(features: Vectors, labels: Labels, classes: int, rows: Labels) -> tuple[Linear, Vectors]:
    """Nothing but zeros above REGRESSION_LIMIT (examples x features x classes): it would take too long."""
    if classes == 1 or float(features.size) * classes > REGRESSION_LIMIT:
        nothing = np.zeros((features.shape[1], classes), np.float32)
        return Linear(nothing, nothing[0]), np.zeros((rows.size, classes), np.float32)
    fitted = fit_regression(features, labels, classes, rows)
    return fitted.linear, fitted.left_out


def _spread(rows: Vectors, means: Vectors, labels: Labels) -> float:
    total = float(((rows - rows.mean(axis=0)) ** 2).sum()) / max(len(rows) - 1, 1)
    within = float(((rows - means[labels]) ** 2).sum()) / max(len(rows) - len(means), 1)
    return min(1.0, within / total) if total > 0 else 1.0


def _nearest_others(rows: Vectors, labels: Labels, chosen: Labels, classes: int) -> Vectors:
    similar = rows[chosen] @ rows.T
    similar[np.arange(chosen.size), chosen] = NOWHERE
    return np.maximum.reduceat(similar, _starts(labels, classes), axis=1)


def _means_of_others(
    rows: Vectors, labels: Labels, chosen: Labels, means: Vectors, counts: Labels
) -> Vectors:
    own = labels[chosen]
    similar = rows[chosen] @ unit(means).T
    rest = unit((means[own] * counts[own, None] - rows[chosen]).astype(np.float32))
    without = np.einsum("nd,nd->n", rest, rows[chosen])
    similar[np.arange(chosen.size), own] = np.where(counts[own] > 1, without, NOWHERE)
    return similar


def _starts(labels: Labels, classes: int) -> Labels:
    return np.searchsorted(labels, np.arange(classes))
