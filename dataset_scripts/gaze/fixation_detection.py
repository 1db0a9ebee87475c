"""Raw samples of an eye tracker -> fixations, by dispersion (I-DT).

Source: Salvucci and Goldberg, "Identifying fixations and saccades in eye-tracking protocols", ETRA 2000. A window that
lasts MIN_DURATION_SECONDS is a fixation when its samples lie close enough together, and grows while they do; otherwise
it moves on by one sample. The samples need not be evenly spaced.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dataset_scripts.files.tables import FloatArray

Indices = npt.NDArray[np.int64]

MIN_DURATION_SECONDS = 0.1
MAX_GAP_SECONDS = 0.075  # a dropout; a blink lasts longer
CLOCK_TOLERANCE_SECONDS = 1e-6


def detect_fixations(x: FloatArray, y: FloatArray, time: FloatArray, dispersion: float) -> dict[str, FloatArray]:
    """The fixations among samples, in the order of time; they do not overlap.

    A fixation lasts from its first sample to its last one and lies at the mean of them all. Where samples are further
    apart than MAX_GAP_SECONDS (a blink, a loss of tracking) it ends, and the gap is part of none; a shorter gap is
    bridged and is part of the fixation, as the eye is at the same place before and after.

    Args:
        x, y: (S,) positions in one unit on both axes, all finite.
        time: (S,) seconds, strictly increasing.
        dispersion: the largest extent, width plus height, of the samples of a fixation, in the unit of x and y.

    Returns:
        `x`, `y`, `start`, `duration`, (F,) each.
    """
    first_of_segment = np.flatnonzero(np.diff(time, prepend=-np.inf) > MAX_GAP_SECONDS + CLOCK_TOLERANCE_SECONDS)
    segment_ends = np.append(first_of_segment[1:], len(time))
    ends = segment_ends[np.searchsorted(first_of_segment, np.arange(len(time)), side="right") - 1]
    starts = _window_starts(x, y, time, ends, dispersion)
    spans: list[tuple[int, int]] = []
    free = 0
    while (place := int(np.searchsorted(starts, free))) < len(starts):
        first = int(starts[place])
        free = first + _reach(x[first : ends[first]], y[first : ends[first]], dispersion)
        spans.append((first, free))
    firsts, afters = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return {
        "x": np.array([x[first:after].mean() for first, after in spans], dtype=np.float64),
        "y": np.array([y[first:after].mean() for first, after in spans], dtype=np.float64),
        "start": time[firsts],
        "duration": time[afters - 1] - time[firsts],
    }


def _window_starts(x: FloatArray, y: FloatArray, time: FloatArray, ends: Indices, dispersion: float) -> Indices:
    """The samples from which the shortest window that lasts long enough is a fixation; `ends` as of their segments."""
    last = np.searchsorted(time, time + MIN_DURATION_SECONDS - CLOCK_TOLERANCE_SECONDS)
    first = np.flatnonzero(last < ends)
    last = last[first]
    width, height = (
        _range_extreme(values, first, last, np.maximum) - _range_extreme(values, first, last, np.minimum)
        for values in (x, y)
    )
    return first[width + height <= dispersion]


def _range_extreme(
    values: FloatArray, first: Indices, last: Indices, extreme: Callable[[FloatArray, FloatArray], FloatArray]
) -> FloatArray:
    """The extreme of values[first ... last] of many ranges: of two ranges of 2^k values that cover it."""
    level = np.floor(np.log2(last - first + 1)).astype(np.int64)
    found = np.empty(len(first))
    covering = values  # entry i: the extreme of the 2^k values from i on
    for k in range(int(level.max(initial=-1)) + 1):
        here = level == k
        found[here] = extreme(covering[first[here]], covering[last[here] - 2**k + 1])
        covering = extreme(covering[: -(2**k)], covering[2**k :])
    return found


def _reach(x: FloatArray, y: FloatArray, dispersion: float) -> int:
    """How many samples from the first on lie close enough together; looks ahead in steps that double."""
    ahead = 64
    while True:
        extent = _running_range(x[:ahead]) + _running_range(y[:ahead])
        count = int(np.searchsorted(extent, dispersion, side="right"))
        if count < len(extent) or count == len(x):
            return count
        ahead *= 2


def _running_range(values: FloatArray) -> FloatArray:
    return np.maximum.accumulate(values) - np.minimum.accumulate(values)
