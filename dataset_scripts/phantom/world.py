"""What a generated world is like: how informative its gaze is, how much its findings vary in place, how it is worded.

Another seed is another world: readers, textures and noise fields are drawn anew with it.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from dataset_scripts.schema import UserError

Places = Literal["real", "fixed", "uniform"]
Wording = Literal["real", "fixed"]
Style = Literal["a", "b"]
# of the looks while something is said, the share that belongs to it; "real" comes near what recordings of radiologists
# show (docs/corpora.md)
GAZE_SHARES = {"real": 0.3, "clear": 0.85}
READER_COUNT = 5


class Framing(NamedTuple):
    """How the chest lies in its picture: the range of its size, and how far it is shifted, in body units, at most."""

    smallest: float
    largest: float
    shift: float


FRAMINGS: dict[Places, Framing] = {
    "fixed": Framing(0.9, 1.04, 0.1),
    "real": Framing(0.78, 1.05, 0.22),
    "uniform": Framing(0.6, 0.72, 0.6),
}


@dataclass(frozen=True)
class Reader:
    """The habits of one radiologist."""

    name: str
    words_per_second: float
    lead_seconds: float
    fixation_seconds: float
    blink_share: float
    jitter_fraction: float


@dataclass(frozen=True)
class World:
    """Settings of a corpus; the same world and number of readings give the same bytes.

    `gaze` is a key of GAZE_SHARES or a share in [0, 1]: of the looks while something is said, those that belong to it.
    `places` is how findings vary in the picture: as real ones, hardly ("fixed"), or evenly ("uniform"). `wording`
    "fixed" says every finding in one of five ways. `style` "b" has other bodies, exposures and turns of phrase.

    Raises:
        UserError: a setting is none of these.
    """

    seed: int = 0
    gaze: str | float = "real"
    places: Places = "real"
    wording: Wording = "real"
    style: Style = "a"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: expected 0 or more")
        self.own_share  # noqa: B018  raises where it is none
        for name, known in (("places", tuple(FRAMINGS)), ("wording", ("real", "fixed")), ("style", ("a", "b"))):
            if getattr(self, name) not in known:
                raise UserError(f"--{name} {getattr(self, name)}: expected one of {', '.join(known)}")

    @property
    def own_share(self) -> float:
        """Of the looks while something is said, the share that belongs to it."""
        if self.gaze in GAZE_SHARES:
            return GAZE_SHARES[str(self.gaze)]
        try:
            share = float(self.gaze)
        except ValueError:
            share = math.nan
        if not 0.0 <= share <= 1.0:
            raise UserError(f"--gaze {self.gaze}: expected {', '.join(GAZE_SHARES)} or a share from 0 to 1")
        return share

    @property
    def framing(self) -> Framing:
        return FRAMINGS[self.places]

    def readers(self) -> tuple[Reader, ...]:
        """The radiologists of this world; the voice follows the eye by another time with each."""
        rng = np.random.default_rng([self.seed, 3])
        return tuple(
            Reader(
                name=f"reader_{number}",
                words_per_second=rng.uniform(2.2, 2.8),
                lead_seconds=float(np.clip(rng.lognormal(0.0, 0.35), 0.4, 2.2)),
                fixation_seconds=rng.uniform(0.25, 0.33),
                blink_share=rng.uniform(0.02, 0.06),
                jitter_fraction=rng.uniform(0.010, 0.016),
            )
            for number in range(1, READER_COUNT + 1)
        )
