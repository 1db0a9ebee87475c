"""A lab's own recordings: `readings.csv` beside the images, the gaze files and the transcripts.

Without that table, every `.json` file is a reading that the page (app.py) recorded, which says itself what its row
would. One row a reading; docs/tracker.md tells a lab what to prepare. Paths are relative to the folder. Columns:
    `reading_id`, `image`, `gaze`            gaze is a file that tracker_gaze reads, or blank
    `stimulus`, `recording`                  which of several in the gaze's file; else the image's name and `reader_id`
    `transcript`, `audio_start_seconds`      a file that transcripts reads, and where its clock starts on the gaze's
    `subject_id`, `reader_id`, `study_id`, `view`, `sex`, `age`, `license`, `device`
    `split`                                  decides, if any row has one; else a hash of the patient does, 80/10/10,
                                             with at least a patient in each while there are three
    `findings`                               joined by a pipe: `Edema`, or `Edema=1`, `=0` absent, `=-1` uncertain
    `width`, `height`                        pixels that gaze refers to, if the image's file has another size
    `screen_left`, `screen_top`, `screen_right`, `screen_bottom`   the image's edges, if gaze refers to the screen
    `screen`                                 instead, a table of these edges by time, for an image that moved
    `image_width_degrees`                    the visual angle of the image's width
    `generated`                              1 for a picture of no patient
"""

import math
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.corpora.rows import ENDLESS_SENTENCE_WORDS, Origin, schema_row
from dataset_scripts.corpora.splits import GAZE_SHARES, hashed_splits, named_splits
from dataset_scripts.files.json_files import read_json
from dataset_scripts.files.paths import inside, table_inside
from dataset_scripts.files.tables import Row, flag, label_value, number, plain_row, read_table
from dataset_scripts.gaze.tracker_columns import Frame, Pick, Shown, Source
from dataset_scripts.gaze.tracker_exports import named_columns
from dataset_scripts.gaze.tracker_gaze import MAX_JSON_BYTES, read_gaze
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import EncodedImage, encode_image
from dataset_scripts.images.sizes import check_size, side_pixels
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import (
    GENERATED_PREFIX,
    PRESENT,
    Finding,
    Fixations,
    Reading,
    Recording,
    Sentence,
    Split,
    UserError,
)
from dataset_scripts.speech.transcripts import MAX_SECONDS, read_transcript

TABLE, RECORDINGS = "readings.csv", "readings of the page"
REQUIRED = ("reading_id", "image", "gaze")
PART = ("image", "stimulus", "recording", "reader_id")
IDS, FILES = ("reading_id", "study_id", "subject_id", "reader_id"), ("image", "gaze", "transcript", "screen")
RECORDED = (
    *("reading_id", "image", "study_id", "subject_id", "reader_id"),
    *("view", "license", "width", "height"),
)
SCREEN_EDGES = ("screen_left", "screen_top", "screen_right", "screen_bottom")
TERMS = (
    "Images, gaze and transcripts are recordings of the lab that made this conversion, under the terms that the column "
    "`license` names, where it does. Redistribute the rows only as those terms, and the consent of patients and "
    "readers, allow."
)
_DEVICE = re.compile(r"[a-z0-9_-]{1,40}")


class ReadingRow(NamedTuple):
    """One row of the table, `number` counting from 1; not `is_new` where an earlier row has its id.

    `earlier` is the first row with the same file of gaze, if possible for the same part of it.
    """

    number: int
    cells: Row
    split: Split
    is_new: bool
    earlier: Row | None


