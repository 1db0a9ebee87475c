"""What the evaluation sets share: labelled pictures without gaze, of which one row of the schema is made each."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.boxes import clipped_box, pixel_corners
from dataset_scripts.conversion import Dropped, Outcome
from dataset_scripts.images import EncodedImage, inside
from dataset_scripts.mimic_images import check_size, plain_name
from dataset_scripts.report import Ledger
from dataset_scripts.schema import Box, Finding, Reading, Sentence, UserError
from dataset_scripts.tables import Row, number, portable_path

HASHED_TRAIN, HASHED_VALIDATION = 0.7, 0.15


class NumberedRow(NamedTuple):
    """A row of a table, `number` counting from 1."""

    number: int
    cells: Row


class Origin(NamedTuple):
    """Where a row comes from. `frame` is the width and height in pixels that boxes refer to, None: the picture's."""

    source: str
    license: str
    generated: bool
    image_id: str
    reading_id: str
    study_id: str | None
    subject_id: str | None
    view: str | None
    frame: tuple[int, int] | None


def labelled_reading(
    origin: Origin,
    image: EncodedImage,
    findings: list[Finding],
    boxes: list[Box],
    sentences: list[Sentence],
    ledger: Ledger,
) -> Reading:
    """The row of one picture."""
    width, height = origin.frame or (image.width, image.height)
    check_size(origin.image_id, (image.width, image.height), (width, height), ledger)
    name = origin.image_id.replace("/", "_").removesuffix(".jpg").removesuffix(".png")
    return Reading(
        image={"bytes": image.png, "path": f"{name}.png"},
        image_id=origin.image_id,
        study_id=origin.study_id,
        subject_id=origin.subject_id,
        reading_id=origin.reading_id,
        reader_id=None,
        source=f"phantom/{origin.source}" if origin.generated else origin.source,
        view=origin.view,
        license=origin.license,
        width=width,
        height=height,
        sentences=sentences,
        fixations=None,
        findings=findings,
        boxes=boxes,
    )


def sized_boxes(
    rows: Sequence[tuple[str, NumberedRow]],
    columns: tuple[str, str, str, str],
    frame: tuple[int, int],
    table: str,
    image_id: str,
    ledger: Ledger,
) -> list[Box]:
    """The boxes of the rows, each with its label, cut at the edges of the image; every row is accounted for.

    Args:
        columns: of left, top, width and height in pixels.
        frame: width and height in pixels.
    """
    boxes: list[Box] = []
    ledger.enter(table, len(rows))
    for label, row in rows:
        where = f"row {row.number} {image_id}"
        left, top, width, height = (number(row.cells[name]) for name in columns)
        corners = None
        if left is not None and top is not None and width is not None and height is not None:
            corners = pixel_corners((left, top, left + width, top + height), *frame)
        if corners is None:
            ledger.drop(table, "box_off_the_image_or_without_area", [where])
            continue
        box = clipped_box(label, corners)
        if box in boxes:
            ledger.drop(table, "duplicate_box", [where])
            continue
        if corners != (box["x_min"], box["y_min"], box["x_max"], box["y_max"]):
            ledger.note("box_clipped_to_the_image", where)
        ledger.keep(table, 1)
        boxes.append(box)
    return boxes


def with_rows_of_dropped(outcome: Outcome, table: str, where: str, rows: int) -> Outcome:
    """Count the `rows` rows of a table that was read as a whole, where the reading that they are for is dropped."""
    if outcome.reading is None:
        outcome.ledger.enter(table, rows)
        outcome.ledger.drop(table, "reading_dropped", [where], rows)
    return outcome


def read_id_list(path: Path) -> list[str]:
    """The ids in a text file, one a line; blank lines are passed over.

    Raises:
        UserError: missing, not UTF-8, or without an id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError:
        raise UserError(f"{path}: no such file; expected a text file of image ids, one a line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected a UTF-8 text file of image ids, one a line ({error})") from None
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


def walk_pictures(root: Path, suffixes: Sequence[str]) -> dict[str, list[str]]:
    """Paths relative to `root` of all pictures, by their names without suffix.

    Folders that are links are passed by, and paths that cannot be printed.
    """
    found: dict[str, list[str]] = {}
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and str(path).isprintable():
                found.setdefault(path.stem, []).append(str(path.relative_to(root)))
    return found
