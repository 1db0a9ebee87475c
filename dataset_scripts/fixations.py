"""Fixations of any corpus -> the schema's columns in the order of time, invalid ones counted."""

import numpy as np
import numpy.typing as npt

from dataset_scripts.report import OFFENDERS_NAMED, Ledger
from dataset_scripts.schema import Fixations
from dataset_scripts.tables import FloatArray


def valid_fixations(columns: dict[str, FloatArray], table: str, where: str, ledger: Ledger) -> Fixations | None:
    """Keep the fixations that lie in the image, sorted by their start; None when there is none.

    A table whose times run backwards is sorted, rows of the same start staying in the table's order, and noted: what
    comes after reads a scan path. The second of two rows with the same place and time is dropped.

    Args:
        columns: `x`, `y`, `start`, `duration` and any optional columns of `schema.Fixations`, (F,) each, as fractions
            of the image and seconds; NaN where the source had no number.
        table: the table to count them under.
        where: what to call the source; rows are numbered from 1, without the header.
    """
    x, y, duration = columns["x"], columns["y"], columns["duration"]
    failures = {
        "not_a_number": ~np.isfinite(np.stack(list(columns.values()))).all(axis=0),
        "outside_image": ~((x >= 0) & (x < 1) & (y >= 0) & (y < 1)),
        "negative_duration": duration < 0,
        "no_duration": ~(duration > 0),
        "duplicate": _repeats(columns),
    }
    keep = np.ones(len(x), dtype=bool)
    ledger.enter(table, len(x))
    for reason, failed in failures.items():
        rows = np.flatnonzero(failed & keep)
        ledger.drop(table, reason, [f"{where} row {row + 1}" for row in rows[:OFFENDERS_NAMED]], len(rows))
        keep &= ~failed
    ledger.keep(table, int(keep.sum()))
    start = columns["start"][keep]
    if len(start) > 1 and (np.diff(start) < 0).any():
        ledger.note("fixations_sorted_by_start", f"{where}: the times in {table} run backwards")
    order = np.flatnonzero(keep)[np.argsort(start, kind="stable")]
    return _as_fixations({name: values[order] for name, values in columns.items()}) if keep.any() else None


def _repeats(columns: dict[str, FloatArray]) -> npt.NDArray[np.bool_]:
    """(F,) whether an earlier row has the same place and time."""
    repeated = np.ones(len(columns["x"]), dtype=bool)
    rows = np.stack([columns[name] for name in ("start", "duration", "x", "y")], axis=1)
    repeated[np.unique(rows, axis=0, return_index=True)[1]] = False
    return repeated


def _as_fixations(columns: dict[str, FloatArray]) -> Fixations:
    optional = {name: columns[name].tolist() if name in columns else None for name in Fixations.__optional_keys__}
    return Fixations(
        x=columns["x"].tolist(),
        y=columns["y"].tolist(),
        start=columns["start"].tolist(),
        duration=columns["duration"].tolist(),
        **optional,  # type: ignore[typeddict-item]
    )
