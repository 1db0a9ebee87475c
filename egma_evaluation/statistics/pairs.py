"""Two models on the same patients: sign-flips of what each patient adds to the difference, and Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from egma_evaluation.statistics.auroc import share_below
from egma_evaluation.statistics.proportions import CONFIDENCE, Array, Interval

SIGN_FLIPS = "sign-flips over patients"
FEW_DISAGREEING = 5  # with fewer no mid-p lies below 0.05


@dataclass(frozen=True)
class Ranked:
    """One class: of each image (n,) its rank by the score, ties at their mean, whether it is positive, its patient."""

    ranks: Array
    positive: NDArray[np.bool_]
    unit: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Array, positive: NDArray[np.bool_], unit: NDArray[np.int64]) -> "Ranked":
        return cls(rankdata(scores), positive, unit)

    def to_json(self) -> dict[str, Any]:
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Ranked":
        return cls(np.array(record["ranks"]), np.array(record["positive"], dtype=bool), np.array(record["unit"]))


def sign_flip(added: Array, weights: Array, flipped: NDArray[np.bool_]) -> tuple[Interval, float]:
    """Interval and two-sided p-value of a difference, sum(added), between two models.

    If the models are alike, any patient's figures may be exchanged, which changes the sign of what it adds. Draws as
    far from 0 as the observed difference count half (mid-p; Fagerland, Lydersen & Laake, "The McNemar test for binary
    matched-pairs data", 2013), so that few disagreements do not make the test blind. The interval holds the
    differences that the same flips do not refuse: weighted means of random subsets of the patients
    (Hartigan, "Using subsample values as typical values", JASA 1969).

    Args:
        added, weights: (P,) what each patient adds to the difference, and its weight, of sum 1.
        flipped: (draws, P) which patients are exchanged in each draw, each one with odds 1/2.
    """
    total, (part, share) = added.sum(), (flipped @ np.stack([added, weights], axis=1)).T
    # a difference that is 0 but for rounding is no evidence
    beyond = np.abs(total - 2 * part) - abs(total)
    far = (beyond > 1e-12).sum() + (np.abs(beyond) <= 1e-12).sum() / (1 if abs(total) <= 1e-12 else 2)
    defined = share > 0
    low, high = np.quantile(part[defined] / share[defined], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high)), float(1 + far) / (1 + len(flipped))


def disagreeing_patients(added: Array) -> int:
    """As how many equal ones the patients count that make two models differ; few leave a sign-flip no way to refuse."""
    squares = np.square(added)
    fourth = float(squares @ squares)
    return round(float(squares.sum()) ** 2 / fourth) if fourth > 0 else 0


def auroc_difference(first: Sequence[Ranked], second: Sequence[Ranked], patients: int) -> tuple[Array, Array]:
    """`added` and `weights` of `sign_flip` for the mean AUROC of the same classes by two models' ranks.

    The AUROC after an exchange is linear in the signs: a positive adds the share of both models' negatives below its
    first rank less that below its second, and a negative likewise (Bandos, Rockette & Gur, "A permutation test
    sensitive to differences in areas for comparing ROC curves from a paired design", Stat. Med. 2005).
    """
    added, weights = np.zeros(patients), np.zeros(patients)
    for one, other in zip(first, second, strict=True):
        kinds = one.positive, ~one.positive
        counts = [int(kind.sum()) for kind in kinds]
        for sign, kind, rest, count in zip((1, -1), kinds, kinds[::-1], counts, strict=True):
            others = np.concatenate([one.ranks[rest], other.ranks[rest]])
            gain = sign * (share_below(one.ranks[kind], others) - share_below(other.ranks[kind], others))
            added += np.bincount(one.unit[kind], gain / count, patients) / len(first)
            # the rarer kind carries more
            share = (sum(counts) - count) / sum(counts)
            weights += np.bincount(one.unit[kind], minlength=patients) * share / count / len(first)
    return added, weights


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the same order (Holm, "A simple sequentially rejective multiple test procedure", 1979)."""
    ordered = np.argsort(p_values, kind="stable")
    steps = np.minimum(1, np.array(p_values)[ordered] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[ordered] = np.maximum.accumulate(steps)
    return [float(value) for value in adjusted]
