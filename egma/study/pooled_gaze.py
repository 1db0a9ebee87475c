"""What other readings' gaze on the same sentence can stand in for: controls, and what little gaze can lend.

A sentence's own looks are the fixations while it is said; those of its equals are the looks of all other readings that
say the same text. A sentence that no other reading says has all gaze of the corpus for its equals'.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dataset_scripts.schema import UserError, load_readings, sentence_span
from egma.study.corpora import Row

LOOKS = 40  # drawn of the equals', each as likely as it is long; or in boxes
TELLING_LETTERS = 6  # of a label's word, by which a sentence names the label; shorter ones are sides and organs
CELLS, SIGMA_CELLS = 14, 0.7  # of the maps by which own looks are weighed
# x, y in fractions of the image, and seconds, (3, n); in pools also the number of the reading, (4, n)
Looks = NDArray[np.float64]
Span = tuple[float, float]


class PooledGaze:
    """The looks of a corpus' training split by text.

    Args:
        data: a converted corpus with times.
        kept: share of the readings whose gaze is known, drawn by reading; the others have none to give.

    Raises:
        UserError: nobody's gaze is known.
    """

    def __init__(self, data: Path, kept: float = 1.0) -> None:
        self.kept = kept
        self.numbers: dict[str, int] = {}
        by_text: dict[str, list[Looks]] = defaultdict(list)
        for number, row in enumerate(load_readings(data, "train").remove_columns("image")):
            self.numbers[row["reading_id"]] = number
            if self.keeps(row):
                for text, looks in _looks(row).items():
                    by_text[text].append(np.vstack([looks, np.full(looks.shape[1], number)]))
        if not by_text:
            raise UserError(f"{data}: no training reading has known gaze while a sentence is said; expected some")
        self.pools = {text: np.concatenate(found, axis=1) for text, found in by_text.items()}
        self.all_looks = np.concatenate([*self.pools.values()], axis=1)

    def keeps(self, row: Row) -> bool:
        """Whether the reading's gaze is known; a larger share contains the smaller."""
        drawn = np.random.default_rng(list(row["reading_id"].encode())).random()
        return bool(row["fixations"]) and float(drawn) < self.kept

    def of_equals(self, row: Row, random: np.random.Generator) -> Row:
        """Every sentence's looks are drawn from its equals'; the reading's own are gone."""

        def drawn(text: str, _: Looks) -> Looks:
            looks = self._equals(text, row)
            looks = looks if looks.shape[1] else self._others(self.all_looks, row)
            chosen = random.choice(looks.shape[1], LOOKS, p=looks[2] / looks[2].sum())
            return np.vstack([looks[:2, chosen], np.ones(LOOKS)])

        return _replaced(row, drawn)

    def lent(self, row: Row, random: np.random.Generator) -> Row:
        """A reading whose gaze is not known has that of its sentences' equals, the others their own."""
        return row if self.keeps(row) else self.of_equals(row, random)

    def withheld(self, row: Row, _: np.random.Generator) -> Row:
        """A reading whose gaze is not known has none."""
        return row if self.keeps(row) else row | {"fixations": None}

    def denoised(self, row: Row, _: np.random.Generator) -> Row:
        """Own looks count by how much more than usual the equals look there: `max(equals' map / all gaze - 1, 0)`."""

        def weighed(text: str, own: Looks) -> Looks:
            equals = self._equals(text, row)
            if not equals.shape[1] or not own.shape[1]:
                return own
            more = np.clip((_map(equals) / self._everywhere)[_cells(own)] - 1, 0, None)
            return np.vstack([own[:2], own[2] * more]) if more.any() else own

        return _replaced(row, weighed)

    def in_boxes(self, row: Row, random: np.random.Generator) -> Row:
        """Looks evenly in the boxes of what the sentence names, of one box as many as of another; else its own."""

        def drawn(text: str, own: Looks) -> Looks:
            boxes = [box for box in row["boxes"] if _names(text, box["label"])]
            if not boxes:
                return own
            edges = np.array([[box[edge] for edge in ("x_min", "y_min", "x_max", "y_max")] for box in boxes])
            low, high = np.split(edges[random.integers(len(boxes), size=LOOKS)].T, 2)
            return np.vstack([random.uniform(low, high), np.ones(LOOKS)])

        return _replaced(row, drawn)

    @cached_property
    def _everywhere(self) -> Looks:
        return _map(self.all_looks)

    def _equals(self, text: str, row: Row) -> Looks:
        return self._others(self.pools.get(text, self.all_looks[:, :0]), row)

    def _others(self, looks: Looks, row: Row) -> Looks:
        return looks[:, looks[3] != self.numbers.get(row["reading_id"], -1)]


def _names(text: str, label: str) -> bool:
    words = set(re.findall(r"[a-z]+", text.lower()))
    return any(word in words for word in re.findall(r"[a-z]+", label.lower()) if len(word) >= TELLING_LETTERS)


def _looks(row: Row) -> dict[str, Looks]:
    """Looks while each timed sentence is said; of a text that is said twice, the last."""
    if not row["fixations"]:
        return {}
    x, y, start, seconds = (np.asarray(row["fixations"][name]) for name in ("x", "y", "start", "duration"))
    found = {}
    for text, (begin, end) in _spans(row):
        inside = np.clip(np.minimum(start + seconds, end) - np.maximum(start, begin), 0, None)
        found[text] = np.stack([x, y, inside])[:, inside > 0]
    return found


def _spans(row: Row) -> list[tuple[str, Span]]:
    spans = [(sentence["text"], sentence_span(sentence)) for sentence in row["sentences"]]
    return [(text, span) for text, span in spans if span is not None]


def _replaced(row: Row, looks_of: Callable[[str, Looks], Looks]) -> Row:
    """The recording made anew of what `looks_of` makes of every sentence's text and own looks."""
    own, parts = _looks(row), []
    for text, (begin, end) in _spans(row):
        looks = looks_of(text, own.get(text, np.zeros((3, 0))))
        if looks.shape[1] and looks[2].sum() > 0:
            seconds = looks[2] / looks[2].sum() * (end - begin)
            parts.append(np.vstack([looks[:2], np.full(looks.shape[1], begin), seconds]))
    if not parts:
        return row
    columns = dict(zip(("x", "y", "start", "duration"), np.concatenate(parts, axis=1).tolist(), strict=True))
    return row | {"fixations": dict.fromkeys(row["fixations"] or ()) | columns}


def _cells(looks: Looks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = (np.clip((looks[axis] * CELLS).astype(np.int64), 0, CELLS - 1) for axis in (1, 0))
    return rows, columns


def _map(looks: Looks) -> Looks:
    cells = np.zeros((CELLS, CELLS))
    np.add.at(cells, _cells(looks), looks[2])
    smooth = gaussian_filter(cells, SIGMA_CELLS, mode="nearest") + 1e-9
    return np.asarray(smooth / smooth.sum())
