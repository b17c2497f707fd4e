"""From evidence to scores, thresholds and honest confidence, all set by the left-out examples."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agentflow.routing.evidence import Evidence, LeftOut

ENOUGH = 10
ALONE = 0.75
CLEAR = 0.5
STRANGERS = 0.06
Wide = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scale:
    """How evidence adds up.

    Label score of a class: `label` . its four kinds of evidence, sharpened by `temper` so that softmax gives a
    probability. Scope score of a text: `scope` . z-scores of the best class's four kinds of
    evidence, `centre` and `width` being those of left-out examples; 0 is a typical example.
    """

    label: tuple[float, float, float, float]
    temper: float
    scope: tuple[float, float, float, float]
    centre: tuple[float, float, float, float]
    width: tuple[float, float, float, float]

    def labels(self, evidence: Evidence) -> Wide:
        """Log-odds per class, up to a constant per text; [texts, classes]."""
        total = sum(weight * part for weight, part in zip(self.label, evidence.parts, strict=True))
        return self.temper * np.asarray(total, np.float64)

    def in_scope(self, evidence: Evidence) -> Wide:
        """[texts]; higher is more in scope."""
        rows = zip(self.scope, evidence.parts, self.centre, self.width, strict=True)
        return np.asarray(sum(w * (part.max(axis=1) - mid) / by for w, part, mid, by in rows), np.float64)


@dataclass(frozen=True)
class Thresholds:
    """Where to stop: the scope score under which nothing fits, the lead under which two roles are too close.

    `sample` is the number of left-out examples behind them; 0 when there were too few to calibrate on.
    """

    scope: float
    margin: float
    sample: int


@dataclass(frozen=True)
class Roles:
    """Which classes belong to which role: role r owns the classes from starts[r] to the next start.

    `nothing` is True when role 0 stands for what no role does (examples of `out_of_scope`).
    """

    starts: NDArray[np.int64]
    classes: int
    nothing: bool

    @property
    def of_class(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.starts.size), np.diff(np.append(self.starts, self.classes)))

    @property
    def real(self) -> NDArray[np.int64]:
        """The classes of true roles."""
        return np.arange(int(self.nothing and np.append(self.starts, self.classes)[1]), self.classes)

    def chances(self, scores: Wide) -> Wide:
        """Softmax over classes, added up per role; [texts, roles], rows sum to 1."""
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.add.reduceat(odds / odds.sum(axis=1, keepdims=True), self.starts, axis=1)


def scale_of(left_out: LeftOut, roles: Roles, spread: float) -> Scale:
    """Weights by how broad the classes are.

    Neighbours count for more in roles of many unlike topics, where one line cannot part them and where the
    regression's logit says little about scope. With few examples per class the covariance is a guess, and
    the plain means count for more. The forms are those of docs/routing.md, "What was tried".
    """
    logits = left_out.evidence.discriminant
    finite = logits[np.isfinite(logits)]
    size = float(finite.std()) if finite.size > 1 else 0.0
    freedom = left_out.examples - roles.classes
    label = (0.5 / (size or 1.0), 1.5, 2.0 / (1.05 - spread), 600 / (30 + freedom))
    if left_out.alone:
        nearest = left_out.evidence.nearest.max(axis=1)
        centre, width = (float(nearest.mean()), float(nearest.std())) if roles.classes > 1 else (0.3, 0.0)
        return Scale(label, 0.7, (0, 0, 1, 0), (0, 0, centre, 0), (1, 1, max(width, 0.05), 1))
    scope = (1.0, 2.0 * max(0.0, 0.9 - spread), 0.3 + 1.3 * spread**4, 0.5 + 15 / (10 + freedom))
    known = left_out.take(np.isin(left_out.labels, roles.real)).evidence.take(roles.real)
    best = np.stack([part.max(axis=1) for part in known.parts]).astype(np.float64)
    rough = Scale(label, 1.0, scope, _four(best.mean(axis=1)), _four(np.maximum(best.std(axis=1), 1e-3)))
    return replace(rough, temper=_temper(rough.labels(left_out.evidence), left_out.labels, roles))


def thresholds_of(
    left_out: LeftOut, scale: Scale, roles: Roles, *, reject_rate: float, ask_rate: float
) -> Thresholds:
    """Quantiles of the left-out examples.

    Where the roles are easily told apart fewer are asked about than `ask_rate`: never those whose best role
    leads by CLEAR. With out-of-scope examples the scope threshold is the one that gets most right: in scope,
    accepted and right; out of scope, rejected.
    """
    if left_out.alone or left_out.labels.size < ENOUGH:
        return _guessed(left_out, scale, roles)
    chances = roles.chances(scale.labels(left_out.evidence))
    truth, said = roles.of_class[left_out.labels], chances.argmax(axis=1)
    score = scale.in_scope(left_out.evidence.take(roles.real))
    real = truth > 0 if roles.nothing else np.ones(truth.size, bool)
    scope = _best_cut(score, real & (said == truth), ~real & (said > 0)) if roles.nothing else None
    scope = float(np.quantile(score[real], reject_rate)) if scope is None else scope
    top = np.sort(chances[real], axis=1)
    lead = top[:, -1] - top[:, -2] if top.shape[1] > 1 else top[:, -1]
    margin = min(float(np.quantile(lead, ask_rate)), CLEAR)
    return Thresholds(scope, margin, int(real.sum()))


def _guessed(left_out: LeftOut, scale: Scale, roles: Roles) -> Thresholds:
    """With almost no examples: as near as the worst of them.

    With one example per class: about as near as the classes are to each other. The fewer classes there are,
    the less that says, and the more is let through: a description is seldom near the messages it means. A
    cosine under STRANGERS is what unrelated sentences have.
    """
    if not left_out.alone:
        return Thresholds(float(scale.in_scope(left_out.evidence.take(roles.real)).min()), 0.0, 0)
    unsure, centre, width = min(1.0, 5 / roles.classes), scale.centre[2], scale.width[2]
    limit = max(centre - ALONE * width - 0.25 * unsure, min(centre, STRANGERS))
    return Thresholds((limit - centre) / width, 0.2 * unsure, 0)


def _best_cut(score: Wide, right: Mask, wrong: Mask) -> float | None:
    """The threshold that maximises share of `right` at or above it plus share of `wrong` below it."""
    if not wrong.any() or not right.any():
        return None
    cuts = np.quantile(score, np.linspace(0, 0.6, 121))
    kept = (score[right][:, None] >= cuts).mean(axis=0)
    caught = (score[wrong][:, None] < cuts).mean(axis=0)
    return float(cuts[int((kept + caught).argmax())])


def _temper(scores: Wide, labels: NDArray[np.int64], roles: Roles) -> float:
    """The factor that makes the left-out examples most likely; three pseudo-examples hold it near 1."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - slow to import; for fitting only

    own = roles.of_class[labels]
    rows = np.arange(labels.size)

    def cost(log: float) -> float:
        chance = np.maximum(roles.chances(np.exp(log) * scores)[rows, own], 1e-12)
        return float(-np.log(chance).sum() + 3 * log**2)

    return float(
        np.exp(minimize_scalar(cost, bounds=(-2.5, 2.5), method="bounded", options={"xatol": 0.02}).x)
    )


def _four(row: Wide) -> tuple[float, float, float, float]:
    a, b, c, d = (float(one) for one in row)
    return a, b, c, d
