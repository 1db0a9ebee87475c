"""Agreement of maps with gaze: the saliency metrics of Bylinskii et al.

Source: "What Do Different Evaluation Metrics Tell Us About Saliency Models?", TPAMI 2019, and its reference code.
Maps are (n, H, W), or one (1, H, W) for all n. Gaze is either `fixations`, (n, H, W) counts of fixations in every
cell, or `gaze_maps`, (n, H, W) heat maps that are nowhere negative. What has no answer (no fixation, an empty or
even gaze map) raises ValueError.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egma.evaluation.metrics.maps import checked_pair, is_constant, refuse
from egma.tools.arrays import Array

EPSILON = float(np.finfo(np.float64).eps)  # of the reference code's KL


def nss(maps: ArrayLike, fixations: ArrayLike) -> Array:
    """(n,) normalised scanpath saliency: mean over the fixations of the map in standard deviations above its mean.

    Several fixations in one cell count as several; the deviation is the population's. A constant map earns 0, as
    chance does.

    >>> nss([[[3, 1]]], [[[2, 1]]])  # two fixations a deviation above the mean, one below
    array([0.33333333])
    """
    values, counts = _with_fixations(maps, fixations)
    constant = is_constant(values)
    deviation = np.where(constant, 1.0, values.std(axis=(1, 2)))
    at_fixations = (values * counts).sum(axis=(1, 2)) / counts.sum(axis=(1, 2))
    return np.where(constant, 0.0, (at_fixations - values.mean(axis=(1, 2))) / deviation)


def auc_judd(maps: ArrayLike, fixations: ArrayLike, thresholds: Literal["all", "fixations"] = "all") -> Array:
    """(n,) area under the ROC curve of the map as a classifier of fixated against other cells.

    With "all" thresholds the area is exact, ties half: a random or a constant map earns 0.5 whatever the number of
    fixations. The reference code draws its straight lines between the values at the "fixations" alone, which adds up
    to 1 / (2 F): for published figures. (It breaks ties by noise; here they are exact.)

    Raises:
        ValueError: every cell is fixated; see also the top.

    >>> auc_judd([[[3, 2, 1]]], [[[0, 1, 0]]])  # above one of two other cells
    array([0.5])
    """
    if thresholds == "all":
        return both_aucs(maps, fixations, fixations)[0]
    values, counts = _with_fixations(maps, fixations)
    fixated = counts > 0
    _refuse_all_fixated(fixated)
    if thresholds != "fixations":
        raise ValueError(f"thresholds is {thresholds!r}, expected 'all' or 'fixations'")
    each = zip(np.broadcast_to(values, fixated.shape), fixated, strict=True)
    return np.array([_auc_between(row[mask], row[~mask]) for row, mask in each])


def shuffled_auc(maps: ArrayLike, fixations: ArrayLike, other_fixations: ArrayLike) -> Array:
    """(n,) as `auc_judd`, fixations of this image against the places that were fixated on other images.

    Centre bias earns about 0.5. All other fixations count, where the reference code draws samples of them.

    Args:
        other_fixations: (n, H, W) counts of the fixations on other images.

    >>> shuffled_auc([[[3, 2, 1]]], [[[0, 1, 0]]], [[[1, 0, 3]]])  # above three of four
    array([0.75])
    """
    values, counts = _with_fixations(maps, fixations)
    _, others = _with_fixations(values, other_fixations, "other_fixations")
    return _aucs(values, counts, others)[1]


def both_aucs(maps: ArrayLike, fixations: ArrayLike, other_fixations: ArrayLike) -> tuple[Array, Array]:
    """`auc_judd` with all thresholds and `shuffled_auc`, for which the cells are compared once."""
    values, counts = _with_fixations(maps, fixations)
    _, others = _with_fixations(values, other_fixations, "other_fixations")
    _refuse_all_fixated(counts > 0)
    return _aucs(values, counts, others)


def _refuse_all_fixated(fixated: NDArray[np.bool_]) -> None:
    refuse(fixated.all(axis=(1, 2)), "fixations: every cell is fixated")


def cc(maps: ArrayLike, gaze_maps: ArrayLike) -> Array:
    """(n,) CC, Pearson's correlation over the cells. A constant map earns 0, as chance does.

    Raises:
        ValueError: a gaze map that is the same everywhere.

    >>> cc([[[1, 2, 3]]], [[[3, 2, 1]]])
    array([-1.])
    """
    values, gaze = checked_pair(maps, gaze_maps, "gaze_maps")
    refuse(is_constant(gaze), "gaze_maps: the same everywhere, so that nothing correlates with it")
    constant = is_constant(values)
    first, second = (part - part.mean(axis=(1, 2), keepdims=True) for part in (values, gaze))
    norms = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return np.where(constant, 0.0, (first * second).sum(axis=(1, 2)) / np.where(constant, 1.0, norms))


def sim(maps: ArrayLike, gaze_maps: ArrayLike) -> Array:
    """(n,) SIM: sum over the cells of the smaller of both, each divided by its sum; 1 is equal, 0 is disjoint.

    Raises:
        ValueError: a negative value or an empty map; pass cosines through `maps.as_distributions` first.

    >>> sim([[[1, 1]]], [[[3, 1]]])  # 1/2 and 1/4
    array([0.75])
    """
    values, gaze = _distributions(maps, gaze_maps)
    return np.asarray(np.minimum(values, gaze).sum(axis=(1, 2)), dtype=np.float64)


def kl(maps: ArrayLike, gaze_maps: ArrayLike) -> Array:
    """(n,) KL of the gaze from the map, each divided by its sum, in nats: 0 is equal, more is worse.

    As in the reference code, 2.2e-16 keeps a cell of 0 from an infinite result.

    Raises:
        ValueError: a negative value or an empty map; pass cosines through `maps.as_distributions` first.

    >>> kl([[[1, 1]]], [[[2, 0]]])  # ln 2
    array([0.69314718])
    """
    values, gaze = _distributions(maps, gaze_maps)
    return np.asarray((gaze * np.log(EPSILON + gaze / (values + EPSILON))).sum(axis=(1, 2)), dtype=np.float64)


def _with_fixations(maps: ArrayLike, fixations: ArrayLike, name: str = "fixations") -> tuple[Array, Array]:
    values, counts = checked_pair(maps, fixations, name)
    refuse(counts.sum(axis=(1, 2)) == 0, f"{name}: none")
    return values, counts


def _distributions(maps: ArrayLike, gaze_maps: ArrayLike) -> tuple[Array, Array]:
    values, gaze = checked_pair(maps, gaze_maps, "gaze_maps")
    refuse((values < 0).any(axis=(1, 2)), "maps: a negative value, expected a map that can be divided by its sum")
    return _divided_by_sum(values, "maps"), _divided_by_sum(gaze, "gaze_maps")


def _divided_by_sum(maps: Array, name: str) -> Array:
    total = maps.sum(axis=(1, 2), keepdims=True)
    refuse(total[:, 0, 0] == 0, f"{name}: nothing but zeros")
    return maps / total


def _aucs(values: Array, counts: Array, others: Array) -> tuple[Array, Array]:
    """Shares (n,) of pairs in the right order, ties half: fixated and other cells, fixations and other fixations."""
    values, counts, others = (part.reshape(len(part), -1) for part in (values, counts, others))
    each = zip(np.broadcast_to(values, counts.shape), counts, others, strict=True)
    pairs = np.array([_ordered_pairs(*row) for row in each]).reshape(-1, 2)
    fixated = (counts > 0).sum(axis=1)
    cells = fixated * np.maximum(counts.shape[1] - fixated, 1)
    return pairs[:, 0] / cells, pairs[:, 1] / (counts.sum(axis=1) * others.sum(axis=1))


def _ordered_pairs(values: Array, counts: Array, others: Array) -> tuple[float, float]:
    """Of one map (cells,): the few fixated cells against all others, and their fixations against `others`."""
    marked = np.flatnonzero(counts > 0)
    cuts = values[marked, None]
    lower, through = values < cuts, values <= cuts
    # of all cells, less the pairs of fixated ones, whatever their order
    pairs = (np.count_nonzero(lower) + np.count_nonzero(through) - len(marked) ** 2) / 2
    return pairs, float(counts[marked] @ ((lower.view(np.int8) + through.view(np.int8)) @ others)) / 2


def _auc_between(at_fixations: Array, elsewhere: Array) -> float:
    """Trapezoids between the points of the ROC curve at the values of the fixations, from (0, 0) to (1, 1)."""
    cuts = np.unique(at_fixations)[::-1]
    hits = [(at_fixations >= cut).mean() for cut in cuts]
    false_alarms = [(elsewhere >= cut).mean() for cut in cuts]
    return float(np.trapezoid([0, *hits, 1], [0, *false_alarms, 1]))
