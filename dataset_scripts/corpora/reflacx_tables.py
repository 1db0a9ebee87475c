"""One REFLACX reading folder (PhysioNet `reflacx-xray-localization` 1.0.0), as released and inside MIMIC-Eye.

Positions are pixels of the original image, already corrected for zoom and pan; times are seconds from the start of the
audio recording. The labels differ by phase: every column of a table that is no other known column is a label.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dataset_scripts.corpora.rows import Part, kept_boxes, part_or, read_findings
from dataset_scripts.files.paths import inside, plain_name
from dataset_scripts.files.tables import Row, flag, label_value, number, numbers, read_table
from dataset_scripts.files.texts import read_text
from dataset_scripts.gaze.fixations import LONGEST_SECONDS, valid_fixations
from dataset_scripts.gaze.lost_eye import lost_eye
from dataset_scripts.images.boxes import ellipse, fraction_corners
from dataset_scripts.images.sizes import side_pixels
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, Box, Finding, Fixations, Recording, UserError
from dataset_scripts.speech.sentences import TimedText, dictated_sentences

METADATA_TABLE = "REFLACX/metadata.csv"
FIXATION_TABLE = "REFLACX/fixations.csv"
WORD_TABLE = "REFLACX/timestamps_transcription.csv"
ELLIPSE_TABLE = "REFLACX/anomaly_location_ellipses.csv"
CHEST_TABLE = "REFLACX/chest_bounding_box.csv"
CHEST_LABEL = "Chest"

METADATA_COLUMNS = ("id", "eye_tracking_data_discarded", "dicom_id", "image_size_x", "image_size_y")
CERTAINTY_PRESENT, MOST_CERTAIN = 3, 5

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NO_LABELS = {*METADATA_COLUMNS, *_CORNERS, "split", "image", "subject_id", "study_id", "stay_id", "certainty"}
_FREE_TEXT_LABEL, _FLAG_LABELS = "Other", ("Support devices", "Quality issue")
_OPTIONAL_COLUMNS = {
    "degrees_per_pixel": {
        "sigma_x": "angular_resolution_x_pixels_per_degree",
        "sigma_y": "angular_resolution_y_pixels_per_degree",
    },
    "shown_rectangle": {
        "x_min": "xmin_shown_from_image",
        "y_min": "ymin_shown_from_image",
        "x_max": "xmax_shown_from_image",
        "y_max": "ymax_shown_from_image",
    },
}


def read_metadata(path: Path, ledger: Ledger, table: str, more: Sequence[str] = ()) -> list[Row]:
    """The rows of a metadata table, one a reading, discarded ones included; `more` columns are required too."""
    return read_table(path, (*METADATA_COLUMNS, *more), ledger, table)


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
    """Read `main_data/<id>/` of the reading described by a metadata row; a file that is damaged is lost, and noted.

    Raises:
        Dropped: the metadata has no image size, or a file is a symbolic link out of the folder.
    """
    size = image_size(row)

    def part(name: str, file: str, lost: Part, read: Callable[[Path, Ledger], Part]) -> Part:
        return part_or(lost, name, inside(folder, file), folder.name, ledger, read)

    text = part("transcription", "transcription.txt", "", lambda path, counted: read_text(path, path, counted))
    words = part("word_times", "timestamps_transcription.csv", list[TimedText](), _words)
    return Recording(
        sentences=dictated_sentences(text, words, folder.name, ledger),
        fixations=part("fixations", "fixations.csv", None, partial(_fixations, size)),
        findings=_findings(row, ledger),
        boxes=[
            *part("ellipses", "anomaly_location_ellipses.csv", list[Box](), partial(_ellipses, size)),
            *part("chest_box", "chest_bounding_box.csv", list[Box](), partial(_chest, size)),
        ],
    )


def _words(path: Path, ledger: Ledger) -> list[TimedText]:
    columns = ("word", "timestamp_start_word", "timestamp_end_word")
    rows = read_table(path, columns, ledger, WORD_TABLE)
    blank = [f"{path.parent.name} row {index}" for index, row in enumerate(rows, 1) if not row["word"]]
    ledger.enter(WORD_TABLE, len(rows))
    ledger.keep(WORD_TABLE, len(rows) - len(blank))
    ledger.drop(WORD_TABLE, "no_word", blank)
    return [TimedText(row["word"], number(row[columns[1]]), number(row[columns[2]])) for row in rows if row["word"]]


def _fixations(size: tuple[int, int], path: Path, ledger: Ledger) -> Fixations | None:
    (width, height), where = size, path.parent.name
    needed = ("timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position")
    rows = read_table(path, needed, ledger, FIXATION_TABLE)
    start, end, x, y = (numbers(rows, name) for name in needed)
    columns = {"x": x / width, "y": y / height, "start": start, "duration": end - start}
    for group, names in _OPTIONAL_COLUMNS.items():
        if rows and not all(any(number(row.get(column, "")) is not None for row in rows) for column in names.values()):
            ledger.note(f"{group}_missing", where)
        elif rows:
            sides = {name: width if name in ("sigma_x", "x_min", "x_max") else height for name in names}
            columns |= {name: numbers(rows, column) / sides[name] for name, column in names.items()}
    lost = lost_eye(x, y, "fixations", where, ledger)
    return valid_fixations(columns, FIXATION_TABLE, where, ledger, lost, longest_seconds=LONGEST_SECONDS)


def _findings(row: Row, ledger: Ledger) -> list[Finding]:
    """By name. Certainty 0 to 5, or True and False; a blank belongs to another phase's labels, `Other` is free text."""
    if said := row.get(_FREE_TEXT_LABEL):
        ledger.note("other_findings_in_words_left_out", f"{row['id']}: {said}")
    # the release and MIMIC-Eye order the columns differently
    labels = ((name, row[name]) for name in sorted(_label_columns(row)) if name != _FREE_TEXT_LABEL)
    return read_findings(labels, row["id"], ledger, _finding_value)


