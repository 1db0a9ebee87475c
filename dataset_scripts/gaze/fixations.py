"""Fixations of any corpus -> the schema's columns in the order of time, invalid ones counted."""

import math

import numpy as np
import numpy.typing as npt

from dataset_scripts.files.tables import FloatArray
from dataset_scripts.gaze.fixation_detection import CLOCK_TOLERANCE_SECONDS
from dataset_scripts.gaze.lost_eye import BoolArray
from dataset_scripts.ledger import OFFENDERS_NAMED, Ledger
from dataset_scripts.schema import Fixations, UserError

LARGEST = 1e100  # differences of larger numbers could not be computed
LONGEST_SECONDS = 60  # of a fixation: `longest_seconds` of an eye
LATEST_SECONDS = 1e12  # no clock shows more
Rows = npt.NDArray[np.int64]


def valid_fixations(
    columns: dict[str, FloatArray],
    table: str,
    where: str,
    ledger: Ledger,
    lost: BoolArray | None = None,
    marked: BoolArray | None = None,
    longest_seconds: float = math.inf,
) -> Fixations | None:
    """Keep the fixations that lie in the image, sorted by their start; None when there is none.

    A table whose times run backwards is sorted, and noted: what comes after reads a scan path. No two fixations
    overlap, so that their durations are the time that the eye rested: one that lies within another's time is dropped,
    as a repeated row and the shorter reports of a fixation that grows from row to row (of the same start the longest
    stays, of those the last); one that lasts into the next ends where that begins, as noted.

    Args:
        columns: `x`, `y`, `start`, `duration` and any optional columns of `schema.Fixations`, (F,) each, as fractions
            of the image and seconds; NaN where the source had no number.
        table: the table to count them under.
        where: what to call the source; rows are numbered from 1, without the header.
        lost: (F,) what `lost_eye` said of the source's own positions.
        marked: (F,) whether the source says itself that a fixation is no good.
        longest_seconds: a fixation can last; where half of them last a sixth of it, none of the times is in seconds.

    Raises:
        UserError: a column without a single number.
    """
    x, y, duration = columns["x"], columns["y"], columns["duration"]
    for name, values in columns.items():
        if len(values) and not np.isfinite(values).any():
            raise UserError(f"{where}: {table}: no row has a number as {name}; expected one a fixation")
    nowhere = np.zeros(len(x), dtype=bool)
    lasting = duration[(duration > 0) & (duration <= LARGEST)]
    in_other_units = lasting.size > 0 and np.median(lasting) > longest_seconds / 6
    failures = {
        "marked_invalid": nowhere if marked is None else marked,
        "not_a_number": ~(np.abs(np.stack(list(columns.values()))) <= LARGEST).all(axis=0),
        "lost_eye": nowhere if lost is None else lost,
        "outside_image": ~((x >= 0) & (x < 1) & (y >= 0) & (y < 1)),
        "negative_duration": duration < 0,
        "no_duration": ~(duration > 0),
        "too_long_for_seconds": (duration > longest_seconds) | in_other_units,
        "time_that_no_clock_shows": ~(np.abs(columns["start"]) <= LATEST_SECONDS),
    }
    keep = np.ones(len(x), dtype=bool)
    ledger.enter(table, len(x))
    for reason, failed in failures.items():
        _drop(table, reason, np.flatnonzero(failed & keep), where, ledger)
        keep &= ~failed
    rows = np.flatnonzero(keep)
    if (np.diff(columns["start"][rows]) < 0).any():
        ledger.note("fixations_sorted_by_start", f"{where}: the times in {table} run backwards")
    kept = _one_after_another(columns, rows, table, where, ledger)
    ledger.keep(table, len(kept["x"]))
    return _as_fixations(kept) if rows.size else None


def _drop(table: str, reason: str, rows: Rows, where: str, ledger: Ledger) -> None:
    ledger.drop(table, reason, [f"{where} row {row + 1}" for row in rows[:OFFENDERS_NAMED]], len(rows))


def _one_after_another(
    columns: dict[str, FloatArray], rows: Rows, table: str, where: str, ledger: Ledger
) -> dict[str, FloatArray]:
    """The columns of `rows` in the order of time, without any overlap."""
    start = columns["start"]
    rows = rows[np.lexsort((-rows, -columns["duration"][rows], start[rows]))]
    end = start[rows] + columns["duration"][rows]
    is_within = end <= np.maximum.accumulate(np.append(-np.inf, end))[:-1] + CLOCK_TOLERANCE_SECONDS
    outer = rows[~is_within]  # their starts rise, and their ends
    is_begun_anew = np.append(np.diff(start[outer]) <= CLOCK_TOLERANCE_SECONDS, False)[: len(outer)]
    _drop(table, "within_another_fixation", np.sort(np.append(rows[is_within], outer[is_begun_anew])), where, ledger)
    rows = outer[~is_begun_anew]
    kept = {name: values[rows] for name, values in columns.items()}
    room = np.diff(kept["start"])
    excess = kept["duration"][:-1] - room
    trimmed = np.flatnonzero(excess > CLOCK_TOLERANCE_SECONDS)
    if trimmed.size:
        told = f"{trimmed.size} of {len(rows)} by {excess[trimmed].sum():.3g} s together, row {rows[trimmed[0]] + 1}"
        ledger.note("fixations_end_where_the_next_begins", f"{where}: {told}")
        kept["duration"][trimmed] = room[trimmed]
    return kept


def _as_fixations(columns: dict[str, FloatArray]) -> Fixations:
    optional = {name: columns[name].tolist() if name in columns else None for name in Fixations.__optional_keys__}
    return Fixations(
        x=columns["x"].tolist(),
        y=columns["y"].tolist(),
        start=columns["start"].tolist(),
        duration=columns["duration"].tolist(),
        **optional,  # type: ignore[typeddict-item]
    )
