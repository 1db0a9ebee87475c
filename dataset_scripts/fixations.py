"""Fixations of any corpus -> the schema's columns, invalid ones counted."""

import numpy as np

from dataset_scripts.report import Ledger
from dataset_scripts.schema import Fixations
from dataset_scripts.tables import FloatArray


def valid_fixations(columns: dict[str, FloatArray], table: str, where: str, ledger: Ledger) -> Fixations | None:
    """Keep the fixations that lie in the image; None when none does.

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
        "no_duration": ~(duration > 0),
    }
    keep = np.ones(len(x), dtype=bool)
    ledger.enter(table, len(x))
    for reason, failed in failures.items():
        rows = np.flatnonzero(failed & keep)
        ledger.drop(table, reason, [f"{where} row {row + 1}" for row in rows[:5]], len(rows))
        keep &= ~failed
    ledger.keep(table, int(keep.sum()))
    return _as_fixations({name: values[keep] for name, values in columns.items()}) if keep.any() else None


def _as_fixations(columns: dict[str, FloatArray]) -> Fixations:
    optional = {name: columns[name].tolist() if name in columns else None for name in Fixations.__optional_keys__}
    return Fixations(
        x=columns["x"].tolist(),
        y=columns["y"].tolist(),
        start=columns["start"].tolist(),
        duration=columns["duration"].tolist(),
        **optional,  # type: ignore[typeddict-item]
    )