def _finding_value(name: str, cell: str) -> int | None:
    if name in _FLAG_LABELS or cell.lower() in ("true", "false"):
        return label_value(cell)
    certainty = number(cell)
    if certainty is None or not 0 <= certainty <= MOST_CERTAIN:
        return None
    if certainty >= CERTAINTY_PRESENT:
        return PRESENT
    return UNCERTAIN if certainty > 0 else ABSENT


def _ellipses(size: tuple[int, int], path: Path, ledger: Ledger) -> list[Box]:
    """One box a label of an ellipse; an ellipse without a label or outside the image is dropped."""
    rows = read_table(path, (*_CORNERS, "certainty"), ledger, ELLIPSE_TABLE)
    ledger.enter(ELLIPSE_TABLE, len(rows))
    boxes: list[Box] = []
    for index, row in enumerate(rows, 1):
        where, certainty = f"{path.parent.name} row {index}", number(row["certainty"])
        labels = [name for name in _label_columns(row) if flag(row[name])]
        corners = fraction_corners(row, _CORNERS, *size)
        if corners is None or not labels:
            ledger.drop(ELLIPSE_TABLE, "no_label" if corners else "no_area_in_image", [where])
            continue
        if certainty is None or not 0 <= certainty <= MOST_CERTAIN:
            ledger.note("certainty_not_understood", f"{where}: {row['certainty']!r}")
            certainty = None
        ledger.keep(ELLIPSE_TABLE, 1)
        boxes += [ellipse(label, corners, certainty) for label in labels]
    return boxes


def _chest(size: tuple[int, int], path: Path, ledger: Ledger) -> list[Box]:
    """The box of the chest, which may leave the image, cut at the image's edges."""
    rows = enumerate(read_table(path, _CORNERS, ledger, CHEST_TABLE), 1)
    told = ((CHEST_LABEL, f"{path.parent.name} row {at}", fraction_corners(row, _CORNERS, *size)) for at, row in rows)
    return kept_boxes(told, CHEST_TABLE, ledger)


def _label_columns(row: Row) -> list[str]:
    return [name for name in row if name not in _NO_LABELS]
