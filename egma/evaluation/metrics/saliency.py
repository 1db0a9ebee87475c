"""Agreement of maps with gaze: the saliency metrics of Bylinskii et al.

Source: "What Do Different Evaluation Metrics Tell Us About Saliency Models?", TPAMI 2019, and its reference code.
Maps are (n, H, W). Gaze is either `fixations`, (n, H, W) counts of fixations in every cell, or `gaze_maps`, (n, H, W)
heat maps that are nowhere negative. What has no answer (no fixation, an empty or even gaze map) raises ValueError.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from egma.evaluation.metrics.maps import checked_pair, is_constant, refuse
from egma.tools.arrays import Array

EPSILON = float(np.finfo(np.float64).eps)  # of the reference code's KL


def nss(maps: ArrayLike, fixations: ArrayLike) -> Array:
    """(n,) normalised scanpath saliency: mean over the fixations of the map in standard deviations above its mean.

    Several fixations in one cell count as several; the deviation is the population's. A constant map earns 0, as
    chance does.
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
    """
    values, counts = _with_fixations(maps, fixations)
    fixated = counts > 0
    refuse(fixated.all(axis=(1, 2)), "fixations: every cell is fixated")
    if thresholds == "all":
        return _auc(values, fixated.astype(np.float64), (~fixated).astype(np.float64))
    if thresholds != "fixations":
        raise ValueError(f"thresholds is {thresholds!r}, expected 'all' or 'fixations'")
    return np.array([_auc_between(row[mask], row[~mask]) for row, mask in zip(values, fixated, strict=True)])


def shuffled_auc(maps: ArrayLike, fixations: ArrayLike, other_fixations: ArrayLike) -> Array:
    """(n,) as `auc_judd`, fixations of this image against the places that were fixated on other images.

    Centre bias earns about 0.5. All other fixations count, where the reference code draws samples of them.

    Args:
        other_fixations: (n, H, W) counts of the fixations on other images.
    """
    values, counts = _with_fixations(maps, fixations)
    _, others = _with_fixations(values, other_fixations, "other_fixations")
    return _auc(values, counts, others)


def cc(maps: ArrayLike, gaze_maps: ArrayLike) -> Array:
    """(n,) CC, Pearson's correlation over the cells. A constant map earns 0, as chance does.

    Raises:
        ValueError: a gaze map that is the same everywhere.
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
    """
    values, gaze = _distributions(maps, gaze_maps)
    return np.asarray(np.minimum(values, gaze).sum(axis=(1, 2)), dtype=np.float64)


def kl(maps: ArrayLike, gaze_maps: ArrayLike) -> Array:
    """(n,) KL of the gaze from the map, each divided by its sum, in nats: 0 is equal, more is worse.

    As in the reference code, 2.2e-16 keeps a cell of 0 from an infinite result.

    Raises:
        ValueError: a negative value or an empty map; pass cosines through `maps.as_distributions` first.
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


def _auc(values: Array, positives: Array, negatives: Array) -> Array:
    """Share of (positive, negative) pairs in the right order, ties half; weights (n, H, W) of both classes."""
    values, positives, negatives = (part.reshape(len(part), -1) for part in (values, positives, negatives))
    if values.strides[0] == 0:  # one map, broadcast: sorted once
        return _auc_of_one(values[0], positives, negatives)
    pairs = [_ordered_pairs(*row) for row in zip(values, positives, negatives, strict=True)]
    return np.array(pairs) / (positives.sum(axis=1) * negatives.sum(axis=1))


def _ordered_pairs(values: Array, positives: Array, negatives: Array) -> float:
    """Of one map (cells,): only the few cells with positives are sorted, the others counted between them."""
    marked = np.flatnonzero(positives)
    marked = marked[values[marked].argsort()]
    up_to = np.concatenate([[0.0], positives[marked].cumsum()])
    lower, through = (up_to[np.searchsorted(values[marked], values, side)] for side in ("left", "right"))
    return float(negatives @ (up_to[-1] - (lower + through) / 2))


def _auc_of_one(values: Array, positives: Array, negatives: Array) -> Array:
    """As `_auc`, of one map (cells,) and weights (n, cells)."""
    order = values.argsort()
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    above, below = (np.add.reduceat(part[:, order], starts, axis=1) for part in (positives, negatives))
    lower = below.cumsum(axis=1) - below
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.asarray((above * (lower + below / 2)).sum(axis=1) / pairs, dtype=np.float64)


def _auc_between(at_fixations: Array, elsewhere: Array) -> float:
    """Trapezoids between the points of the ROC curve at the values of the fixations, from (0, 0) to (1, 1)."""
    cuts = np.unique(at_fixations)[::-1]
    hits = [(at_fixations >= cut).mean() for cut in cuts]
    false_alarms = [(elsewhere >= cut).mean() for cut in cuts]
    return float(np.trapezoid([0, *hits, 1], [0, *false_alarms, 1]))
