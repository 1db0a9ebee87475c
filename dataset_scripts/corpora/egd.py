"""EGD, "Eye Gaze" (PhysioNet `egd-cxr` 1.0.0): one radiologist's gaze and dictation on 1,083 images of MIMIC-CXR.

The release holds no image: `--images` names a MIMIC-CXR-JPG or MIMIC-CXR tree, whose tables, where they are there, give
the sizes that gaze refers to and the splits.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.corpora import egd_tables
from dataset_scripts.corpora.mimic_tree import ImageRow, MimicTree, image_rows, image_splits, images_tree, study_ids
from dataset_scripts.corpora.rows import CREDENTIALED_LICENSE, Origin, gaze_reading
from dataset_scripts.corpora.splits import GAZE_SHARES, hashed_split, splits_of_patients
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan
from dataset_scripts.schema import Reading, Split

TERMS = (
    f"Gaze, dictations and the images of MIMIC-CXR are under the {CREDENTIALED_LICENSE}: only credentialed users who "
    "signed the data use agreements may have them. This conversion must not be redistributed, nor pushed to a public "
    "repository. Where the split is a hash of the patient (see the notes of the conversion report), it is not that of "
    "REFLACX or of MIMIC-CXR: do not mix the corpora then."
)


class EgdUnit(NamedTuple):
    """One row with what is known of its image."""

    row: egd_tables.EgdRow
    image: ImageRow
    split: Split | None


def plan(source: Path, options: Options) -> Plan:
    """One unit a row of the master sheet.

    Raises:
        UserError: the source lacks a table, `--images` is no MIMIC-CXR tree, or a patient lies in two splits.
    """
    tree, shared = images_tree(options, "egd"), Ledger()
    tables = egd_tables.read_tables(source, egd_tables.read_master(source, shared), shared)
    rows = list(egd_tables.source_rows(tables))
    ids = {row.image_id for row in rows}
    images, by_image = image_rows(tree, ids, shared), image_splits(tree, ids, shared)
    named = ((study_ids(row.cells)[0], by_image.get(row.image_id)) for row in rows)
    splits: dict[str, Split] = splits_of_patients(named, tree.root)
    return Plan(
        units=[EgdUnit(row, images[row.image_id], splits.get(study_ids(row.cells)[0] or "")) for row in rows],
        convert=partial(convert_unit, source=source, tree=tree, options=options),
        unit_name="images",
        reading_tables=(egd_tables.MASTER_TABLE,),
        terms=TERMS,
        shared=shared,
    )


def convert_unit(unit: EgdUnit, source: Path, tree: MimicTree, options: Options) -> list[Outcome]:
    """The outcome of one row of the master sheet."""
    return [egd_tables.convert_row(unit.row, partial(_reading, unit, source, tree, options))]


def _reading(unit: EgdUnit, source: Path, tree: MimicTree, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    row = unit.row
    subject_id, study_id = study_ids(row.cells)
    if subject_id is None or study_id is None:
        raise Dropped("patient_or_study_unknown", "neither patient_id and study_id nor path say them")
    image = encode_image(tree.picture(subject_id, study_id, row.image_id), options.image_size, ledger)
    width, height = unit.image.width, unit.image.height
    size = (width, height) if width and height else (image.width, image.height)
    if not (width and height):
        ledger.note("frame_size_from_the_picture", f"{row.image_id}: no Rows and Columns in a metadata table")
    origin = Origin(
        reading_id=row.image_id,
        image_id=row.image_id,
        study_id=study_id,
        subject_id=subject_id,
        view=unit.image.view,
        person=Person(row.cells.get("gender", ""), unit.image.person.age),
        frame=size,
        source="egd",
        generated=options.generated,
    )
    recording = egd_tables.read_recording(row, source, size, ledger)
    if unit.split is None:
        ledger.note("patient_split_by_hash", f"{row.image_id}: no split table names its patient")
    split = unit.split or hashed_split(subject_id, options.seed, *GAZE_SHARES)
    return split, gaze_reading(origin, image, recording, tree.report(subject_id, study_id), ledger)
