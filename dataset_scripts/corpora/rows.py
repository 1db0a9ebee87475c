"""How a reading of any corpus becomes one row of the schema, and what evaluation sets share on the way there."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Never, TypeVar

from dataset_scripts.files.paths import inside, plain_name
from dataset_scripts.files.tables import Row, label_value, number, portable_path, read_table
from dataset_scripts.files.texts import read_text
from dataset_scripts.images.boxes import clipped_box, pixel_corners
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import EncodedImage
from dataset_scripts.images.sizes import check_size
from dataset_scripts.ledger import NO_GAZE_LEFT, Dropped, Impossible, Ledger
from dataset_scripts.plan import Outcome, attempt
from dataset_scripts.schema import GENERATED_PREFIX, Box, Finding, Reading, Recording, Sentence, UserError
from dataset_scripts.speech.clinical_reports import report_sentences

CREDENTIALED_LICENSE = "PhysioNet Credentialed Health Data License 1.5.0"
GENERATED_LICENSE = "Apache-2.0"
ENDLESS_SENTENCE_WORDS = 100
SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
AGES_IN_A_YEAR = {"Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}  # DICOM's age strings, PS3.5 6.2
OLDEST_YEARS = 120


Part = TypeVar("Part")
Corners = tuple[float, float, float, float]


class NumberedRow(NamedTuple):
    """A row of a table, `number` counting from 1."""

    number: int
    cells: Row


class Origin(NamedTuple):
    """Where a reading comes from; `frame` is the width and height in pixels that gaze and boxes refer to.

    Without a frame they refer to the picture's own size.
    """

    source: str
    generated: bool
    image_id: str
    reading_id: str = ""  # the image's, where nothing is said
    subject_id: str | None = None
    study_id: str | None = None
    reader_id: str | None = None
    view: str | None = None
    person: Person = Person()
    license: str | None = None
    frame: tuple[int, int] | None = None


def schema_row(
    origin: Origin, image: EncodedImage | None, recording: Recording, ledger: Ledger, file_name: str | None = None
) -> Reading:
    """The row of one reading.

    Args:
        image: None of gaze alone, whose origin has a frame.
        file_name: of the picture, without suffix; None: made of its id.
    """
    size = origin.frame or (image and (image.width, image.height))
    assert size is not None
    name = file_name or origin.image_id.replace("/", "_").removesuffix(".jpg").removesuffix(".png")
    return Reading(
        image={"bytes": image.png, "path": f"{name}.png"} if image else None,
        image_id=origin.image_id,
        study_id=origin.study_id,
        subject_id=origin.subject_id,
        reading_id=origin.reading_id or origin.image_id,
        reader_id=origin.reader_id,
        source=f"{GENERATED_PREFIX if origin.generated else ''}{origin.source}",
        view=origin.view,
        sex=_sex(origin, ledger),
        age_years=_age_years(origin, ledger),
        license=origin.license,
        width=size[0],
        height=size[1],
        sentences=recording.sentences,
        fixations=recording.fixations,
        findings=recording.findings,
        boxes=recording.boxes,
    )


def _sex(origin: Origin, ledger: Ledger) -> str | None:
    given = origin.person.sex
    sex = SEXES.get(given.lower())
    if given and sex is None:
        ledger.note("sex_not_understood", f"{origin.image_id}: {given!r}")
    return sex


def _age_years(origin: Origin, ledger: Ledger) -> float | None:
    """Of 63, 63.0 and, as DICOM writes it, 063Y or 006M; what nobody's age is, such as 0 for unknown, is noted."""
    age = origin.person.age
    unit = age[-1:].upper()
    in_unit = number(age[:-1] if unit in AGES_IN_A_YEAR else age)
    years = None if in_unit is None else in_unit / AGES_IN_A_YEAR.get(unit, 1)
    if years is not None and 0 < years <= OLDEST_YEARS:
        return years
    if age:
        ledger.note("age_not_possible", f"{origin.image_id}: {age!r}")
    return None


