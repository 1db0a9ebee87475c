"""Shares of hits: Wilson's interval with the design effect of the patients."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Array = NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
WILSON = "Wilson, design effect"


def wilson(hits: Array, entries: Array, trials: int = 1) -> Interval | None:
    """Interval of sum(hits) / sum(entries); None with fewer than two patients.

    The effective number of entries is that of which independent ones would have the variance between patients
    (Kish 1965), at most as many as there are, less what its few degrees of freedom cost (Korn & Graubard, "Confidence
    intervals for proportions with small expected number of positive counts", Survey Methodology 1998). Without a hit or
    without a miss, the entries of a patient are taken to agree: 0 of 220 is not 0 for certain.

    Args:
        hits, entries: (P,) of each patient; a hit may be a part, where a tie shares it.
        trials: how many of its own an entry is the mean of (k for P@k).
    """
    seen = int((entries > 0).sum())
    if seen < 2:
        return None
    count = float(entries.sum())
    share = min(float(hits.sum()) / count, 1.0)
    variance = seen / (seen - 1) * float(np.square(hits - share * entries).sum()) / count**2
    if min(share, 1 - share) * count < 1e-9:
        effective = count**2 / float(entries @ entries)
    else:
        effective = min(share * (1 - share) / max(variance, 1e-300), count * trials)
    normal = float(ndtri((1 + CONFIDENCE) / 2))
    effective *= (normal / float(stdtrit(seen - 1, (1 + CONFIDENCE) / 2))) ** 2
    centre = (share + normal**2 / (2 * effective)) / (1 + normal**2 / effective)
    half = (
        normal * np.sqrt(share * (1 - share) / effective + (normal / effective) ** 2 / 4) / (1 + normal**2 / effective)
    )
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))