def plan(source: Path, options: Options) -> Plan:
    """One unit a row of readings.csv.

    Raises:
        UserError: no such table and no recording of the page, or no row in it, a column missing, a split that is
            none, or a patient in two splits.
    """
    if options.columns:
        named_columns(options.columns)
    path, shared = table_inside(source, TABLE), Ledger()
    recordings = sorted(source.glob("[!.]*.json")) if not path.exists() else []
    table = RECORDINGS if recordings else TABLE
    recorded = [_recorded_row(table_inside(source, one.name), shared) for one in recordings]
    cells = recorded or read_table(path, REQUIRED, shared, TABLE)
    if not cells:
        raise UserError(f"{path}: the table has no row; expected one row a reading")
    cells = [plain_row(row, IDS, FILES) for row in cells]
    seen = set[str]()
    units, named = [], dict[tuple[str, ...], Row]()
    for index, (row, split) in enumerate(zip(cells, _splits(cells, path, options), strict=True), 1):
        earlier = named.get((row["gaze"], *_part(row)), named.get((row["gaze"],)))
        units.append(ReadingRow(index, row, split, row["reading_id"] not in seen, earlier))
        named.setdefault((row["gaze"],), row)
        named.setdefault((row["gaze"], *_part(row)), row)
        seen.add(row["reading_id"])
    return Plan(
        units=units,
        convert=partial(convert_row, table=table, source=source, options=options),
        unit_name="readings",
        reading_tables=(table,),
        terms=TERMS,
        shared=shared,
        generated=all(map(_is_generated, cells)),
    )


