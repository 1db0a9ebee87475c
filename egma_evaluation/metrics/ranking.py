"""Precision and recall at k. Tied candidates share the mean of their ranks, so that a constant score is no luck."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def mean_ranks(scores: Array) -> Array:
    """(q, c) scores of c candidates in each of q queries -> (q, c) ranks from 1, best first, ties at their mean.

    Raises:
        ValueError: another shape, no candidate, or a score that is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores have shape {scores.shape}, expected (queries, candidates) with a candidate or more")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold a number that is not finite")
    return np.asarray(rankdata(-scores, axis=1), dtype=np.float64)


def precision_at_k(scores: Array, relevant: NDArray[np.bool_], k: int) -> Array:
    """(q,) share of k places that relevant candidates hold.

    A candidate holds a place when its mean rank is at most k. Places that a tie leaves open earn nothing: a constant
    score over more than 2k - 1 candidates earns 0.

    Args:
        scores, relevant: (q, c)

    Raises:
        ValueError: k outside 1 ... c, or see `mean_ranks`.
    """
    return _retrieved(scores, relevant, k).sum(axis=1) / k


def recall_at_k(scores: Array, relevant: NDArray[np.bool_], k: int) -> Array:
    """(q,) share of a query's relevant candidates whose mean rank is at most k.

    Args:
        scores, relevant: (q, c)

    Raises:
        ValueError: a query without a relevant candidate, k outside 1 ... c, or see `mean_ranks`.
    """
    retrieved = _retrieved(scores, relevant, k).sum(axis=1)
    count = np.asarray(relevant, dtype=bool).sum(axis=1)
    if (count == 0).any():
        raise ValueError(f"query {int((count == 0).argmax())} has no relevant candidate")
    return retrieved / count


def _retrieved(scores: Array, relevant: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    ranks = mean_ranks(scores)
    relevant = np.asarray(relevant)
    if relevant.shape != ranks.shape:
        raise ValueError(f"relevant has shape {relevant.shape}, expected that of the scores, {ranks.shape}")
    if not np.isin(relevant, (0, 1)).all():
        raise ValueError("relevant holds something else than 0 and 1")
    if not 1 <= k <= ranks.shape[1]:
        raise ValueError(f"k is {k}, expected 1 ... {ranks.shape[1]}, the number of candidates")
    return (ranks <= k) & relevant.astype(bool)
