"""How often the 95 % intervals hold and equal models are called different: `python -m benchmarks.coverage`.

Generated scores whose true figure is known, 2,000 repetitions a cell. A repetition has two models of the same quality,
correlated within the patient and with each other. Coverage is that of the first one's interval and may not lie below
LOWEST_COVERAGE, the type I error of the paired test not outside of TYPE_ONE, each by a one-sided test at 5 %.
See benchmarks/README.md.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from benchmarks.parts import run_parts
from egma_evaluation.statistics.auroc import auroc_interval, placements
from egma_evaluation.statistics.pairs import FEW_DISAGREEING, Ranked, auroc_difference, disagreeing_patients, sign_flip
from egma_evaluation.statistics.proportions import Array, wilson

REPETITIONS, FLIPS = 2000, 400
PATIENTS, IMAGES, PREVALENCES, AUROCS = (60, 200, 600, 2000), (1, 2), (0.03, 0.1, 0.5), (0.5, 0.7, 0.9, 0.95, 0.99)
SHARES = (0.005, 0.02, 0.1, 0.5, 0.922)
LOWEST_COVERAGE, TYPE_ONE, LEVEL = 0.93, (0.03, 0.07), 0.05
Repetition = tuple[float, float, float, bool]  # both ends of the interval, p-value, is the comparison marked
SHARED = 0.5  # of the variance of a score: by the images of a patient, and by both models


class Cell(NamedTuple):
    """`value` is the AUROC, or the share of hits where there is no prevalence.

    `unseen`: share of the positive patients whose scores are those of negative ones; the others stand out the more.
    `classes`: of which the mean AUROC is taken, each with its own positives.
    """

    patients: int
    images: int
    prevalence: float | None
    value: float
    unseen: float = 0.0
    classes: int = 1


def auroc_cells(patients: Sequence[int] = PATIENTS, unseen: float = 0.0, classes: int = 1) -> list[Cell]:
    """`unseen` as a multiple of 1 - AUROC; at most 1, which is half of what is lost."""
    grid = itertools.product(patients, IMAGES, PREVALENCES, AUROCS)
    return [Cell(*sizes, auroc, unseen * (1 - auroc), classes) for *sizes, auroc in grid]


def share_cells() -> list[Cell]:
    return [
        Cell(patients, images, None, share) for patients, images, share in itertools.product(PATIENTS, IMAGES, SHARES)
    ]


def noise(cell: Cell, random: np.random.Generator) -> Array:
    """(2, patients, images) of variance 1 for two models."""

    def one() -> Array:
        own = random.normal(size=(cell.patients, cell.images))
        if cell.images == 1:
            return own
        return np.sqrt(SHARED) * random.normal(size=(cell.patients, 1)) + np.sqrt(1 - SHARED) * own

    both = one()
    return np.stack([np.sqrt(SHARED) * both + np.sqrt(1 - SHARED) * one() for _ in range(2)])


def sick_patients(cell: Cell, random: np.random.Generator) -> NDArray[np.bool_]:
    """(patients,) at least two of either kind."""
    while True:
        sick = random.random(cell.patients) < (cell.prevalence or 0.0)
        if 2 <= sick.sum() <= cell.patients - 2:
            return sick


def auroc_repetition(cell: Cell, flipped: NDArray[np.bool_], random: np.random.Generator) -> Repetition:
    unit, common = np.repeat(np.arange(cell.patients), cell.images), noise(cell, random)
    shift = np.sqrt(2) * ndtri((cell.value - cell.unseen / 2) / (1 - cell.unseen))
    models: tuple[list[Ranked], list[Ranked]] = ([], [])
    placed = []
    for _ in range(cell.classes):
        sick = sick_patients(cell, random)
        seen = sick & (random.random(cell.patients) >= cell.unseen)
        own = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * noise(cell, random) if cell.classes > 1 else common
        scores, positive = (own + shift * seen[:, None]).reshape(2, -1), np.repeat(sick, cell.images)
        placed.append(placements(scores[0], positive, unit, cell.patients))
        for ranked, score in zip(models, scores, strict=True):
            ranked.append(Ranked.of(score, positive, unit))
    found = auroc_interval(placed)
    assert found is not None
    added, weights = auroc_difference(*models, cell.patients)
    return *found[0], sign_flip(added, weights, flipped)[1], disagreeing_patients(added) < FEW_DISAGREEING


def share_repetition(cell: Cell, flipped: NDArray[np.bool_], random: np.random.Generator) -> Repetition:
    hits = (ndtr(noise(cell, random)) < cell.value).sum(axis=2).astype(np.float64)
    entries = np.full(cell.patients, float(cell.images))
    interval = wilson(hits[0], entries)
    assert interval is not None
    added, weights = (hits[0] - hits[1]) / entries.sum(), entries / entries.sum()
    return *interval, sign_flip(added, weights, flipped)[1], disagreeing_patients(added) < FEW_DISAGREEING


def measured(cell: Cell, repetitions: int) -> dict[str, Any]:
    """Coverage, mean width and type I error of a cell, and whether they are what they should be."""
    random = np.random.default_rng(
        [cell.patients, cell.images, int(1e4 * (cell.prevalence or 0)), int(1e4 * cell.value)]
    )
    flipped = random.random((FLIPS, cell.patients)) < 0.5
    repetition = share_repetition if cell.prevalence is None else auroc_repetition
    low, high, p_values, marked = np.array([repetition(cell, flipped, random) for _ in range(repetitions)]).T
    covered, refused = int(((low <= cell.value) & (cell.value <= high)).sum()), int((p_values <= LEVEL).sum())
    least, most = (binom(repetitions, share) for share in TYPE_ONE)
    return cell._asdict() | {
        "repetitions": repetitions,
        "coverage": covered / repetitions,
        "coverage_holds": bool(binom.cdf(covered, repetitions, LOWEST_COVERAGE) >= LEVEL),
        "width": float((high - low).mean()),
        "type_one": refused / repetitions,
        "comparison_marked": float(marked.mean()),
        "type_one_too_low": bool(least.cdf(refused) < LEVEL),
        "type_one_too_high": bool(most.sf(refused - 1) < LEVEL),
    }


def run(name: str, cells: Iterable[Cell], folder: Path, repetitions: int = REPETITIONS) -> list[dict[str, Any]]:
    """Measure the cells, print them and write `coverage_NAME.json`."""
    header = ("patients", "images", "prevalence", "value", "coverage", "width", "type I error", "comparison marked")
    print(f"\n{name}\n| {' | '.join(header)} |\n{'|---' * len(header)}|")
    results = []
    for cell in cells:
        found = measured(cell, repetitions)
        results.append(found)
        coverage = f"{found['coverage']:.3f}{'' if found['coverage_holds'] else ' below'}"
        error = ("", " below")[found["type_one_too_low"]] + ("", " above")[found["type_one_too_high"]]
        line = (*cell[:4], coverage, f"{found['width']:.3f}", f"{found['type_one']:.3f}{error}")
        line += (f"{found['comparison_marked']:.2f}",)
        print(f"| {' | '.join('' if value is None else str(value) for value in line)} |", flush=True)
    (folder / f"coverage_{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    parts = {
        "shares": share_cells(),
        "auroc": auroc_cells(),
        "auroc_unseen": auroc_cells(PATIENTS[1:2], unseen=1.0),
        "auroc_mean": auroc_cells(PATIENTS[1:2], classes=5),
    }
    run_parts(__doc__, {name: partial(run, name, cells) for name, cells in parts.items()})
