"""Positions that a tracker writes when it has lost the eye: signs in place of a position, and the last one again.

A sign is judged in the unit and frame of the file, before anything is scaled: (0, 0) on a screen need not be the corner
of the image.
"""

import numpy as np
import numpy.typing as npt

from dataset_scripts.report import Ledger
from dataset_scripts.tables import FloatArray

BoolArray = npt.NDArray[np.bool_]

LOST_PLACES = (0, -1, -99, -999, -9999)  # on both axes at once, which no look but a lost one is exactly
LOST_BEYOND = 30_000  # no screen is as wide; -32768 and 1e8 are common
FROZEN_SECONDS = 0.1  # as long as the shortest fixation; an eye that is seen trembles
MOST_REPEATS = 0.1  # of the samples that do not freeze, in a recording that shows the trembling


def lost_eye(x: FloatArray, y: FloatArray, kind: str, where: str, ledger: Ledger) -> BoolArray:
    """(R,) whether a row holds a sign of a lost eye; their share is noted, of `kind` ("samples" or "fixations")."""
    signs = {f"at ({place}, {place})": (x == place) & (y == place) for place in LOST_PLACES}
    signs[f"beyond {LOST_BEYOND}"] = (np.abs(x) >= LOST_BEYOND) | (np.abs(y) >= LOST_BEYOND)
    lost = np.logical_or.reduce(list(signs.values()))
    if lost.any():
        told = ", ".join(f"{found.sum()} {sign}" for sign, found in signs.items() if found.any())
        ledger.note("lost_eye", f"{where}: {lost.mean():.1%} of {len(x)} {kind}: {told}")
    return lost


def frozen_samples(x: FloatArray, y: FloatArray, time: FloatArray, where: str, ledger: Ledger) -> BoolArray:
    """(S,) whether a sample repeats the last position of an eye that was lost, as their share is noted.

    A run of equal positions that lasts FROZEN_SECONDS is one, but for its first sample, where most other samples differ
    from the one before. Where positions repeat anyway (the tracker smooths, or rounds to pixels) nothing tells a lost
    eye from a resting one: that is noted, and none is taken away.

    Args:
        time: seconds, strictly increasing; all three (S,) and finite.
    """
    repeats = np.append(False, (np.diff(x) == 0) & (np.diff(y) == 0))[: len(x)]
    firsts = np.flatnonzero(~repeats)
    lasts = np.append(firsts[1:], len(x)) - 1
    in_run = (time[lasts] - time[firsts] >= FROZEN_SECONDS)[np.cumsum(~repeats) - 1]
    frozen = repeats & in_run
    if frozen.any():
        trembles = in_run.mean() < 0.5 and (repeats & ~in_run).sum() <= MOST_REPEATS * (~in_run).sum()
        reason = "frozen_samples" if trembles else "positions_repeat_too_often_to_tell_a_lost_eye"
        ledger.note(reason, f"{where}: {frozen.mean():.1%} of {len(x)} samples")
        frozen &= trembles
    return frozen
