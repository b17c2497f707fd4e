"""Linear discriminant analysis: a Gaussian per class, one shrunken covariance, equal priors. Closed form.

The number of a class's examples never favours it. Leaving one example out is exact by rank-one updates
(Sherman-Morrison), so calibration needs no second fit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentflow.protocols import Vectors

Labels = NDArray[np.int64]
Wide = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """Logits x @ weight + bias; weight [features, classes]."""

    weight: Vectors
    bias: Vectors

    def logits(self, features: Vectors) -> Vectors:
        return features @ self.weight + self.bias

    def without(self, gone: Labels) -> "Linear":
        """The same logits, less some classes."""
        return Linear(np.delete(self.weight, gone, axis=1), np.delete(self.bias, gone))


@dataclass(frozen=True)
class Discriminant:
    """The fitted model, and the logits that the asked-for examples get when they are left out.

    An example that is alone in its class has -inf for it.
    """

    linear: Linear
    left_out: Vectors


def shrinkage(features: int, freedom: int) -> float:
    """How far the covariance goes towards a sphere: all the way with no residuals, half of it with plenty.

    Never under one half: sharper logits gain nothing in accuracy beside the regression and lose the
    ability to tell that nothing fits (docs/routing.md, "What was tried").
    """
    return float(np.clip(3 * features / (3 * features + max(freedom, 1)), 0.5, 0.9))


def fit_discriminant(features: Vectors, labels: Labels, classes: int, rows: Labels) -> Discriminant:
    """Logits x'Pm - m'Pm/2, P the inverse of the shrunken pooled covariance; `rows` are left out in turn."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    means = class_means(features, labels, classes)
    residual = features - means[labels].astype(np.float32)
    width, freedom = features.shape[1], max(len(features) - classes, 1)
    scatter = (residual.T @ residual).astype(np.float64) / freedom
    spread = np.trace(scatter) / width or 1.0
    share = shrinkage(width, freedom)
    precision = inverse((1 - share) * scatter + share * spread * np.eye(width))
    weight = precision @ means.T
    bias = -0.5 * np.einsum("kd,dk->k", means, weight)
    linear = Linear(weight.astype(np.float32), bias.astype(np.float32))
    update = (1 - share) / freedom
    return Discriminant(linear, _left_out(features[rows], labels[rows], means, precision, counts, update))


def inverse(positive: Wide) -> Wide:
    """The inverse of a symmetric positive definite matrix, by Cholesky: half the work of a general one."""
    from scipy.linalg.lapack import dpotrf, dpotri  # noqa: PLC0415 - slow to import; for fitting only

    factor, _ = dpotrf(positive, lower=True)
    found, _ = dpotri(factor, lower=True)
    lower: Wide = np.tril(found)
    return lower + np.tril(lower, -1).T


def class_means(features: Vectors, labels: Labels, classes: int) -> Wide:
    """[classes, features]; labels must be sorted and every class must occur."""
    starts = np.searchsorted(labels, np.arange(classes))
    sums = np.add.reduceat(features.astype(np.float64), starts, axis=0)
    means: Wide = sums / np.bincount(labels, minlength=classes)[:, None]
    return means


def _left_out(
    features: Vectors, labels: Labels, means: Wide, precision: Wide, counts: Wide, update: float
) -> Vectors:
    """Logits of every example from means and covariance without it.

    The covariance loses c rr' with c = update * n/(n-1), r the residual from the full mean; the own mean
    moves by -r/(n-1). Both corrections are exact, but for the degrees of freedom, which stay.
    """
    n = counts[labels]
    alone = n < 2
    rows = np.arange(len(labels))
    projected = features @ precision.astype(np.float32)  # x'P
    toward = projected @ means.T.astype(np.float32)  # x'Pm_k
    between = means @ precision @ means.T  # m_j'Pm_k
    own = toward[rows, labels]
    length = np.einsum("nd,nd->n", projected, features)  # x'Px
    r_means = toward - between[labels]  # r'Pm_k
    x_r = length - own  # x'Pr
    r_r = length - 2 * own + np.diag(between)[labels]  # r'Pr
    shrunk = update * n / np.maximum(n - 1, 1)
    gain = shrunk / np.maximum(1 - shrunk * r_r, 0.05)
    logits = toward + gain[:, None] * x_r[:, None] * r_means
    norms = np.diag(between) + gain[:, None] * r_means**2
    logits -= 0.5 * norms
    step = 1 / np.maximum(n - 1, 1)
    r_own = r_means[rows, labels]
    x_mean = own + gain * x_r * r_own - step * (x_r + gain * x_r * r_r)
    m_mean = norms[rows, labels] - 2 * step * (r_own + gain * r_own * r_r) + step**2 * (r_r + gain * r_r**2)
    logits[rows, labels] = np.where(alone, -np.inf, x_mean - 0.5 * m_mean)
    left_out: Vectors = logits.astype(np.float32)
    return left_out
