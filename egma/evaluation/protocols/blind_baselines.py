"""What a map earns that never saw the image: means of the training split, a Gaussian, the map of another patient.

A model looks at the image as far as it earns more than the best of them on the same entries: `image_dependent`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dataset_scripts.schema import PRESENT, Box, Reading
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import IMAGES_AT_ONCE
from egma.inference.geometry import MAP_DECIMALS, box_masks, centred_gaussian
from egma.tools.arrays import Array

Columns = Mapping[str, Array]  # (n,) by metric

BOX_CELLS = 128
SMOOTHING = 1 / 64  # of a mean of boxes, a fraction of the image's sides: a step would have an infinite contrast
CENTRED = "centred Gaussian"
SMALLEST_SHARE = 0.5  # of the entries that a baseline must have to be the one that is beaten


@dataclass(frozen=True)
class MeanMaps:
    """Means of training maps (cells, cells) on image fractions: of `source`, which is all, and by finding or text."""

    mean: Array
    source: str
    by_name: Mapping[str, Array] = field(default_factory=dict)

    def of(self, name: str | None, cells: int) -> Array:
        """(cells, cells), of all where the name has none; each cell takes the value at its centre."""
        found = self.mean if name is None else self.by_name.get(name, self.mean)
        nearest = ((np.arange(cells) + 0.5) / cells * len(found)).astype(int)
        return found[np.ix_(nearest, nearest)]

    def fallbacks(self, names: Sequence[str]) -> dict[str, int]:
        """How many entries take the mean of all, by name."""
        return dict(sorted(Counter(name for name in names if name not in self.by_name).items()))

    def values(self, names: Sequence[str], cells: int, score: Callable[[Array, NDArray[np.int64]], Columns]) -> Columns:
        """Each entry's own mean map scored, (n,) by metric; entries of one map are scored together.

        Args:
            score: map (cells, cells) and places (m,) of at most IMAGES_AT_ONCE entries -> (m,) by metric.
        """
        entries: dict[str | None, list[int]] = {}
        for place, name in enumerate(names):
            entries.setdefault(name if name in self.by_name else None, []).append(place)
        found: dict[str, Array] = {}
        for known, places in entries.items():
            own = self.of(known, cells)
            for at in range(0, len(places), IMAGES_AT_ONCE):
                tile = np.array(places[at : at + IMAGES_AT_ONCE])
                for metric, column in score(own, tile).items():
                    found.setdefault(metric, np.empty(len(names)))[tile] = column
        return found


def plain_text(text: str) -> str:
    """By which texts are equal: case and blanks make no other text."""
    return " ".join(text.casefold().split())


def finding_boxes(reading: Reading) -> list[Box]:
    """The boxes that mark a finding which the reading lists, and not anatomy; all of them, where it lists none."""
    listed = {finding["name"] for finding in reading["findings"]}
    return [box for box in reading["boxes"] if not listed or box["label"] in listed]


def mean_boxes(training: Sequence[Reading]) -> MeanMaps:
    """Where boxes lie, slightly smoothed: the mean over the readings that mark a finding, and over all with boxes."""
    sums, counts = dict[str | None, Array](), Counter[str | None]()
    for reading in training:
        boxes = finding_boxes(reading)
        labels: list[str | None] = [*sorted({box["label"] for box in boxes}), *([None] if boxes else [])]
        of_label = [[box for box in boxes if label in (None, box["label"])] for label in labels]
        for label, mask in zip(labels, box_masks(of_label, BOX_CELLS), strict=True):
            sums[label] = sums.get(label, 0.0) + mask.astype(np.float64)
            counts[label] += 1
    if not sums:
        return MeanMaps(centred_gaussian(BOX_CELLS), CENTRED)
    means = {
        label: gaussian_filter(total / counts[label], SMOOTHING * BOX_CELLS, mode="nearest").round(MAP_DECIMALS)
        for label, total in sums.items()
    }
    source = f"mean of the boxes of {counts[None]} training readings"
    return MeanMaps(means[None], source, {label: mean for label, mean in means.items() if label is not None})


def spoken_findings(training: Sequence[Reading], names: Container[str]) -> dict[str, str]:
    """What a text (`plain_text`) speaks of: of `names` the finding that is more often present with it than elsewhere.

    The largest surplus counts, from one half up; a text without one is not listed.
    """
    said, present, together = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for reading in training:
        texts = {plain_text(sentence["text"]) for sentence in reading["sentences"]}
        present_here = {finding["name"] for finding in reading["findings"] if finding["value"] == PRESENT}
        found = {name for name in present_here if name in names}
        said.update(texts)
        present.update(found)
        together.update((text, name) for text in texts for name in found)
    best: dict[str, tuple[float, str]] = {}
    for (text, name), count in together.items():
        surplus = (count / said[text] - present[name] / len(training), name)
        best[text] = max(best.get(text, surplus), surplus)
    return {text: name for text, (surplus, name) in best.items() if surplus >= 0.5}


def defined_means(
    columns: Columns, readings: Sequence[Reading], bootstrap: PatientBootstrap, shares: Collection[str] = ()
) -> dict[str, Any]:
    """`PatientBootstrap.means` as JSON, over the entries that are not NaN (in all columns or in none)."""
    kept = np.flatnonzero(np.isfinite(next(iter(columns.values()))))
    rows = [readings[place] for place in kept.tolist()]
    figures = bootstrap.means({metric: column[kept] for metric, column in columns.items()}, rows, shares)
    return {metric: figure.to_json() for metric, figure in figures.items()}


def image_dependent(
    model: Columns,
    blind: Mapping[str, Columns],
    metrics: Sequence[str],
    readings: Sequence[Reading],
    bootstrap: PatientBootstrap,
) -> dict[str, Any]:
    """The model less the best blind baseline over the same entries, by metric, of which more is better.

    The best is the one that leaves the model least. An entry that it does not have (NaN) is left out of both; one that
    has less than SMALLEST_SHARE of the entries is not taken.
    """
    found = {}
    for metric in metrics:
        less = {name: model[metric] - columns[metric] for name, columns in blind.items() if metric in columns}
        less = {name: gain for name, gain in less.items() if np.isfinite(gain).mean() >= SMALLEST_SHARE}
        if not less:
            continue
        best = min(less, key=lambda name: (round(float(np.nanmean(less[name])), MAP_DECIMALS), name))
        kept = np.where(np.isfinite(less[best]), 0.0, np.nan)
        pair = {"model": model[metric] + kept, "blind": blind[best][metric]}
        figures = defined_means(pair, readings, bootstrap)
        found[metric] = {"against": best, **asdict(bootstrap.difference(figures["model"], figures["blind"]))}
    return found
