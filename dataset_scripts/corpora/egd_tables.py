"""The EGD tables (PhysioNet `egd-cxr` 1.0.0), as released and as MIMIC-Eye cuts them by patient.

X_ORIGINAL, Y_ORIGINAL are pixels of the original image; both are negative outside the image. The columns FPOGX, FPOGY
refer to the screen and `Time` to the end of a fixation: neither is used. Ids are upper or lower case.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.corpora.egd_fixations import FIXATION_TABLE, FixationTable, KnownIds, read_fixations
from dataset_scripts.corpora.rows import kept_boxes, part_or, read_findings, with_rows_of_dropped
from dataset_scripts.files.json_files import read_json
from dataset_scripts.files.paths import inside, plain_name, table_inside
from dataset_scripts.files.tables import FloatArray, Row, number, read_table
from dataset_scripts.gaze.fixations import LONGEST_SECONDS, valid_fixations
from dataset_scripts.gaze.lost_eye import lost_eye
from dataset_scripts.images.boxes import fraction_corners
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Outcome, attempt
from dataset_scripts.schema import Box, Finding, Fixations, Reading, Recording, Sentence, Split, UserError
from dataset_scripts.speech.sentences import TimedText, dictated_sentences

MASTER_TABLE = "EyeGaze/master_sheet.csv"
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
_BOX_CORNERS = ("x1", "y1", "x2", "y2")
_BOX_COLUMNS = ("dicom_id", "bbox_name", *_BOX_CORNERS)


class EgdTables(NamedTuple):
    """The master sheet's rows, the fixations, and the rows of the boxes by lower-case image id."""

    master: list[Row]
    fixations: FixationTable
    boxes: dict[str, list[Row]]


class EgdRow(NamedTuple):
    """One reading: its row of the master sheet (from 1) with its lower-case image id, its rows of the shared tables."""

    number: int
    image_id: str
    is_new: bool
    cells: Row
    fixation_table: str
    fixations: FloatArray | None
    boxes: list[Row]


def read_tables(folder: Path, master: list[Row], ledger: Ledger, is_one_of_many: bool = False) -> EgdTables:
    """Read the other tables of the folder; rows of ids that the master sheet lacks are dropped.

    Boxes that are missing or damaged are noted, and of one folder of many the fixations too.

    Raises:
        UserError: no table of fixations, or it lacks a column.
    """
    known = KnownIds({row["dicom_id"].lower() for row in master})

    def fixations(folder: Path, counted: Ledger) -> FixationTable:
        return read_fixations(folder, known, counted)

    def boxes(path: Path, counted: Ledger) -> dict[str, list[Row]]:
        return _boxes_by_id(read_table(path, _BOX_COLUMNS, counted, BOX_TABLE), known, counted)

    path, where = table_inside(folder, "bounding_boxes.csv"), str(folder)
    lost = FixationTable(FIXATION_TABLE, {})
    return EgdTables(
        master=master,
        fixations=part_or(lost, "fixations", folder, where, ledger, fixations)
        if is_one_of_many
        else fixations(folder, ledger),
        boxes=part_or({}, "boxes", path, where, ledger, boxes),
    )


def read_master(folder: Path, ledger: Ledger) -> list[Row]:
    """The rows of the master sheet; a cell may hold line breaks."""
    return read_table(table_inside(folder, "master_sheet.csv"), ("dicom_id",), ledger, MASTER_TABLE)


def source_rows(tables: EgdTables) -> Iterator[EgdRow]:
    """What the tables hold of the reading of every row of the master sheet; an id that comes again has nothing left."""
    name, fixations = tables.fixations
    met = set[str]()
    for index, cells in enumerate(tables.master, 1):
        image_id, is_new = cells["dicom_id"].lower(), cells["dicom_id"].lower() not in met
        met.add(image_id)
        yield EgdRow(
            *(index, image_id, is_new, cells, name),
            fixations=fixations.get(image_id) if is_new else None,
            boxes=tables.boxes.get(image_id, []) if is_new else [],
        )