def gaze_reading(origin: Origin, image: EncodedImage, recording: Recording, report: Path, ledger: Ledger) -> Reading:
    """The row of one recording; the written report, where there is one, stands in for an empty transcript.

    Generated readings name the corpus that they imitate, and are free.
    """
    size = (image.width, image.height)
    check_size(origin.image_id, size, origin.frame or size, ledger)
    if recording.fixations is None:
        ledger.note(NO_GAZE_LEFT, origin.reading_id)
    sentences = recording.sentences or _report_sentences(report, origin, ledger)
    if any(len(sentence["text"].split()) > ENDLESS_SENTENCE_WORDS for sentence in sentences):
        ledger.note("sentence_of_more_than_100_words", origin.reading_id)
    source = origin.source.rpartition("/")[2] if origin.generated else origin.source
    origin = origin._replace(source=source, license=mimic_license(origin.generated))
    return schema_row(origin, image, recording._replace(sentences=sentences), ledger)


def labelled_reading(
    origin: Origin,
    image: EncodedImage,
    findings: list[Finding],
    boxes: list[Box],
    sentences: list[Sentence],
    ledger: Ledger,
) -> Reading:
    """The row of one picture of an evaluation set."""
    size = (image.width, image.height)
    check_size(origin.image_id, size, origin.frame or size, ledger)
    return schema_row(origin, image, Recording(sentences, None, findings, boxes), ledger)


def mimic_license(generated: bool) -> str:
    return GENERATED_LICENSE if generated else CREDENTIALED_LICENSE


def _report_sentences(path: Path, origin: Origin, ledger: Ledger) -> list[Sentence]:
    report = part_or("", "report", path, origin.reading_id, ledger, lambda path, said: read_text(path, path, said))
    sentences = report_sentences(report, origin.study_id, origin.reading_id, ledger)
    ledger.note("text_from_written_report" if sentences else "no_text", origin.reading_id)
    return sentences


def unreadable(table: str, error: UserError | OSError) -> Outcome:
    """A table that cannot be read at all: nobody knows its rows, so it counts as one, dropped."""

    def fail(_: Ledger) -> Never:
        raise error

    return attempt(table, table, fail)


def part_or(
    lost: Part, part: str, path: Path, where: str, ledger: Ledger, read: Callable[[Path, Ledger], Part]
) -> Part:
    """What `read` makes of the file of a part of a reading, or of one table of many; where it cannot, `lost`, as noted.

    Args:
        part: what the notes call it.
        where: what to call the reading.
    """
    counted = Ledger()
    try:
        if not path.exists():
            ledger.note(f"{part}_missing", where)
            return lost
        found = read(path, counted)
    except Impossible:
        raise
    except (UserError, OSError) as error:
        told = str(error) if path.name in str(error) else f"{path.name}: {error}"
        ledger.note(f"{part}_not_{'understood' if isinstance(error, UserError) else 'readable'}", f"{where}: {told}")
        return lost
    ledger.merge(counted)
    return found


def read_findings(
    cells: Iterable[tuple[str, str]],
    where: str,
    ledger: Ledger,
    value_of: Callable[[str, str], int | None] = lambda _, cell: label_value(cell),
) -> list[Finding]:
    """The labels whose cells are not blank, by their names; of two cells with one name the first that says something.

    Args:
        value_of: PRESENT, ABSENT or UNCERTAIN for a name and its cell, None for a cell that says none of them.
    """
    values: dict[str, int] = {}
    for name, cell in cells:
        if not cell or name in values:
            continue
        value = value_of(name, cell)
        if value is None:
            ledger.note("label_not_understood", f"{where} {name}: {cell!r}")
        else:
            values[name] = value
    return [Finding(name=name, value=value) for name, value in values.items()]


def rows_by_id(rows: Iterable[Row], key: str, ledger: Ledger, table: str) -> dict[str, Row]:
    """The row of each id, in lower case; an id whose rows differ has none, for nobody knows which is right."""
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(row[key].lower(), []).append(row)
    for name, found in by_id.items():
        is_one = all(row == found[0] for row in found)
        ledger.enter(table, len(found))
        ledger.keep(table, int(is_one))
        reason = "duplicate_row" if is_one else "rows_of_one_id_differ"
        ledger.drop(table, reason, [name], len(found) - is_one)
    return {name: found[0] for name, found in by_id.items() if all(row == found[0] for row in found)}


