"""Precision and recall at k, the expectation over random orders within a tie: a constant score is exactly at chance."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from egma.tools.arrays import Array

DECIMALS = 12


def held_share(before: ArrayLike, tied: ArrayLike, k: int) -> Array:
    """The chance that one of `tied` equal candidates, in random order, is among the first k, with `before` better ones.

    The one place where a rank becomes a hit; `tied` counts the candidate itself.

    >>> held_share(before=0, tied=2, k=1)  # one of two places
    np.float64(0.5)
    """
    open_places = k - np.asarray(before, dtype=np.float64)
    return np.clip(open_places / np.maximum(tied, 1), 0, 1)


def exact(shares: ArrayLike) -> Array:
    """Shares that were added up from parts, so that all is 1 and not 1 less a rounding."""
    return np.asarray(shares, dtype=np.float64).round(DECIMALS)


def precision_at_k(scores: Array, relevant: NDArray[np.bool_], k: int) -> Array:
    """(q,) expected share of k places that relevant candidates hold.

    Args:
        scores, relevant: (q, c)

    Raises:
        ValueError: k outside 1 ... c, another shape, no candidate, or a score that is not finite.

    >>> precision_at_k([[3, 2, 1]], [[1, 0, 1]], k=2)
    array([0.5])
    """
    return exact(_retrieved(scores, relevant, k).sum(axis=1) / k)


def recall_at_k(scores: Array, relevant: NDArray[np.bool_], k: int) -> Array:
    """(q,) expected share of a query's relevant candidates among the first k.

    Args:
        scores, relevant: (q, c)

    Raises:
        ValueError: a query without a relevant candidate, or see `precision_at_k`.

    >>> recall_at_k([[3, 2, 2]], [[1, 0, 1]], k=2)  # the first, and one of two for the second place
    array([0.75])
    """
    retrieved = _retrieved(scores, relevant, k).sum(axis=1)
    count = np.asarray(relevant, dtype=bool).sum(axis=1)
    if (count == 0).any():
        raise ValueError(f"query {int((count == 0).argmax())} has no relevant candidate")
    return exact(retrieved / count)


def _retrieved(scores: Array, relevant: NDArray[np.bool_], k: int) -> Array:
    scores, relevant = np.asarray(scores, dtype=np.float64), np.asarray(relevant)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores have shape {scores.shape}, expected (queries, candidates) with a candidate or more")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold a number that is not finite")
    if relevant.shape != scores.shape:
        raise ValueError(f"relevant has shape {relevant.shape}, expected that of the scores, {scores.shape}")
    if not np.isin(relevant, (0, 1)).all():
        raise ValueError("relevant holds something else than 0 and 1")
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k}, expected 1 ... {scores.shape[1]}, the number of candidates")
    first, last = (rankdata(-scores, method, axis=1) for method in ("min", "max"))
    return np.asarray(held_share(first - 1, last - first + 1, k) * relevant, dtype=np.float64)
