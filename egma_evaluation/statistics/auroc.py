"""AUROC of images that belong to patients: clustered DeLong (Obuchowski, "Nonparametric analysis of clustered ROC curve
data", Biometrics 1997), also of the mean over several classes of the same patients.

The interval lies on the logit scale, with Student's t and the degrees of freedom of the patients (Satterthwaite). That
holds where errors were seen: at least MISORDERED_PATIENTS, the scarcer kind of patients times min(AUROC, 1 - AUROC).
Elsewhere, so also where the separation is perfect, the empirical variance knows too little, and the limits are the
values g with |g - AUROC| = t sqrt(variance(g)) (Newcombe, "Confidence intervals for an effect size measure based on the
Mann-Whitney statistic", Stat. Med. 2006, method 5). variance(g) is Hanley and McNeil's (Radiology 1982) times a design
effect: that of Obuchowski, weighed with PRIOR_PATIENTS of which every one's images agree (as moderated variances, Smyth
2004), and never below 1, so that no interval is narrower than errors not yet seen would allow. `benchmarks/coverage.py`
counts how often the intervals hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from egma_evaluation.statistics.proportions import CONFIDENCE, Array, Interval

MISORDERED_PATIENTS = 5  # as n p >= 5 for a proportion
PRIOR_PATIENTS = 4
BISECTIONS = 40
DELONG, NEWCOMBE = "clustered DeLong, logit", "clustered DeLong, score (few errors)"


@dataclass(frozen=True)
class Placements:
    """One class: of every patient (P,) the number of positive and negative images and the sum of their placements.

    A positive's placement is the share of negatives below it, a negative's that of positives above it, ties half.
    """

    auroc: float
    positives: Array
    positive_sums: Array
    negatives: Array
    negative_sums: Array

    @property
    def parts(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Counts and sums of either kind."""
        return (self.positives, self.positive_sums), (self.negatives, self.negative_sums)


def placements(scores: Array, positive: NDArray[np.bool_], unit: NDArray[np.int64], patients: int) -> Placements:
    """`unit` (n,) is the patient of each image, 0 ... patients - 1.

    Raises:
        ValueError: a score that is not finite, or no image of one of the kinds.
    """
    if not np.isfinite(scores).all() or not positive.any() or positive.all():
        raise ValueError("expected finite scores of positives and of negatives")
    own, others = scores[positive], scores[~positive]
    above, below = share_below(own, others), 1 - share_below(others, own)

    def sums(values: Array, kind: NDArray[np.bool_]) -> Array:
        return np.bincount(unit[kind], values, patients).astype(np.float64)

    sick, healthy = (sums(np.ones(int(kind.sum())), kind) for kind in (positive, ~positive))
    return Placements(float(above.mean()), sick, sums(above, positive), healthy, sums(below, ~positive))


def scarcer_patients(classes: Sequence[Placements]) -> float:
    """Patients with a positive or those with a negative image, whichever are fewer; the harmonic mean of classes."""
    counts = np.array([[(count > 0).sum() for count, _ in one.parts] for one in classes])
    return float((1 / (1 / counts).mean(axis=0)).min())


def auroc_interval(classes: Sequence[Placements]) -> tuple[Interval, str] | None:
    """Interval of the mean AUROC and its method; None for a class with one patient of a kind."""
    patients = scarcer_patients(classes)
    value = float(np.mean([one.auroc for one in classes]))
    if any((count > 0).sum() < 2 for one in classes for count, _ in one.parts):
        return None
    variance, freedom = obuchowski(classes)
    if patients * min(value, 1 - value) >= MISORDERED_PATIENTS:
        half = _t(freedom) * np.sqrt(variance) / (value * (1 - value))
        return (float(expit(logit(value) - half)), float(expit(logit(value) + half))), DELONG
    return _score_interval(classes, value, variance, freedom), NEWCOMBE


def obuchowski(classes: Sequence[Placements]) -> tuple[float, float]:
    """Variance of the mean AUROC, and its degrees of freedom."""
    parts, plain, variances, freedoms = [0.0, 0.0], [0.0, 0.0], [], []
    for one in classes:
        for kind, (count, sums) in enumerate(one.parts):
            share = (sums - one.auroc * count) / count.sum() / len(classes)
            units = int((count > 0).sum())
            scaled = share * np.sqrt(units / (units - 1))
            parts[kind], plain[kind] = parts[kind] + scaled, plain[kind] + share
            variances.append(scaled @ scaled)
            freedoms.append(units - 1)
    positive, negative = parts
    units = int(np.any([count > 0 for one in classes for count, _ in one.parts], axis=0).sum())
    both = 2 * units / (units - 1) * np.sum(plain[0] * np.asarray(plain[1]))
    total = float(np.sum(np.square(positive)) + np.sum(np.square(negative)) + both)
    spread = np.square(variances) @ (1 / np.array(freedoms))
    return max(total, 0.0), float(np.sum(variances) ** 2 / spread) if spread > 0 else float(min(freedoms))


def hanley_mcneil(auroc: float, positives: float, negatives: float) -> float:
    """Variance of the AUROC of so many independent images of either kind."""
    above, below = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    pairs = (positives - 1) * (above - auroc**2) + (negatives - 1) * (below - auroc**2)
    return float((auroc * (1 - auroc) + pairs) / (positives * negatives))


def _score_interval(classes: Sequence[Placements], value: float, variance: float, freedom: float) -> Interval:
    sizes, effects = [], []
    for kind in (0, 1):
        counts = [one.parts[kind][0] for one in classes]
        sizes.append(len(classes) ** 2 / sum(1 / count.sum() for count in counts))
        of_patient = np.sum(counts, axis=0)
        effects.append(of_patient @ of_patient / of_patient.sum())
    agreeing = [size / effect for size, effect in zip(sizes, effects, strict=True)]
    inside = float(np.clip(value, 1e-9, 1 - 1e-9))
    plain, prior = hanley_mcneil(inside, *sizes), hanley_mcneil(inside, *agreeing)
    if 0 < value < 1:
        prior = (freedom * variance + PRIOR_PATIENTS * prior) / (freedom + PRIOR_PATIENTS)
    reach = _t(freedom + PRIOR_PATIENTS) ** 2 * max(1.0, prior / plain)
    return tuple(_limit(value, end, reach, *sizes) for end in (0.0, 1.0))  # type: ignore[return-value]


def _limit(value: float, end: float, reach: float, positives: float, negatives: float) -> float:
    """The farthest value towards `end` that lies within reach; `end` where the value is there."""
    near, far = value, end
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        inside = (middle - value) ** 2 <= reach * hanley_mcneil(middle, positives, negatives)
        near, far = (middle, far) if inside else (near, middle)
    return (near + far) / 2


def share_below(values: Array, others: Array) -> Array:
    """(n,) share of `others` below each value, ties half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(ordered))


def _t(freedom: float) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