def kept_boxes(told: Iterable[tuple[str, str, Corners | None]], table: str, ledger: Ledger) -> list[Box]:
    """Boxes cut at the edges of the image, of label, place in the source and corners as fractions; each is counted.

    Corners are None of a box without area or beside the image.
    """
    boxes: list[Box] = []
    ledger.enter(table, 0)
    for label, where, corners in told:
        ledger.enter(table, 1)
        box = None if corners is None else clipped_box(label, corners)
        if box is None or box in boxes:
            ledger.drop(table, "duplicate_box" if box else "no_area_in_image", [where])
            continue
        if corners != (box["x_min"], box["y_min"], box["x_max"], box["y_max"]):
            ledger.note("box_clipped_to_the_image", where)
        ledger.keep(table, 1)
        boxes.append(box)
    return boxes


def sized_boxes(
    rows: Sequence[tuple[str, NumberedRow]],
    columns: tuple[str, str, str, str],
    frame: tuple[int, int],
    table: str,
    image_id: str,
    ledger: Ledger,
) -> list[Box]:
    """`kept_boxes` of labels and rows whose `columns` are left, top, width and height in pixels of the frame."""

    def corners(cells: Row) -> Corners | None:
        left, top, width, height = (number(cells[name]) for name in columns)
        if left is None or top is None or width is None or height is None:
            return None
        return pixel_corners((left, top, left + width, top + height), *frame)

    told = ((label, f"row {row.number} {image_id}", corners(row.cells)) for label, row in rows)
    return kept_boxes(told, table, ledger)


def with_rows_of_dropped(outcome: Outcome, table: str, where: str, rows: int) -> Outcome:
    """Count the `rows` rows of a table that was read as a whole, where the reading that they are for is dropped."""
    if outcome.reading is None:
        outcome.ledger.enter(table, rows)
        outcome.ledger.drop(table, "reading_dropped", [where], rows)
    return outcome


def read_lookup(
    path: Path, columns: Sequence[str], part: str, where: str, ledger: Ledger, table: str, optional: Sequence[str] = ()
) -> dict[str, Row]:
    """These columns of a table of one folder of many, by the id in the first; arguments as `part_or` has them."""

    def read(path: Path, counted: Ledger) -> dict[str, Row]:
        rows = read_table(path, columns, counted, table)
        used = [name for name in (*columns, *optional) if name in next(iter(rows), {})]
        return rows_by_id(({name: row[name] for name in used} for row in rows), columns[0], counted, table)

    return part_or({}, part, path, where, ledger, read)


def read_id_list(path: Path, ledger: Ledger) -> list[str]:
    """The ids in a text file, one a line; blank lines are passed over.

    Raises:
        UserError: missing, no text, or without an id.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a text file of image ids, one a line")
    lines = read_text(path, path, ledger).splitlines()
    ids = [portable_path(line.strip()) for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: names no image; expected a text file of image ids, one a line")
    return ids


def picture_in(root: Path, folders: Sequence[str], image_id: str, suffixes: Sequence[str] = ("",)) -> Path:
    """The file of an image in one of the folders (relative to `root`), the first that has it.

    Raises:
        Dropped: none has it, or it leads out of `root`.
    """
    name = plain_name(image_id)
    for folder in folders:
        for suffix in suffixes:
            path = inside(root, str(Path(folder) / f"{name}{suffix}"))
            if path.is_file():
                return path
    raise Dropped("image_missing", f"{name}{suffixes[0]} in {', '.join(folders) or root.name}")


def walk_pictures(root: Path, suffixes: Sequence[str], ledger: Ledger) -> dict[str, list[str]]:
    """Paths relative to `root` of all pictures, by their names without suffix.

    Folders that are links are passed by, and paths that cannot be printed; those that cannot be read are noted.
    """
    found: dict[str, list[str]] = {}
    walk = os.walk(root, onerror=lambda error: ledger.note("folder_not_readable", str(error)), followlinks=False)
    for folder, _, names in walk:
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and str(path).isprintable():
                found.setdefault(path.stem, []).append(str(path.relative_to(root)))
    return found
