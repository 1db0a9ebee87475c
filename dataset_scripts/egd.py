"""The EGD tables (PhysioNet `egd-cxr` 1.0.0), as released and as MIMIC-Eye cuts them by patient.

A fixation lasts from FPOGS for FPOGD seconds at X_ORIGINAL, Y_ORIGINAL, pixels of the original image; both are negative
outside the image. The columns FPOGX, FPOGY refer to the screen and `Time` to the end of a fixation: neither is used.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.boxes import clipped_box, fraction_corners
from dataset_scripts.conversion import Recording
from dataset_scripts.fixations import valid_fixations
from dataset_scripts.report import Ledger
from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, Box, Finding, Fixations, Sentence
from dataset_scripts.sentences import TimedText, timed_sentences, untimed_sentences
from dataset_scripts.tables import Row, number, numbers, read_table

MASTER_TABLE = "EyeGaze/master_sheet.csv"
FIXATION_TABLE = "EyeGaze/fixations.csv"
BOX_TABLE = "EyeGaze/bounding_boxes.csv"
PHRASE_TABLE = "EyeGaze/transcript.json"

LABEL_NAMES = {
    "normal_reports": "Normal report",
    "Normal": "Normal",
    "CHF": "Congestive heart failure",
    "pneumonia": "Pneumonia",
    "consolidation": "Consolidation",
    "enlarged_cardiac_silhouette": "Enlarged cardiac silhouette",
    "linear__patchy_atelectasis": "Linear or patchy atelectasis",
    "lobar__segmental_collapse": "Lobar or segmental collapse",
    "not_otherwise_specified_opacity___pleural__parenchymal_opacity__": "Opacity not otherwise specified",
    "pleural_effusion_or_thickening": "Pleural effusion or thickening",
    "pulmonary_edema__hazy_opacity": "Pulmonary edema or hazy opacity",
    "normal_anatomically": "Anatomically normal",
    "elevated_hemidiaphragm": "Elevated hemidiaphragm",
    "hyperaeration": "Hyperaeration",
    "vascular_redistribution": "Vascular redistribution",
}
_CHEXPERT_SUFFIX = "__chx"
_FIXATION_COLUMNS = ("DICOM_ID", "FPOGS", "FPOGD", "X_ORIGINAL", "Y_ORIGINAL")
_BOX_CORNERS = ("x1", "y1", "x2", "y2")
_VALUES: dict[float | None, int] = {1.0: PRESENT, 0.0: ABSENT, -1.0: UNCERTAIN}


class EgdTables(NamedTuple):
    """The master sheet's rows, and the rows of the two shared tables by lower-case image id."""

    master: list[Row]
    fixations: dict[str, list[Row]]
    boxes: dict[str, list[Row]]


def read_tables(folder: Path, ledger: Ledger) -> EgdTables:
    """Read the folder of the tables; rows of ids that the master sheet lacks (calibration stimuli) are dropped.

    Raises:
        UserError: a table is missing, or lacks a column.
    """
    master = read_table(folder / "master_sheet.csv", ("dicom_id",))
    known = {row["dicom_id"].lower() for row in master}
    fixations = read_table(folder / "fixations.csv", _FIXATION_COLUMNS)
    boxes = read_table(folder / "bounding_boxes.csv", ("dicom_id", "bbox_name", *_BOX_CORNERS))
    return EgdTables(
        master=master,
        fixations=_by_known_id(fixations, "DICOM_ID", known, FIXATION_TABLE, ledger),
        boxes=_by_known_id(boxes, "dicom_id", known, BOX_TABLE, ledger),
    )


def read_recording(tables: EgdTables, row: Row, transcript: Path, width: int, height: int, ledger: Ledger) -> Recording:
    """The reading of one master sheet row, on an image of `width` x `height` pixels."""
    image_id = row["dicom_id"]
    return Recording(
        sentences=_sentences(transcript, image_id, ledger),
        fixations=_fixations(tables.fixations.get(image_id.lower()), image_id, width, height, ledger),
        findings=_findings(row, ledger),
        boxes=_boxes(tables.boxes.get(image_id.lower()), image_id, width, height, ledger),
    )


