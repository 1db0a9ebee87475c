"""SIIM-ACR Pneumothorax Segmentation: one reading an image, with the boxes of the marked regions.

`train-rle.csv` (or `stage_2_train.csv`) has a row a region, its mask as relative run lengths (`rle`) in pixels of
1024 x 1024, or -1. Kaggle's own sample has no header, a BOM and two kinds of line ends; the header's second name and
the values may begin with a blank. The masks of an image's rows are OR-ed. The schema has no masks: each connected
region (pixels that touch at a corner are connected) becomes the box around it; `rle.decode` gives a mask of the table.
Images are found by name, wherever they lie under the source: `<study>/<series>/<ImageId>.dcm`, or PNG or JPEG. The only
trace of a patient is the header of a DICOM; an image without is a patient of its own. Split 70/15/15 by a hash; of a
list of ids (`--ids`) every image is `test`, and the others are left out.
"""

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from dataset_scripts.corpora.mimic_tree import PICTURE_SUFFIXES
from dataset_scripts.corpora.rows import (
    Origin,
    labelled_reading,
    read_id_list,
    walk_pictures,
    with_rows_of_dropped,
)
from dataset_scripts.corpora.splits import LABELLED_SHARES, hashed_split
from dataset_scripts.files.paths import first_table, inside
from dataset_scripts.files.tables import drop_row, identifier
from dataset_scripts.files.texts import read_text
from dataset_scripts.images import rle
from dataset_scripts.images.boxes import clipped_box, pixel_corners
from dataset_scripts.images.dicom import person_in
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import OFFENDERS_NAMED, Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Box, Finding, Reading, Split, UserError

TABLES = ("train-rle.csv", "stage_2_train.csv", "train-rle-sample.csv")
FINDING = "Pneumothorax"
FRAME = (1024, 1024)
MAX_TABLE_BYTES = 1 << 28
LICENSE = "SIIM-ACR Pneumothorax Segmentation Challenge terms of use"
TERMS = (
    "The images are from the NIH's ChestX-ray14, the masks from radiologists of the SIIM and the STR, under the "
    f"{LICENSE}: for non-commercial research and education. Redistribute the rows only as those terms allow."
)
_ID, _MASK = "ImageId", "EncodedPixels"
_VALUE = re.compile(r"-1|[0-9 ]*")


class SiimRow(NamedTuple):
    """A line of the table; `number` counts those with a value from 1."""

    number: int
    image_id: str
    mask: str


class SiimImage(NamedTuple):
    """The rows of one image, and its files, relative to the source."""

    image_id: str
    rows: list[SiimRow]
    files: list[str]
    is_listed: bool  # in `options.ids`, if there is a list


def plan(source: Path, options: Options) -> Plan:
    """One unit an image, in the order of the table.

    Raises:
        UserError: there is no table, it is no such table, or `options.ids` has an id that it lacks.
    """
    path = first_table(source, TABLES)
    by_image: dict[str, list[SiimRow]] = {}
    shared = Ledger()
    for row in read_rows(path, shared):
        by_image.setdefault(row.image_id, []).append(row)
    files = walk_pictures(source, PICTURE_SUFFIXES, shared)
    listed = {*by_image} if options.ids is None else set(map(identifier, read_id_list(options.ids, shared)))
    if unknown := sorted(listed - by_image.keys()):
        raise UserError(f"{options.ids}: {len(unknown)} ids are not in {path}: {', '.join(unknown[:OFFENDERS_NAMED])}")
    return Plan(
        units=[
            SiimImage(name, rows, _in_order(files.get(name, [])), name in listed) for name, rows in by_image.items()
        ],
        convert=partial(convert_image, source=source, table=path.name, options=options),
        unit_name="images",
        reading_tables=(f"images of {path.name}",),
        terms=TERMS,
        shared=shared,
    )


def convert_image(unit: SiimImage, source: Path, table: str, options: Options) -> list[Outcome]:
    """The reading of one image."""
    where = unit.image_id or f"row {unit.rows[0].number}"
    outcome = attempt(f"images of {table}", where, partial(_reading, unit, source, table, options))
    return [with_rows_of_dropped(outcome, table, where, len(unit.rows))]


