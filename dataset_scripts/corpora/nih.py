"""NIH ChestX-ray14: labels of 112,120 images, and boxes of some 880 of them.

`Data_Entry_2017_v2020.csv` has a row an image, `BBox_List_2017.csv` a row a box, in pixels of 1024 x 1024 whatever the
size of the copy. An image's labels are complete: of the 14 and "No Finding" those that are not named are absent. The
corpus's own split decides: `test_list.txt` is `test`, the patients of `train_val_list.txt` are split 7 : 1 into `train`
and `validation` by a hash; without both lists all are split 70/10/20. Images lie in `images*/` or `images*/images/`.
"""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.corpora.rows import (
    NumberedRow,
    Origin,
    labelled_reading,
    part_or,
    picture_in,
    read_id_list,
    sized_boxes,
    with_rows_of_dropped,
)
from dataset_scripts.corpora.splits import hashed_split, splits_of_patients
from dataset_scripts.files.paths import first_table, table_inside
from dataset_scripts.files.tables import Row, is_repeated, read_table, read_text_columns
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import LazyUnits, Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Finding, Reading, Split, UserError

ENTRY_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_TABLE, TRAIN_LIST, TEST_LIST = "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"
ENTRY_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")  # the comma of "Bbox [x,y,w,h]" is the table's own
NO_FINDING = "No Finding"
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia"),
    *("Infiltration", "Mass", NO_FINDING, "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
IMAGE_FOLDERS = ("images*", "images*/images", "train_data*", "test_data*", "t*_data*/t*")
BOX_SPELLINGS = {"Infiltrate": "Infiltration"}
FRAME = (1024, 1024)
TRAIN_OF_LISTED, TRAIN, VALIDATION = 7 / 8, 0.7, 0.1
LICENSE = "NIH Clinical Center: unrestricted use with acknowledgement"
TERMS = (
    "The NIH Clinical Center lets anyone use the images, and asks to link to its download site, to cite Wang et al., "
    "CVPR 2017, and to name it as the provider. Its terms say nothing about passing on a converted copy."
)


class Annotations(NamedTuple):
    """Labels and boxes on the NIH's images: what the corpus, its tables and its labels are called."""

    source: str
    table: str
    box_table: str = BOX_TABLE
    labels: tuple[str, ...] = LABELS


class NihUnit(NamedTuple):
    """A row of the table of entries, the boxes of its image, and its split, None where only a hash can tell."""

    row: NumberedRow
    is_repeated: bool
    boxes: list[NumberedRow]
    listed_in: str | None


class _Lists(NamedTuple):
    """The images of the two lists; None where the source has no lists."""

    train: frozenset[str]
    test: frozenset[str]

    def which(self, image_id: str) -> str:
        return TEST_LIST if image_id in self.test else TRAIN_LIST if image_id in self.train else ""


def plan(source: Path, options: Options) -> Plan:
    """One unit an image, in the order of the table.

    Raises:
        UserError: a table or list is missing or not what it should be, or a patient or an image is in both lists.
    """
    path = first_table(source, ENTRY_TABLES)
    shared = Ledger()
    entries = read_text_columns(path, ENTRY_COLUMNS, shared, path.name, ("Patient Gender", "Patient Age"))
    lists = _lists(source, shared)
    if lists is not None:
        patients, images = (entries[name].to_pylist() for name in ("Patient ID", "Image Index"))
        splits_of_patients(zip(patients, map(lists.which, images), strict=True), path)
    repeated = is_repeated(entries["Image Index"])
    read = partial(_boxes, images=set(entries["Image Index"].to_pylist()))
    boxes = part_or(dict[str, list[NumberedRow]](), "boxes", table_inside(source, BOX_TABLE), BOX_TABLE, shared, read)
    if lists is None:
        shared.note("no_lists_patients_split_by_hash", f"{TRAIN_LIST}, {TEST_LIST}")

    def unit(place: int) -> NihUnit:
        cells: Row = entries.slice(place, 1).to_pylist()[0]
        name, later = cells["Image Index"], bool(repeated[place])
        row = NumberedRow(place + 1, cells)
        return NihUnit(row, later, [] if later else boxes.get(name, []), lists and lists.which(name))

    return Plan(
        units=LazyUnits(range(entries.num_rows), unit),
        convert=partial(convert_row, root=source, of=Annotations("nih", path.name), options=options),
        unit_name="images",
        reading_tables=(path.name,),
        terms=TERMS,
        shared=shared,
    )


def convert_row(unit: NihUnit, root: Path, of: Annotations, options: Options) -> list[Outcome]:
    """The reading of one image; `root` holds the folders of images."""
    where = f"row {unit.row.number} {unit.row.cells['Image Index']}"
    outcome = attempt(of.table, where, partial(_reading, unit, root, of, options))
    return [with_rows_of_dropped(outcome, of.box_table, where, len(unit.boxes))]


def _reading(unit: NihUnit, root: Path, of: Annotations, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    cells = unit.row.cells
    image_id, patient = cells["Image Index"], cells["Patient ID"]
    if unit.is_repeated:
        raise Dropped("duplicate_image_id")
    if not patient:
        raise Dropped("patient_unknown")
    findings = _findings(cells["Finding Labels"], of.labels)
    split = _split(unit.listed_in, patient, options.seed)
    image = encode_image(picture_in(root, _image_folders(root), image_id), options.image_size, ledger)
    origin = Origin(
        source=of.source,
        license=LICENSE,
        generated=options.generated,
        image_id=image_id,
        subject_id=patient,
        view=cells.get("View Position") or None,
        person=Person(cells.get("Patient Gender", ""), cells.get("Patient Age", "")),
        frame=FRAME,
    )
    marked = [(_box_label(row.cells), row) for row in unit.boxes]
    boxes = sized_boxes(marked, BOX_COLUMNS, FRAME, of.box_table, image_id, ledger)
    present = {finding["name"] for finding in findings if finding["value"] == PRESENT}
    for label in sorted({box["label"] for box in boxes} - present):
        ledger.note("box_of_a_finding_that_is_not_named", f"{image_id}: {label}")
    return split, labelled_reading(origin, image, findings, boxes, [], ledger)


def _split(listed_in: str | None, patient: str, seed: int) -> Split:
    if listed_in is None:
        return hashed_split(patient, seed, TRAIN, VALIDATION)
    if not listed_in:
        raise Dropped("in_neither_list", f"neither {TRAIN_LIST} nor {TEST_LIST}")
    return "test" if listed_in == TEST_LIST else hashed_split(patient, seed, TRAIN_OF_LISTED, 1 - TRAIN_OF_LISTED)


def _findings(cell: str, labels: Sequence[str]) -> list[Finding]:
    """All labels, present or absent."""
    named = {name.strip() for name in cell.split("|") if name.strip()}
    if not named:
        raise Dropped("no_label")
    if unknown := sorted(named.difference(labels, (NO_FINDING,))):
        raise Dropped("label_not_understood", ", ".join(unknown))
    if NO_FINDING in named and len(named) > 1:
        raise Dropped("no_finding_beside_a_finding", cell)
    return [Finding(name=name, value=PRESENT if name in named else ABSENT) for name in labels]


def _box_label(cells: Row) -> str:
    return BOX_SPELLINGS.get(cells["Finding Label"], cells["Finding Label"])


def _boxes(path: Path, shared: Ledger, images: Collection[str]) -> dict[str, list[NumberedRow]]:
    """The rows of each image; those of no image or no label are dropped."""
    boxes: dict[str, list[NumberedRow]] = {}
    rows = read_table(path, ("Image Index", "Finding Label", *BOX_COLUMNS), shared, BOX_TABLE)
    for row_number, cells in enumerate(rows, 1):
        name = cells["Image Index"]
        if name in images and _box_label(cells) in LABELS:
            boxes.setdefault(name, []).append(NumberedRow(row_number, cells))
            continue
        shared.enter(BOX_TABLE, 1)
        reason = "label_not_understood" if name in images else "image_without_entry"
        shared.drop(BOX_TABLE, reason, [f"row {row_number} {name} {cells['Finding Label']}"])
    return boxes


def _lists(source: Path, ledger: Ledger) -> _Lists | None:
    paths = {name: table_inside(source, name) for name in (TRAIN_LIST, TEST_LIST)}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        raise UserError(f"{source}: has no {missing[0]}; expected both {TRAIN_LIST} and {TEST_LIST}, or neither")
    lists = _Lists(*(frozenset(read_id_list(path, ledger)) for path in paths.values()))
    if both := lists.train & lists.test:
        raise UserError(f"{paths[TEST_LIST]}: {min(both)} is in {TRAIN_LIST} too; expected each image in one list")
    return lists


def _image_folders(source: Path) -> list[str]:
    """Folders that may hold images, relative to the source."""
    found = [path for name in IMAGE_FOLDERS for path in sorted(source.glob(name))]
    return [str(path.relative_to(source)) for path in found if path.is_dir()]
