"""REFLACX (PhysioNet `reflacx-xray-localization` 1.0.0): five radiologists' gaze and dictations on images of MIMIC-CXR.

`main_data/metadata_phase_{1,2,3}.csv` lists the readings; images of the phases 1 and 2 have several. The release holds
no image: `--images` names a MIMIC-CXR-JPG or MIMIC-CXR tree. The column `split` decides.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.corpora import reflacx_tables
from dataset_scripts.corpora.mimic_tree import ImageRow, MimicTree, image_rows, image_splits, images_tree, study_ids
from dataset_scripts.corpora.rows import CREDENTIALED_LICENSE, Origin, gaze_reading
from dataset_scripts.corpora.splits import split_named, splits_of_patients
from dataset_scripts.files.paths import table_inside
from dataset_scripts.files.tables import Row
from dataset_scripts.images.pictures import EncodedImage, encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import Reading, Split, UserError

PHASE_TABLES = tuple(f"main_data/metadata_phase_{phase}.csv" for phase in (1, 2, 3))
TERMS = (
    "The gaze and the dictations are under the PhysioNet Restricted Health Data License 1.5.0, the images of MIMIC-CXR "
    f"under the {CREDENTIALED_LICENSE}: only users who signed both data use agreements may have them. This conversion "
    "must not be redistributed, nor pushed to a public repository."
)


class ReflacxRow(NamedTuple):
    """A row of one of the metadata tables, `number` counting from 1; not new when an earlier row has its id."""

    table: str
    number: int
    cells: Row
    is_new: bool


class ReflacxUnit(NamedTuple):
    """All rows of one image, and what a metadata and a split table of the images say of it."""

    rows: list[ReflacxRow]
    image: ImageRow
    split: Split | None


def plan(source: Path, options: Options) -> Plan:
    """One unit an image, in the order of the metadata tables.

    Raises:
        UserError: there is no metadata table, `--images` is no MIMIC-CXR tree, or a patient lies in two splits.
    """
    tree = images_tree(options, "reflacx")
    paths = {name: table_inside(source, name) for name in PHASE_TABLES}
    missing = tuple(name for name, path in paths.items() if not path.is_file())
    if len(missing) == len(PHASE_TABLES):
        raise UserError(f"{source}: none of {', '.join(PHASE_TABLES)}; expected the folder that holds main_data")
    by_image: dict[str, list[ReflacxRow]] = {}
    shared = Ledger()
    for row in _rows({name: path for name, path in paths.items() if name not in missing}, shared):
        by_image.setdefault(row.cells["dicom_id"].lower(), []).append(row)
    rows = [row.cells for rows in by_image.values() for row in rows]
    splits_of_patients(((study_ids(cells)[0], split_named(cells["split"])) for cells in rows), source)
    images, splits = image_rows(tree, by_image.keys(), shared), image_splits(tree, by_image.keys(), shared)
    for name in missing:
        shared.note("metadata_table_missing", name)
    return Plan(
        units=[ReflacxUnit(rows, images[image_id], splits.get(image_id)) for image_id, rows in by_image.items()],
        convert=partial(convert_image, source=source, tree=tree, options=options),
        unit_name="images",
        reading_tables=tuple(name for name in PHASE_TABLES if name not in missing),
        terms=TERMS,
        shared=shared,
    )


def convert_image(unit: ReflacxUnit, source: Path, tree: MimicTree, options: Options) -> list[Outcome]:
    """The readings of one image, in the order of the metadata tables."""
    decoded: list[EncodedImage] = []
    read = partial(_reading, unit=unit, decoded=decoded, source=source, tree=tree, options=options)
    return [attempt(row.table, row.cells["id"] or f"row {row.number}", partial(read, row)) for row in unit.rows]


def _rows(paths: dict[str, Path], ledger: Ledger) -> list[ReflacxRow]:
    rows, met = [], set[str]()
    for table, path in paths.items():
        for number, cells in enumerate(reflacx_tables.read_metadata(path, ledger, table, ("split",)), 1):
            rows.append(ReflacxRow(table, number, cells, cells["id"] not in met))
            met.add(cells["id"])
    return rows


def _reading(
    row: ReflacxRow,
    ledger: Ledger,
    *,
    unit: ReflacxUnit,
    decoded: list[EncodedImage],
    source: Path,
    tree: MimicTree,
    options: Options,
) -> tuple[Split, Reading]:
    """`decoded` holds the picture as soon as a reading of it has come so far."""
    cells, image_id = row.cells, row.cells["dicom_id"].lower()
    folder = reflacx_tables.reading_folder(source, cells)
    if not row.is_new:
        raise Dropped("duplicate_reading_id")
    split, (subject_id, study_id) = split_named(cells["split"]), study_ids(cells)
    if split is None:
        raise Dropped("split_unknown", f"split {cells['split']!r}; expected train, validate or test")
    subject_id, study_id = subject_id or unit.image.subject_id, study_id or unit.image.study_id
    if subject_id is None or study_id is None:
        raise Dropped("patient_or_study_unknown", "neither the column image nor a metadata table of the images")
    if unit.split not in (None, split):
        ledger.note("split_is_not_that_of_mimic_cxr", f"{cells['id']}: {split}, MIMIC-CXR {unit.split}")
    size = reflacx_tables.image_size(cells)
    if not decoded:
        decoded.append(encode_image(tree.picture(subject_id, study_id, image_id), options.image_size, ledger))
    origin = Origin(
        reading_id=cells["id"],
        image_id=image_id,
        study_id=study_id,
        subject_id=subject_id,
        view=unit.image.view,
        person=unit.image.person,
        frame=size,
        source="reflacx",
        generated=options.generated,
    )
    recording = reflacx_tables.read_recording(folder, cells, ledger)
    return split, gaze_reading(origin, decoded[0], recording, tree.report(subject_id, study_id), ledger)
