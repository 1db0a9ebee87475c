"""One REFLACX reading folder (PhysioNet `reflacx-xray-localization` 1.0.0), as released and inside MIMIC-Eye.

Positions are pixels of the original image, already corrected for zoom and pan; times are seconds from the start of the
audio recording. The labels differ by phase: every column of a table that is no other known column is a label.
"""

from pathlib import Path

from dataset_scripts.boxes import clipped_box, ellipse, fraction_corners
from dataset_scripts.conversion import Dropped, Recording
from dataset_scripts.fixations import valid_fixations
from dataset_scripts.images import inside
from dataset_scripts.lost_eye import lost_eye
from dataset_scripts.mimic_images import plain_name, side_pixels
from dataset_scripts.report import Ledger
from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, Box, Finding, Fixations, Sentence, UserError
from dataset_scripts.sentences import TimedText, timed_sentences, untimed_sentences, with_blanks_of
from dataset_scripts.tables import Row, flag, label_value, number, numbers, read_table

METADATA_TABLE = "REFLACX/metadata.csv"
FIXATION_TABLE = "REFLACX/fixations.csv"
WORD_TABLE = "REFLACX/timestamps_transcription.csv"
ELLIPSE_TABLE = "REFLACX/anomaly_location_ellipses.csv"
CHEST_TABLE = "REFLACX/chest_bounding_box.csv"
CHEST_LABEL = "Chest"

METADATA_COLUMNS = ("id", "eye_tracking_data_discarded", "dicom_id", "image_size_x", "image_size_y")
CERTAINTY_PRESENT = 3

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NO_LABELS = {*METADATA_COLUMNS, *_CORNERS, "split", "image", "subject_id", "study_id", "stay_id", "certainty"}
_FREE_TEXT_LABEL, _FLAG_LABELS = "Other", ("Support devices", "Quality issue")
_RESOLUTION_COLUMNS = {
    "sigma_x": "angular_resolution_x_pixels_per_degree",
    "sigma_y": "angular_resolution_y_pixels_per_degree",
}
_SHOWN_COLUMNS = {
    "x_min": "xmin_shown_from_image",
    "y_min": "ymin_shown_from_image",
    "x_max": "xmax_shown_from_image",
    "y_max": "ymax_shown_from_image",
}


def read_metadata(path: Path, with_split: bool = False) -> list[Row]:
    """The rows of a metadata table, one a reading, discarded ones included; `with_split` requires that column too."""
    return read_table(path, (*METADATA_COLUMNS, *(("split",) if with_split else ())))


def image_size(row: Row) -> tuple[int, int]:
    """Width and height in pixels of the frame that gaze and ellipses refer to."""
    width, height = side_pixels(row["image_size_x"]), side_pixels(row["image_size_y"])
    if width is None or height is None:
        raise Dropped("image_size_unknown", f"image_size_x {row['image_size_x']!r}, y {row['image_size_y']!r}")
    return width, height


def reading_folder(root: Path, row: Row) -> Path:
    """`main_data/<id>` of a reading, under the folder `root` that holds `main_data`.

    Raises:
        Dropped: the authors discarded the eye tracking (then there is no transcript either), or there is no folder.
    """
    discarded = flag(row["eye_tracking_data_discarded"] or "False")
    if discarded is None:
        raise UserError(
            f"eye_tracking_data_discarded is {row['eye_tracking_data_discarded']!r}; expected True or False"
        )
    if discarded:
        raise Dropped("eye_tracking_data_discarded")
    if not row["id"]:
        raise Dropped("no_reading_id")
    folder = inside(root, f"main_data/{plain_name(row['id'])}")
    if not folder.is_dir():
        raise Dropped("reading_folder_missing")
    return folder


def read_recording(folder: Path, row: Row, ledger: Ledger) -> Recording:
    """Read `main_data/<id>/` of the reading described by a metadata row.

    Raises:
        Dropped: the metadata has no image size, or a file is a symbolic link out of the folder.
        UserError: a file is there but is not the table that it should be.
    """
    width, height = image_size(row)
    return Recording(
        sentences=_sentences(folder, ledger),
        fixations=_fixations(folder, width, height, ledger),
        findings=_findings(row, ledger),
        boxes=_ellipses(folder, width, height, ledger) + _chest(folder, width, height, ledger),
    )


def _sentences(folder: Path, ledger: Ledger) -> list[Sentence]:
    words, written = inside(folder, "timestamps_transcription.csv"), inside(folder, "transcription.txt")
    text = written.read_text(encoding="utf-8-sig", errors="replace") if written.is_file() else ""
    timed = _words(words, ledger) if words.is_file() else []
    if timed and (sentences := timed_sentences(with_blanks_of(text, timed, folder.name, ledger))):
        return sentences
    if sentences := untimed_sentences(text):
        ledger.note("transcript_without_times", folder.name)
    return sentences


