"""How well maps fit marked regions: contrast to noise, intersection over union, pointing game.

Masks are (n, H, W) and maps too, or one (1, H, W) for all; every function raises ValueError for what
`maps.checked_masks` refuses.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egma.evaluation.metrics.maps import checked_masks, is_constant, refuse
from egma.tools.arrays import Array

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def signed_cnr(maps: ArrayLike, masks: ArrayLike) -> Array:
    """(n,) (mean inside - mean outside) / sqrt(variance inside + variance outside), population variances.

    Chance is 0, and so is a constant map, by convention. The unit and the sign of the map do not matter otherwise:
    cosines may be negative.

    Raises:
        ValueError: a mask that marks every cell, or a map with one value inside and another one outside.

    >>> signed_cnr([[[3, 1, 0, 0]]], [[[1, 1, 0, 0]]])  # 2 apart, a variance of 1 inside
    array([2.])
    """
    values, marked = checked_masks(maps, masks)
    refuse(marked.all(axis=(1, 2)), "masks: every cell is marked, nothing is outside")
    constant, values = is_constant(values), np.broadcast_to(values, marked.shape)
    inside, outside = _moments(values, marked), _moments(values, ~marked)
    spread = np.sqrt(inside[1] + outside[1])
    refuse((spread == 0) & ~constant, "maps: no variance inside or outside, the contrast is infinite")
    return np.where(constant, 0.0, (inside[0] - outside[0]) / np.where(constant, 1.0, spread))


def cnr(maps: ArrayLike, masks: ArrayLike) -> Array:
    """(n,) |`signed_cnr`| (Boecking et al., "Making the Most of Text Semantics", ECCV 2022).

    As published; a map that is dark where it should be bright earns as much as its negative.

    >>> cnr([[[0, 0, 3, 1]]], [[[1, 1, 0, 0]]])
    array([2.])
    """
    return np.abs(signed_cnr(maps, masks))


def miou(maps: ArrayLike, masks: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> Array:
    """(n,) intersection over union of the cells above a threshold with the mask, mean over the thresholds.

    The map is taken as it is: scale it first (`maps.min_max`), or pass cosines, as Boecking et al. do. A threshold
    that no cell exceeds earns 0.

    Raises:
        ValueError: no thresholds.

    >>> miou([[[0.9, 0.3, 0.1]]], [[[1, 0, 0]]], thresholds=(0.2, 0.5))  # 1 of 2, 1 of 1
    array([0.75])
    """
    values, marked = checked_masks(maps, masks)
    if len(thresholds) == 0:
        raise ValueError("expected at least one threshold")
    size, shares = marked.sum(axis=(1, 2)), []
    for threshold in thresholds:
        above = values > threshold
        both = (above & marked).sum(axis=(1, 2))
        shares.append(both / (above.sum(axis=(1, 2)) + size - both))
    return np.asarray(np.mean(shares, axis=0), dtype=np.float64)


def pointing_credit(maps: ArrayLike, masks: ArrayLike) -> Array:
    """(n,) 1 where the map's maximum lies in the mask, else 0; tied maxima share the credit.

    A constant map earns the mask's share of the cells. Source: Zhang et al., "Top-down Neural Attention by Excitation
    Backprop", 2016, without their 15 pixels of tolerance.

    >>> pointing_credit([[[0.9, 0.9, 0.1]]], [[[1, 0, 0]]])
    array([0.5])
    """
    values, marked = checked_masks(maps, masks)
    peaks = values == values.max(axis=(1, 2), keepdims=True)
    return np.asarray((peaks & marked).sum(axis=(1, 2)) / peaks.sum(axis=(1, 2)), dtype=np.float64)


def _moments(values: Array, marked: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Mean and variance (n,) of the marked cells; an even region has variance exactly 0."""
    mean = values.mean(axis=(1, 2), where=marked)
    variance = values.var(axis=(1, 2), where=marked)
    low = values.min(axis=(1, 2), where=marked, initial=np.inf)
    even = low == values.max(axis=(1, 2), where=marked, initial=-np.inf)
    return mean, np.where(even, 0.0, variance)