def count_dropped(tables: EgdTables, image_id: str, ledger: Ledger) -> None:
    """Account for the shared tables' rows of a reading that was dropped."""
    for name, groups in ((FIXATION_TABLE, tables.fixations), (BOX_TABLE, tables.boxes)):
        rows = len(groups.get(image_id.lower(), ()))
        ledger.enter(name, rows)
        ledger.drop(name, "reading_dropped", [image_id], rows)


def _by_known_id(rows: list[Row], column: str, known: set[str], name: str, ledger: Ledger) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column].lower(), []).append(row)
    for key in [key for key in groups if key not in known]:
        unknown = len(groups.pop(key))
        ledger.enter(name, unknown)
        ledger.drop(name, "id_not_in_master_sheet", [key or "blank id"], unknown)
    return groups


def _fixations(rows: list[Row] | None, image_id: str, width: int, height: int, ledger: Ledger) -> Fixations | None:
    if rows is None:
        ledger.note("no_fixation_rows", image_id)
        return None
    start, duration, x, y = (numbers(rows, name) for name in _FIXATION_COLUMNS[1:])
    columns = {"x": x / width, "y": y / height, "start": start, "duration": duration}
    return valid_fixations(columns, FIXATION_TABLE, image_id, ledger)


def _sentences(path: Path, image_id: str, ledger: Ledger) -> list[Sentence]:
    """Phrases grouped to sentences; the full text, untimed, where there are none."""
    try:
        transcript = json.loads(path.read_text(encoding="utf-8-sig"))
        phrases = [_phrase(phrase) for phrase in transcript.get("time_stamped_text") or []]
        full_text = str(transcript.get("full_text") or "")
    except FileNotFoundError:
        ledger.note("transcript_missing", image_id)
        return []
    except (ValueError, AttributeError, TypeError) as error:
        ledger.note("transcript_not_understood", f"{image_id}: {error}")
        return []
    spoken = [phrase for phrase in phrases if phrase.text]
    ledger.enter(PHRASE_TABLE, len(phrases))
    ledger.keep(PHRASE_TABLE, len(spoken))
    ledger.drop(PHRASE_TABLE, "no_text", [image_id], len(phrases) - len(spoken))
    if not spoken and full_text.strip():
        ledger.note("transcript_without_times", image_id)
    return timed_sentences(spoken) or untimed_sentences(full_text)


def _phrase(phrase: dict[str, Any]) -> TimedText:
    times = (number(str(phrase.get(name))) for name in ("begin_time", "end_time"))
    return TimedText(str(phrase.get("phrase") or "").strip(), *times)


def _findings(row: Row, ledger: Ledger) -> list[Finding]:
    """The sheet's own labels, then the CheXpert labels whose names are not taken; blanks are not listed."""
    values: dict[str, int] = {}
    for column, cell in sorted(row.items(), key=lambda item: item[0].endswith(_CHEXPERT_SUFFIX)):
        name = label_name(column)
        if name is None or cell == "" or name in values:
            continue
        value = _VALUES.get(number(cell))
        if value is None:
            ledger.note("label_not_understood", f"{row['dicom_id']} {column}: {cell!r}")
        else:
            values[name] = value
    return [Finding(name=name, value=value) for name, value in values.items()]


def label_name(column: str) -> str | None:
    """The readable name of a label column of the master sheet; None for any other column."""
    if column.endswith(_CHEXPERT_SUFFIX):
        return column.removesuffix(_CHEXPERT_SUFFIX).replace("_", " ").capitalize()
    return LABEL_NAMES.get(column)


def _boxes(rows: list[Row] | None, image_id: str, width: int, height: int, ledger: Ledger) -> list[Box]:
    rows = rows or []
    ledger.enter(BOX_TABLE, len(rows))
    boxes = []
    for index, row in enumerate(rows, 1):
        corners = fraction_corners(row, _BOX_CORNERS, width, height)
        if corners is None:
            ledger.drop(BOX_TABLE, "no_area_in_image", [f"{image_id} box {index} {row['bbox_name']}"])
        else:
            boxes.append(clipped_box(row["bbox_name"], corners))
    ledger.keep(BOX_TABLE, len(boxes))
    return boxes