def _recorded_row(path: Path, ledger: Ledger) -> Row:
    """The row that a reading of the page stands for; its file is both gaze and transcript."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path}: larger than {MAX_JSON_BYTES} bytes; expected one reading")
    wanted = f"expected {TABLE}, or nothing but such readings as .json"
    try:
        reading = read_json(path, path, ledger)
    except UserError as error:
        raise UserError(f"{error}: no reading that the page recorded; {wanted}") from None
    named = reading.get("source") if isinstance(reading, dict) else None
    source, _, device = named.removeprefix(GENERATED_PREFIX).partition("/") if isinstance(named, str) else ("", "", "")
    given = {name: reading.get(name) for name in RECORDED} if source == "tracker" else {}
    if not given or not all(isinstance(value, str | int | None) for value in given.values()):
        raise UserError(
            f"{path}: no reading that the page recorded, whose source is tracker/ and a device, and whose "
            f"{', '.join(RECORDED)} are texts or whole numbers; {wanted}"
        )
    texts = {name: "" if value is None else str(value).strip() for name, value in given.items()}
    generated = str(int(reading["source"].startswith(GENERATED_PREFIX)))
    return texts | {"gaze": path.name, "transcript": path.name, "device": device, "generated": generated}


def _is_generated(cells: Row) -> bool:
    generated = flag(cells.get("generated") or "0")
    if generated is None:
        raise UserError(f"generated is {cells['generated']!r}; expected 1 for a picture of no patient, or 0")
    return generated


def convert_row(row: ReadingRow, table: str, source: Path, options: Options) -> list[Outcome]:
    """The reading of one row."""
    where = f"row {row.number} {row.cells['reading_id']}".strip()
    return [attempt(table, where, partial(_reading, row, source, options))]


def _reading(row: ReadingRow, source: Path, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    cells = row.cells
    reading_id = cells["reading_id"]
    if not reading_id:
        raise Dropped("no_reading_id")
    if not row.is_new:
        raise Dropped("duplicate_reading_id")
    findings = _findings(cells.get("findings", ""))
    image = encode_image(_file(source, cells["image"], "image"), options.image_size, ledger)
    frame = _frame(cells, image, source, ledger)
    fixations = _fixations(cells, source, frame, options, ledger)
    if fixations and row.earlier and _mean_the_same(row.earlier, cells, source, frame, options):
        ledger.note("recording_of_another_row", f"{reading_id}: {cells['gaze']}, as {row.earlier['reading_id']}")
    sentences = _sentences(cells, source, ledger)
    if fixations is None and not sentences:
        raise Dropped("neither_gaze_nor_words")
    _note_oddities(cells, fixations, sentences, ledger)
    device = cells.get("device", "").lower()
    if device and not _DEVICE.fullmatch(device):
        raise UserError(f"device is {device!r}; expected letters, digits, - and _, at most 40")
    origin = Origin(
        source=f"tracker{'/' if device else ''}{device}",
        generated=options.generated or _is_generated(cells),
        image_id=cells["image"],
        reading_id=reading_id,
        subject_id=cells.get("subject_id") or None,
        study_id=cells.get("study_id") or None,
        reader_id=cells.get("reader_id") or None,
        view=cells.get("view") or None,
        person=Person(cells.get("sex", ""), cells.get("age", "")),
        license=cells.get("license") or None,
        frame=(frame.width, frame.height),
    )
    recording = Recording(sentences, fixations, findings, [])
    return row.split, schema_row(origin, image, recording, ledger, Path(cells["image"]).stem)


def _frame(cells: Row, image: EncodedImage, source: Path, ledger: Ledger) -> Frame:
    size = (image.width, image.height)
    if cells.get("width") or cells.get("height"):
        width, height = (side_pixels(cells.get(side, "")) for side in ("width", "height"))
        if width is None or height is None:
            raise UserError("width and height: expected both in pixels, or neither")
        check_size(cells["image"], size, (width, height), ledger)
        size = (width, height)
    angle = _optional_number(cells, "image_width_degrees")
    if angle is not None and not 0 < angle < 180:
        raise UserError(f"image_width_degrees is {angle:g}; expected more than 0 and less than 180")
    return Frame(*size, screen=_screen(cells, source, ledger), width_degrees=angle)


def _screen(cells: Row, source: Path, ledger: Ledger) -> tuple[Shown, ...]:
    edges = _edges(cells)
    if not cells.get("screen"):
        return () if edges is None else (Shown(-math.inf, edges),)
    if edges is not None:
        raise UserError(f"{', '.join(SCREEN_EDGES)}: expected there or in {cells['screen']}, not in both")
    return _screen_table(_file(source, cells["screen"], "screen"), cells, ledger)


def _screen_table(path: Path, cells: Row, ledger: Ledger) -> tuple[Shown, ...]:
    """The places of the row's image; from the start of a row of another image, or of blank edges, it is not shown."""
    places: list[Shown] = []
    for row, told in enumerate(read_table(path, ("start_seconds", *SCREEN_EDGES), ledger, path.name), 1):
        start = number(told["start_seconds"])
        if start is None or (places and start <= places[-1].start_seconds):
            raise UserError(
                f"{path.name}: row {row}: start_seconds is {told['start_seconds']!r}; expected seconds that rise"
            )
        is_other = Path(told.get("image") or cells["image"]).stem != Path(cells["image"]).stem
        try:
            places.append(Shown(start, None if is_other else _edges(told)))
        except UserError as error:
            raise UserError(f"{path.name}: row {row}: {error}") from None
    if all(place.edges is None for place in places):
        raise UserError(f"{path.name}: {cells['image']} is never on the screen; expected a row with its edges")
    return tuple(places)


def _edges(cells: Row) -> tuple[float, float, float, float] | None:
    edges = [edge for name in SCREEN_EDGES if (edge := _optional_number(cells, name)) is not None]
    if not edges:
        return None
    if len(edges) != len(SCREEN_EDGES) or edges[0] >= edges[2] or edges[1] >= edges[3]:
        raise UserError(f"{', '.join(SCREEN_EDGES)}: expected all four, left before right and top before bottom")
    left, top, right, bottom = edges
    return left, top, right, bottom


def _fixations(cells: Row, source: Path, frame: Frame, options: Options, ledger: Ledger) -> Fixations | None:
    if not cells["gaze"]:
        return None
    pick = Pick(*_part(cells))
    return read_gaze(
        Source(
            path=_file(source, cells["gaze"], "gaze"),
            where=cells["reading_id"],
            frame=frame,
            ledger=ledger,
            coordinates=options.coordinates,
            time_unit=options.time_unit,
            is_eye=not cells.get("device"),
            origin=options.origin,
            named=named_columns(options.columns) if options.columns else (),
            pick=pick,
        )
    )


