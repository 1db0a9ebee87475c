"""Grey values of 16 bits beside the 8 that are shown of them, for who looks through another window."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HIGHEST = 2**16 - 1
FloatArray = npt.NDArray[np.float64]


class Depth(NamedTuple):
    """Grey values, (H, W) uint16, brighter ones higher; `low` and `high` are those that are shown black and white.

    Both may lie beyond the values.
    """

    values: npt.NDArray[np.uint16]
    low: float = 0.0
    high: float = float(HIGHEST)


def sixteen_bits(values: FloatArray) -> npt.NDArray[np.uint16]:
    """Values on 0 ... HIGHEST by their own range."""
    low, high = values.min(), values.max()
    return np.round((values - low) * (HIGHEST / max(high - low, np.finfo(np.float64).tiny))).astype(np.uint16)


def depth_of(values: FloatArray, shown: FloatArray) -> Depth:
    """A row of values and how bright each is shown, 0 to 1, as `Depth`.

    Its window is the line through the lowest and the highest value that are neither black nor white; all of the range
    where there are no two.
    """
    if shown[values.argmax()] < shown[values.argmin()]:
        values = -values
    deep = sixteen_bits(values)
    between = np.flatnonzero((shown > 0) & (shown < 1))
    if not len(between):
        return Depth(deep)
    first, last = between[deep[between].argmin()], between[deep[between].argmax()]
    if shown[last] <= shown[first]:
        return Depth(deep)
    width = (int(deep[last]) - int(deep[first])) / (shown[last] - shown[first])
    low = float(deep[first] - shown[first] * width)
    return Depth(deep, low, low + float(width))
