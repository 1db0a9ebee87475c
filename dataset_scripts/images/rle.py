"""The run lengths of SIIM-ACR: pairs of a gap and a length, each gap counted from the end of the run before.

Pixels run down the columns, first column first. Kaggle's other competitions count from the first pixel: not here.
"""

import numpy as np
import numpy.typing as npt

NO_MASK = "-1"
_LONGEST_NUMBER = 9  # digits; a picture that is read has fewer pixels than these can say
BoolArray = npt.NDArray[np.bool_]


def decode(text: str, width: int, height: int) -> BoolArray:
    """(height, width) mask of one cell; all False for "-1".

    Raises:
        ValueError: not pairs of whole numbers, or a run that ends outside the picture.
    """
    words = [] if text.strip() == NO_MASK else text.split()
    if len(words) % 2 or (not words and text.strip() != NO_MASK):
        raise ValueError(f"{len(words)} numbers; expected pairs of a gap and a length, or {NO_MASK}")
    for word in words:
        if not (word.isascii() and word.isdecimal() and len(word) <= _LONGEST_NUMBER):
            raise ValueError(f"{word[:20]!r}; expected whole numbers of pixels")
    lengths = [int(word) for word in words]
    left = width * height - sum(lengths)
    if left < 0:
        raise ValueError(f"a run ends {-left} pixels outside the {width} x {height} picture")
    is_run = np.tile([False, True], len(lengths) // 2 + 1)[: len(lengths) + 1]
    return np.repeat(is_run, [*lengths, left]).reshape(width, height).T


def encode(mask: BoolArray) -> str:
    """The cell of a (height, width) mask, which `decode` reads; "-1" where nothing is marked."""
    down_columns = mask.T.ravel()
    changes = np.flatnonzero(np.diff(down_columns, prepend=False, append=False))
    return " ".join(map(str, np.diff(changes, prepend=0))) or NO_MASK
