"""The two large EGD tables, column by column: `fixations.csv`, and `eye_gaze.csv` where that is all there is.

Both have the same 37 columns. A fixation lasts from FPOGS for FPOGD seconds at X_ORIGINAL, Y_ORIGINAL. In
`eye_gaze.csv` a row is a sample: FPOGD is how long the fixation FPOGID has lasted so far, so that the last valid sample
of a fixation describes it. (MIMIC-Eye's `spreadsheets/EyeGaze/eye_gaze.csv` holds fixations by mistake: never read.)
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_scripts.files.paths import table_inside
from dataset_scripts.files.tables import FloatArray, read_columns
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

FIXATION_TABLE = "EyeGaze/fixations.csv"
SAMPLE_TABLE = "EyeGaze/eye_gaze.csv"
REDUCED_TABLE = "fixations made of EyeGaze/eye_gaze.csv"

FULL_ID_LENGTH = 44
_COLUMNS = ("FPOGS", "FPOGD", "X_ORIGINAL", "Y_ORIGINAL")
_START, _DURATION, _FIXATION, _VALID = 0, 1, 4, 5
_DECIMAL_COMMA = r"^\s*[+-]?\d*,\d+\s*$"
_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"


class FixationTable(NamedTuple):
    """Fixations by lower-case image id, and the name of the table that they count under.

    `rows`: (F, 4) start and duration in seconds, x and y in pixels, NaN where there is no number.
    """

    name: str
    rows: dict[str, FloatArray]


class KnownIds:
    """The lower-case ids of a master sheet, and what is wrong with an id that is none of them."""

    def __init__(self, ids: Collection[str]) -> None:
        self.ids = frozenset(ids)
        self._sorted = sorted(self.ids)

    def problem(self, image_id: str) -> str | None:
        """None for a known id. Calibration stimuli go by the first 39 characters of an image's id."""
        if image_id in self.ids:
            return None
        if not image_id or len(image_id) >= FULL_ID_LENGTH:
            return "id_not_in_master_sheet"
        first = bisect_left(self._sorted, image_id)
        begun = sum(known.startswith(image_id) for known in self._sorted[first : first + 2])
        return ("id_not_in_master_sheet", "truncated_id", "ambiguous_truncated_id")[begun]


def read_fixations(folder: Path, known: KnownIds, ledger: Ledger) -> FixationTable:
    """The fixations of the known ids; rows of others (calibration stimuli, mangled ids) are dropped.

    Raises:
        UserError: neither table is there, or the one that is lacks a column.
    """
    fixations, samples = table_inside(folder, "fixations.csv"), table_inside(folder, "eye_gaze.csv")
    if fixations.is_file():
        return FixationTable(FIXATION_TABLE, _fixation_rows(fixations, known, ledger))
    if not samples.is_file():
        raise UserError(f"{folder}: neither fixations.csv nor eye_gaze.csv; expected one of them")
    ledger.note("fixations_made_of_samples", f"{samples}, as there is no fixations.csv")
    return FixationTable(REDUCED_TABLE, _reduced_samples(samples, known, ledger))


def _fixation_rows(path: Path, known: KnownIds, ledger: Ledger) -> dict[str, FloatArray]:
    parts: dict[str, list[FloatArray]] = {}
    for image_id, rows in _rows_by_id(path, _COLUMNS, FIXATION_TABLE, ledger):
        if problem := known.problem(image_id):
            ledger.enter(FIXATION_TABLE, len(rows))
            ledger.drop(FIXATION_TABLE, problem, [image_id or "blank id"], len(rows))
        else:
            parts.setdefault(image_id, []).append(rows)
    return {image_id: np.concatenate(rows) for image_id, rows in parts.items()}


def _reduced_samples(path: Path, known: KnownIds, ledger: Ledger) -> dict[str, FloatArray]:
    parts: dict[str, list[FloatArray]] = {}
    for image_id, rows in _rows_by_id(path, (*_COLUMNS, "FPOGID", "FPOGV"), SAMPLE_TABLE, ledger):
        ledger.enter(SAMPLE_TABLE, len(rows))
        if problem := known.problem(image_id):
            ledger.drop(SAMPLE_TABLE, problem, [image_id or "blank id"], len(rows))
            continue
        finite = np.isfinite(rows).all(axis=1)
        valid = finite & (rows[:, _VALID] == 1)
        ledger.drop(SAMPLE_TABLE, "not_a_number", [image_id], int((~finite).sum()))
        ledger.drop(SAMPLE_TABLE, "not_valid_by_fpogv", [image_id], int((finite & ~valid).sum()))
        ledger.keep(SAMPLE_TABLE, int(valid.sum()))
        parts.setdefault(image_id, []).append(_longest(rows[valid]))
    return {image_id: _longest(np.concatenate(rows))[:, : len(_COLUMNS)] for image_id, rows in parts.items()}


def _longest(samples: FloatArray) -> FloatArray:
    """The sample of longest duration of every fixation, in the order of their starts; applied to parts, then to all."""
    order = np.lexsort((samples[:, _DURATION], samples[:, _FIXATION], samples[:, _START]))
    samples = samples[order]
    key = samples[:, (_START, _FIXATION)]
    is_last = np.ones(len(samples), dtype=bool)
    is_last[:-1] = (key[1:] != key[:-1]).any(axis=1)
    return samples[is_last]


def _rows_by_id(path: Path, columns: tuple[str, ...], table: str, ledger: Ledger) -> Iterator[tuple[str, FloatArray]]:
    """Rows in the table's order, (F, columns), under their lower-case id; an id can come again and again."""
    for batch in read_columns(path, dict.fromkeys(("DICOM_ID", *columns), pa.string()), ledger, table):
        for name in columns:
            commas = pc.filter(batch.column(name), pc.match_substring_regex(batch.column(name), _DECIMAL_COMMA))
            if len(commas):
                ledger.note("decimal_comma", f"{path}: column {name}: {commas[0]}; expected a decimal point")
        ids = pc.fill_null(pc.utf8_lower(pc.utf8_trim_whitespace(batch.column("DICOM_ID"))), "").dictionary_encode()
        values = np.stack([_floats(batch.column(name)) for name in columns], axis=1)
        codes = ids.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(ids.dictionary)))
        for image_id, rows in zip(ids.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=False):
            yield image_id, values[rows]


def _floats(column: pa.Array) -> FloatArray:
    """Cells as float64, NaN where blank or no number."""
    text = pc.utf8_trim_whitespace(column)
    numeric = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, pa.scalar(None, pa.string()))
    values: FloatArray = numeric.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