def _words(path: Path, ledger: Ledger) -> list[TimedText]:
    columns = ("word", "timestamp_start_word", "timestamp_end_word")
    rows = read_table(path, columns)
    blank = [f"{path.parent.name} row {index}" for index, row in enumerate(rows, 1) if not row["word"]]
    ledger.enter(WORD_TABLE, len(rows))
    ledger.keep(WORD_TABLE, len(rows) - len(blank))
    ledger.drop(WORD_TABLE, "no_word", blank)
    return [TimedText(row["word"], number(row[columns[1]]), number(row[columns[2]])) for row in rows if row["word"]]


def _fixations(folder: Path, width: int, height: int, ledger: Ledger) -> Fixations | None:
    path = inside(folder, "fixations.csv")
    if not path.is_file():
        ledger.note("fixations_file_missing", folder.name)
        return None
    needed = ("timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position")
    rows = read_table(path, needed)
    start, end, x, y = (numbers(rows, name) for name in needed)
    columns = {"x": x / width, "y": y / height, "start": start, "duration": end - start}
    for group in (_RESOLUTION_COLUMNS, _SHOWN_COLUMNS):
        if rows and set(group.values()) <= rows[0].keys():
            sides = {name: width if name in ("sigma_x", "x_min", "x_max") else height for name in group}
            columns |= {name: numbers(rows, column) / sides[name] for name, column in group.items()}
    lost = lost_eye(x, y, "fixations", folder.name, ledger)
    return valid_fixations(columns, FIXATION_TABLE, folder.name, ledger, lost)


def _findings(row: Row, ledger: Ledger) -> list[Finding]:
    """By name. Certainty 0 to 5, or True and False; a blank belongs to another phase's labels, `Other` is free text."""
    findings = []
    for name in sorted(_label_columns(row)):  # the release and MIMIC-Eye order the columns differently
        if row[name] == "" or name == _FREE_TEXT_LABEL:
            continue
        value = _finding_value(name, row[name])
        if value is None:
            ledger.note("label_not_understood", f"{row['id']} {name}: {row[name]!r}")
        else:
            findings.append(Finding(name=name, value=value))
    return findings


def _finding_value(name: str, cell: str) -> int | None:
    if name in _FLAG_LABELS or cell.lower() in ("true", "false"):
        return label_value(cell)
    certainty = number(cell)
    if certainty is None or not 0 <= certainty <= 5:
        return None
    if certainty >= CERTAINTY_PRESENT:
        return PRESENT
    return UNCERTAIN if certainty > 0 else ABSENT


def _ellipses(folder: Path, width: int, height: int, ledger: Ledger) -> list[Box]:
    """One box a label of an ellipse; an ellipse without a label or outside the image is dropped."""
    path = inside(folder, "anomaly_location_ellipses.csv")
    if not path.is_file():
        return []
    rows = read_table(path, (*_CORNERS, "certainty"))
    ledger.enter(ELLIPSE_TABLE, len(rows))
    boxes: list[Box] = []
    for index, row in enumerate(rows, 1):
        labels = [name for name in _label_columns(row) if flag(row[name])]
        corners = fraction_corners(row, _CORNERS, width, height)
        if corners is None or not labels:
            reason = "no_label" if corners else "no_area_in_image"
            ledger.drop(ELLIPSE_TABLE, reason, [f"{folder.name} row {index}"])
        else:
            ledger.keep(ELLIPSE_TABLE, 1)
            boxes += [ellipse(label, corners, number(row["certainty"])) for label in labels]
    return boxes


def _chest(folder: Path, width: int, height: int, ledger: Ledger) -> list[Box]:
    """The box of the chest, which may leave the image, cut at the image's edges."""
    path = inside(folder, "chest_bounding_box.csv")
    rows = read_table(path, _CORNERS) if path.is_file() else []
    corners = [fraction_corners(row, _CORNERS, width, height) for row in rows]
    outside = [f"{folder.name} row {index}" for index, found in enumerate(corners, 1) if found is None]
    ledger.enter(CHEST_TABLE, len(rows))
    ledger.keep(CHEST_TABLE, len(rows) - len(outside))
    ledger.drop(CHEST_TABLE, "no_area_in_image", outside)
    return [clipped_box(CHEST_LABEL, found) for found in corners if found is not None]


def _label_columns(row: Row) -> list[str]:
    return [name for name in row if name not in _NO_LABELS]