def read_rows(path: Path, ledger: Ledger) -> list[SiimRow]:
    """The rows of a table with or without header; those of another length are dropped and counted.

    Raises:
        UserError: too large, no text, without a row, or not two columns of ids and masks.
        OSError: it is missing or cannot be read.
    """
    lines = read_text(path, path, ledger, MAX_TABLE_BYTES).splitlines()
    cells = [
        [identifier(cell.strip().strip('"').strip()) for cell in line.split(",")] for line in lines if line.strip()
    ]
    id_at, mask_at, has_header = _columns(cells[0] if cells else [], path)
    rows = []
    for number, row in enumerate(cells[has_header:], 1):
        if len(row) == len(cells[0]):
            rows.append(SiimRow(number, row[id_at], row[mask_at]))
        else:
            drop_row(path, number, len(row), cells[0], ledger, path.name)
    if not rows:
        short = f", but {len(cells) - has_header} of another length" if len(cells) > has_header else ""
        raise UserError(f"{path}: the table has no row{short}; expected one a region or image")
    return rows


def _columns(first: list[str], path: Path) -> tuple[int, int, bool]:
    """Where ids and masks stand, and whether the first line is a header."""
    if _ID in first and _MASK in first:
        return first.index(_ID), first.index(_MASK), True
    if len(first) == 2 and first[0] != _ID and _VALUE.fullmatch(first[1]):
        return 0, 1, False
    raise UserError(
        f"{path}: begins with {','.join(first)[:80]!r}; expected the columns {_ID},{_MASK}, or rows of them"
    )


def _reading(unit: SiimImage, source: Path, table: str, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    if not unit.image_id:
        raise Dropped("no_image_id")
    if not unit.is_listed:
        raise Dropped("not_listed")
    mask = _joint_mask(unit, table, ledger)
    if not unit.files:
        raise Dropped("image_missing", f"no {unit.image_id}.dcm, .png or .jpg in the source")
    if len(unit.files) > 1:
        ledger.note("image_has_several_files", f"{unit.files[0]} is taken of {len(unit.files)}")
    path = inside(source, unit.files[0])
    image = encode_image(path, options.image_size, ledger)
    person = person_in(path)
    patient = person.id or None
    if patient is None:
        ledger.note("no_patient_id_split_by_image", unit.image_id)
    origin = Origin(
        source="siim_acr",
        license=LICENSE,
        generated=options.generated,
        image_id=unit.image_id,
        subject_id=patient,
        person=person,
        frame=FRAME,
    )
    findings = [Finding(name=FINDING, value=PRESENT if mask.any() else ABSENT)]
    key = f"image {unit.image_id}" if patient is None else patient
    split: Split = "test" if options.ids is not None else hashed_split(key, options.seed, *LABELLED_SHARES)
    return split, labelled_reading(origin, image, findings, region_boxes(mask), [], ledger)


def _joint_mask(unit: SiimImage, table: str, ledger: Ledger) -> rle.BoolArray:
    """(height, width) OR of the masks of an image's rows; a -1 beside a mask, and what is no mask, is dropped."""
    width, height = FRAME
    joint, negatives, kept = np.zeros((height, width), dtype=np.bool_), list[str](), 0
    ledger.enter(table, len(unit.rows))
    for row in unit.rows:
        where = f"row {row.number} {unit.image_id}"
        try:
            mask = rle.decode(row.mask, width, height)
        except ValueError as error:
            ledger.drop(table, "mask_not_understood", [f"{where} ({error})"])
            continue
        if row.mask == rle.NO_MASK:
            negatives.append(where)
        elif not mask.any():
            ledger.drop(table, "mask_without_area", [where])
        else:
            joint |= mask
            kept += 1
    if not kept and len(negatives) < len(unit.rows):  # what cannot be read may have been a mask: not absent
        bad = next(row for row in unit.rows if row.mask != rle.NO_MASK)
        raise Dropped("no_mask_understood", f"row {bad.number}: {bad.mask[:40]!r}")
    ledger.keep(table, kept or 1)
    surplus = negatives if kept else negatives[1:]
    ledger.drop(table, "no_mask_beside_a_mask" if kept else "duplicate_row", surplus)
    return joint


def region_boxes(mask: rle.BoolArray) -> list[Box]:
    """The boxes around the connected regions of a (height, width) mask, from top to bottom."""
    height, width = mask.shape
    regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    boxes = []
    for rows, columns in ndimage.find_objects(regions):
        corners = pixel_corners((columns.start, rows.start, columns.stop, rows.stop), width, height)
        assert corners is not None
        boxes.append(clipped_box(FINDING, corners))
    return boxes


def _in_order(files: list[str]) -> list[str]:
    """DICOM first, which knows the patient."""
    return sorted(files, key=lambda name: (not name.lower().endswith(".dcm"), name))