def _part(cells: Row) -> list[str]:
    """What tells which part of a file of gaze a row means."""
    return [cells.get(name, "") for name in PART]


def _mean_the_same(earlier: Row, cells: Row, source: Path, frame: Frame, options: Options) -> bool:
    """Whether two rows with one file of gaze name one part of it, or it has but one."""
    if _part(earlier) == _part(cells):
        return True
    try:
        return _fixations(cells | dict.fromkeys(PART, ""), source, frame, options, Ledger()) is not None
    except (Dropped, UserError):
        return False


def _sentences(cells: Row, source: Path, ledger: Ledger) -> list[Sentence]:
    offset = _optional_number(cells, "audio_start_seconds") or 0.0
    if abs(offset) > MAX_SECONDS:
        raise UserError(f"audio_start_seconds is {offset:g}; expected seconds on the clock of the gaze")
    if not cells.get("transcript"):
        return []
    return read_transcript(_file(source, cells["transcript"], "transcript"), offset, ledger)


def _note_oddities(cells: Row, fixations: Fixations | None, sentences: list[Sentence], ledger: Ledger) -> None:
    spans = [
        (sentence["start_seconds"], sentence["end_seconds"])
        for sentence in sentences
        if sentence["start_seconds"] is not None and sentence["end_seconds"] is not None
    ]
    apart = False
    if fixations and spans:
        ends = [start + length for start, length in zip(fixations["start"], fixations["duration"], strict=True)]
        apart = max(ends) < min(start for start, _ in spans) or max(end for _, end in spans) < fixations["start"][0]
    for reason, is_so in (
        ("no_gaze_left", fixations is None and bool(cells["gaze"])),
        ("no_gaze_file", not cells["gaze"]),
        ("no_text", not sentences),
        ("speech_and_gaze_at_different_times", apart),
        ("sentence_of_more_than_100_words", any(len(s["text"].split()) > ENDLESS_SENTENCE_WORDS for s in sentences)),
        ("no_subject_id_split_by_image", not cells.get("subject_id")),
    ):
        if is_so:
            ledger.note(reason, cells["reading_id"])


def _findings(cell: str) -> list[Finding]:
    values: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in cell.split("|"))):
        name, _, value = (part.strip() for part in entry.partition("="))
        said = label_value(value) if value else PRESENT
        if not name or said is None or values.get(name, said) != said:
            raise UserError(f"findings: {entry!r}; expected each name once, alone or with =1, =0 or =-1")
        values[name] = said
    return [Finding(name=name, value=value) for name, value in values.items()]


def _optional_number(cells: Row, name: str) -> float | None:
    """The number in a cell, None where it is blank or the table has no such column."""
    cell = cells.get(name, "")
    value = number(cell)
    if value is None and cell:
        raise UserError(f"{name} is {cell!r}; expected a number with a decimal point")
    return value


def _file(source: Path, name: str, kind: str) -> Path:
    """The file that a cell names, which must lie in the source."""
    if not name:
        raise Dropped(f"no_{kind}")
    try:
        path = inside(source, name)
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, or links in a circle
        pass
    raise Dropped(f"{kind}_missing", ascii(name[:200])[1:-1])


def _splits(cells: list[Row], path: Path, options: Options) -> list[Split]:
    """The split of every row: the table's, or a hash of the patient; an image without patient is one of its own."""
    patients = [row.get("subject_id") or f"image {row['image']}" for row in cells]
    if named := named_splits(cells, patients, path):
        return named
    hashed = hashed_splits(patients, options.seed, *GAZE_SHARES)
    return [hashed[patient] for patient in patients]
