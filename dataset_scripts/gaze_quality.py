"""What the gaze of a corpus tells about its findings, beside what real gaze does:

    python -m dataset_scripts.gaze_quality CORPUS [--lead 1.0]

A look is at most the last six fixations before the end of the first sentence that names a finding that is there (the
voice follows the eye by `--lead` seconds); without sentences, of the whole recording. Two things, easily mixed up:

* *own gaze*: the share of the seconds inside the finding's boxes, over the share that the gaze of all readings has
  there. How much the reader's own gaze says about where the finding is.
* *location prior*: how well other readings' gaze predicts a look of the test split, as NSS on maps of 56 x 56 cells
  smoothed over 5 % of the side: all gaze of the training split, the same finding's, one other look at the same
  finding. Where the finding's gaze predicts much better than all gaze, findings are where they always are, and a text's
  mean map can stand in for a reading's own gaze.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from dataset_scripts.command_line import Parser, program
from dataset_scripts.schema import PRESENT, SPLITS, Box, Reading, Split, UserError, load_readings, sentence_span

CELLS, SIGMA_FRACTION = 56, 0.05
MOST_FIXATIONS, LEAST_LOOKS, DRAWS = 6, 10, 2000
# GazeSearch, 4,875 scanpaths, by the same measure; own gaze: SIIM-ACR pneumothorax, whole recordings
REAL = {
    "own gaze over pooled gaze": "3.3",
    "NSS of all gaze": "1.10",
    "NSS of the finding's gaze": "1.17",
    "gain of the finding's gaze": "0.076 [0.048, 0.106]",
    "NSS of one other look": "0.45",
    "fixation seconds, mean (median)": "0.320 (0.283)",
}

Column = NDArray[np.float64]


class Look(NamedTuple):
    """The fixations of one reading on one finding; x, y are fractions of the image."""

    patient: str
    finding: str
    x: Column
    y: Column
    seconds: Column
    boxes: tuple[Box, ...]


class Quality(NamedTuple):
    """The figures; None where the corpus has too little for one. `gain` has its 95 % interval over patients."""

    own_over_pooled: float | None
    pooled_share: float | None
    nss_of_all: float | None
    nss_of_finding: float | None
    nss_of_one: float | None
    gain: tuple[float, float, float] | None
    looks: int
    test_looks: int
    fixation_seconds: tuple[float, float]

    def rows(self) -> list[tuple[str, str]]:
        """Names as in REAL, and the figures as they are printed."""
        gain = None if self.gain is None else f"{self.gain[0]:.3f} [{self.gain[1]:.3f}, {self.gain[2]:.3f}]"
        mean, median = self.fixation_seconds
        figures = (
            _text(self.own_over_pooled, 1), _text(self.nss_of_all, 2), _text(self.nss_of_finding, 2),
            gain or "-", _text(self.nss_of_one, 2), f"{mean:.3f} ({median:.3f})",
        )  # fmt: skip
        return list(zip(REAL, figures, strict=True))


def gaze_quality(corpus: str | Path, lead_seconds: float = 1.0, seed: int = 0) -> Quality:
    """Measure a converted corpus.

    Raises:
        UserError: it has no gaze on a finding that is present.
    """
    looks: dict[str, list[Look]] = {}
    pooled: list[Column] = []
    for split in SPLITS:
        if any(Path(corpus).glob(f"data/{split}-*.parquet")):
            rows = tqdm(_readings(corpus, split), desc=split, unit="reading", disable=None)
            looks[split] = [look for row in rows for look in _looks(row, lead_seconds, pooled)]
    every = [look for found in looks.values() for look in found]
    if not every:
        raise UserError(f"{corpus}: no reading has gaze on a finding that is present and named; expected at least one")
    points = np.concatenate(pooled, axis=1)
    return measure(every, looks.get("train", []), looks.get("test", []), points, np.random.default_rng(seed))


def measure(
    every: Sequence[Look], train: Sequence[Look], test: Sequence[Look], pooled: Column, rng: np.random.Generator
) -> Quality:
    """The figures of looks; `pooled` (3, n): x, y and seconds of all fixations."""
    boxed = [look for look in every if look.boxes and look.seconds.sum() > 0]
    own = [_share_inside(look.boxes, np.stack([look.x, look.y, look.seconds])) for look in boxed]
    there = [_share_inside(look.boxes, pooled) for look in boxed]
    by_finding: dict[str, list[Look]] = defaultdict(list)
    for look in train:
        by_finding[look.finding].append(look)
    held = [look for look in test if len(by_finding[look.finding]) >= LEAST_LOOKS and _cells(look)[0].size]
    all_gaze, of_finding = gaze_map(train), {name: gaze_map(found) for name, found in by_finding.items()}
    others = [found[int(rng.integers(len(found)))] for found in (by_finding[look.finding] for look in held)]
    by_all = np.array([nss(all_gaze, look) for look in held])
    by_own = np.array([nss(of_finding[look.finding], look) for look in held])
    by_one = [nss(gaze_map([other]), look) for other, look in zip(others, held, strict=True)]
    return Quality(
        own_over_pooled=float(np.mean(own) / np.mean(there)) if there and np.mean(there) > 0 else None,
        pooled_share=float(np.mean(there)) if there else None,
        nss_of_all=_mean(by_all),
        nss_of_finding=_mean(by_own),
        nss_of_one=_mean(by_one),
        gain=_interval(by_own - by_all, [look.patient for look in held], rng) if held else None,
        looks=len(every),
        test_looks=len(held),
        fixation_seconds=(float(pooled[2].mean()), float(np.median(pooled[2]))),
    )


def gaze_map(looks: Sequence[Look]) -> Column:
    """(56, 56): seconds in each cell, smoothed; fixations off the image are left out."""
    cells = np.zeros((CELLS, CELLS))
    for look in looks:
        rows, columns, seconds = _cells(look)
        np.add.at(cells, (rows, columns), seconds)
    return np.asarray(ndimage.gaussian_filter(cells, SIGMA_FRACTION * CELLS, mode="constant"))


def nss(gaze: Column, look: Look) -> float:
    """Normalised scanpath saliency: the mean, over the fixations, of the map in units of its standard deviation."""
    rows, columns, _ = _cells(look)
    scaled = (gaze - gaze.mean()) / (gaze.std() + 1e-12)
    return float(scaled[rows, columns].mean())


def _cells(look: Look) -> tuple[NDArray[np.int64], NDArray[np.int64], Column]:
    on = (look.x >= 0) & (look.x < 1) & (look.y >= 0) & (look.y < 1)
    return (look.y[on] * CELLS).astype(np.int64), (look.x[on] * CELLS).astype(np.int64), look.seconds[on]


def _readings(corpus: str | Path, split: Split) -> Iterator[Reading]:
    yield from load_readings(corpus, split, needs_images=False).remove_columns("image")


def _looks(row: Reading, lead_seconds: float, pooled: list[Column]) -> Iterator[Look]:
    fixations = row["fixations"]
    if not fixations or not fixations["x"]:
        return
    x, y, start, seconds = (np.asarray(fixations[name]) for name in ("x", "y", "start", "duration"))
    pooled.append(np.stack([x, y, seconds]))
    patient = row["subject_id"] or row["image_id"]
    for name in sorted({finding["name"] for finding in row["findings"] if finding["value"] == PRESENT}):
        span = _said(row, name)
        if span is None:
            continue
        chosen = np.flatnonzero((start + seconds > span[0] - lead_seconds) & (start < span[1] - lead_seconds))
        chosen = chosen[-MOST_FIXATIONS:]
        if chosen.size:
            boxes = tuple(box for box in row["boxes"] if box["label"] == name)
            yield Look(patient, name, x[chosen], y[chosen], seconds[chosen], boxes)


def _said(row: Reading, finding: str) -> tuple[float, float] | None:
    """When the first sentence is said that names the finding and does not deny it; all the time without sentences."""
    if not row["sentences"]:
        return -np.inf, np.inf
    words = [word for word in finding.lower().replace("/", " ").split() if len(word) > 3]
    for sentence in row["sentences"]:
        text, span = sentence["text"].lower(), sentence_span(sentence)
        if span is not None and "no " not in text and any(word in text for word in words):
            return span
    return None


def _share_inside(boxes: Sequence[Box], points: Column) -> float:
    x, y, seconds = points
    inside = np.zeros(len(x), dtype=bool)
    for box in boxes:
        inside |= (x >= box["x_min"]) & (x <= box["x_max"]) & (y >= box["y_min"]) & (y <= box["y_max"])
    return float(seconds[inside].sum() / seconds.sum())


def _interval(values: Column, patients: Sequence[str], rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by drawing patients."""
    of_patient: dict[str, list[float]] = defaultdict(list)
    for value, patient in zip(values, patients, strict=True):
        of_patient[patient].append(float(value))
    sums = np.array([(sum(found), len(found)) for found in of_patient.values()])
    drawn = sums[rng.integers(len(sums), size=(DRAWS, len(sums)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


@program
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 2 for a mistake of the user."""
    parser = Parser(__doc__)
    parser.add_argument("corpus", type=Path, help="a converted corpus")
    parser.add_argument("--lead", type=float, default=1.0, help="seconds by which the voice follows the eye")
    arguments = parser.parse_args(argv)
    found = gaze_quality(arguments.corpus, arguments.lead)
    print(f"{found.looks} looks at findings, {found.test_looks} of them in the test split")
    print(_table(found, REAL))
    return 0


def _table(found: Quality, real: Mapping[str, str]) -> str:
    lines = [("", "this corpus", "real gaze"), *((name, value, real[name]) for name, value in found.rows())]
    return "\n".join(f"{name:<32} {value:<24} {beside}" for name, value, beside in lines)


if __name__ == "__main__":
    sys.exit(main())