def convert_row(row: EgdRow, build: Callable[[Ledger], tuple[Split, Reading]]) -> Outcome:
    """The outcome of one row of the master sheet; the shared tables' rows of a dropped reading are dropped with it."""

    def checked(ledger: Ledger) -> tuple[Split, Reading]:
        if not row.image_id:
            raise Dropped("no_image_id", "a line break outside quotes?")
        if not row.is_new:
            raise Dropped("duplicate_reading_id")
        return build(ledger)

    outcome = attempt(MASTER_TABLE, row.cells["dicom_id"] or f"row {row.number}", checked)
    fixations = 0 if row.fixations is None else len(row.fixations)
    outcome = with_rows_of_dropped(outcome, row.fixation_table, row.image_id, fixations)
    return with_rows_of_dropped(outcome, BOX_TABLE, row.image_id, len(row.boxes))


def read_recording(row: EgdRow, folder: Path, size: tuple[int, int], ledger: Ledger) -> Recording:
    """The reading of one row, on an image of `size` (width, height) pixels; `folder` holds the tables.

    Raises:
        Dropped: the transcript is a symbolic link out of the folder.
    """
    transcript = inside(folder, f"audio_segmentation_transcripts/{plain_name(row.image_id)}/transcript.json")
    return Recording(
        sentences=part_or([], "transcript", transcript, row.image_id, ledger, _sentences),
        fixations=_fixations(row, size, ledger),
        findings=_findings(row.cells, ledger),
        boxes=_boxes(row, size, ledger),
    )


def _boxes_by_id(rows: list[Row], known: KnownIds, ledger: Ledger) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        image_id = row["dicom_id"].lower()
        if problem := known.problem(image_id):
            ledger.enter(BOX_TABLE, 1)
            ledger.drop(BOX_TABLE, problem, [image_id or "blank id"])
        else:
            groups.setdefault(image_id, []).append(row)
    return groups


def _fixations(row: EgdRow, size: tuple[int, int], ledger: Ledger) -> Fixations | None:
    if row.fixations is None:
        ledger.note("no_fixation_rows", row.image_id)
        return None
    start, duration, x, y = row.fixations.T
    columns = {"x": x / size[0], "y": y / size[1], "start": start, "duration": duration}
    lost = lost_eye(x, y, "fixations", row.image_id, ledger)
    return valid_fixations(columns, row.fixation_table, row.image_id, ledger, lost, longest_seconds=LONGEST_SECONDS)


def _sentences(path: Path, ledger: Ledger) -> list[Sentence]:
    """Phrases grouped to sentences; the full text, untimed, where there are none."""
    image_id, transcript = path.parent.name, read_json(path, path, ledger)
    try:
        phrases = [_phrase(phrase) for phrase in transcript.get("time_stamped_text") or []]
        full_text = str(transcript.get("full_text") or "")
    except (AttributeError, TypeError):
        raise UserError(f"{path}: expected an object with full_text and time_stamped_text, a list of phrases") from None
    spoken = [phrase for phrase in phrases if phrase.text]
    ledger.enter(PHRASE_TABLE, len(phrases))
    ledger.keep(PHRASE_TABLE, len(spoken))
    ledger.drop(PHRASE_TABLE, "no_text", [image_id], len(phrases) - len(spoken))
    return dictated_sentences(full_text, spoken, image_id, ledger)


def _phrase(phrase: dict[str, Any]) -> TimedText:
    start, end = (number(str(phrase.get(name))) for name in ("begin_time", "end_time"))
    return TimedText(str(phrase.get("phrase") or "").strip(), start, end)


def _findings(row: Row, ledger: Ledger) -> list[Finding]:
    """The sheet's own labels, then the CheXpert labels whose names are not taken; blanks are not listed."""
    columns = sorted(row.items(), key=lambda item: item[0].endswith(_CHEXPERT_SUFFIX))
    named = ((name, cell) for column, cell in columns if (name := label_name(column)))
    return read_findings(named, row["dicom_id"], ledger)


def label_name(column: str) -> str | None:
    """The readable name of a label column of the master sheet; None for any other column."""
    if column.endswith(_CHEXPERT_SUFFIX):
        return column.removesuffix(_CHEXPERT_SUFFIX).replace("_", " ").capitalize()
    return LABEL_NAMES.get(column)


def _boxes(row: EgdRow, size: tuple[int, int], ledger: Ledger) -> list[Box]:
    named = [(cells["bbox_name"], fraction_corners(cells, _BOX_CORNERS, *size)) for cells in row.boxes]
    told = ((name, f"{row.image_id} box {at} {name}", corners) for at, (name, corners) in enumerate(named, 1))
    return kept_boxes(told, BOX_TABLE, ledger)
