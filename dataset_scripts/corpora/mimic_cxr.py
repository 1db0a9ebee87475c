"""MIMIC-CXR-JPG 2.x with the reports of MIMIC-CXR: image and report pairs without gaze.

`--source` holds the tables `mimic-cxr-2.x.x-{metadata,split,chexpert}.csv.gz` and the reports
`files/pNN/pNNNNNNNN/sNNNNNNNN.txt`; the images lie there too, or in the tree that `--images` names, as may the tables.
A row is one image; its sentences are those of the report, its findings those of the study in the CheXpert table.
The 377,110 rows stay columns until they are converted.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dataset_scripts.corpora.mimic_tree import (
    CHEXPERT_TABLE,
    METADATA_COLUMNS,
    METADATA_TABLE,
    PATIENT_COLUMNS,
    PATIENT_TABLE,
    SPLIT_TABLE,
    MimicTree,
    image_row,
    open_tree,
)
from dataset_scripts.corpora.rows import CREDENTIALED_LICENSE, Origin, mimic_license, part_or, read_findings, schema_row
from dataset_scripts.corpora.splits import GAZE_SHARES, hashed_split, split_named, splits_of_patients
from dataset_scripts.files.tables import Row, is_repeated, read_text_columns
from dataset_scripts.files.texts import read_text
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.images.sizes import check_size
from dataset_scripts.ledger import OFFENDERS_NAMED, Dropped, Ledger
from dataset_scripts.plan import LazyUnits, Options, Outcome, Plan, attempt
from dataset_scripts.schema import Finding, Reading, Recording, Split, UserError
from dataset_scripts.speech.clinical_reports import report_sentences

CHEXPERT_LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
TERMS = (
    f"The source is under the {CREDENTIALED_LICENSE}: only credentialed users who signed its data use agreement may "
    "have it. This conversion holds its images and texts and must not be redistributed, nor pushed to a public "
    "repository."
)


def plan(source: Path, options: Options) -> Plan:
    """One unit a row of the metadata, with its split and labels.

    Raises:
        UserError: there is no metadata table, a table lacks a column, or a patient lies in two splits.
    """
    tree = open_tree(source)
    images = tree if options.images is None else open_tree(options.images)
    joined, shared = _joined_tables(tree if tree.table("metadata") else images)
    return Plan(
        units=LazyUnits(range(joined.num_rows), partial(_unit, joined)),
        convert=partial(convert_row, reports=tree, images=images, options=options),
        unit_name="images",
        reading_tables=(METADATA_TABLE,),
        terms=TERMS,
        shared=shared,
        groups=joined["split"].to_pylist() if "split" in joined.column_names else (),
    )


def _unit(joined: pa.Table, place: int) -> Row:
    return {name: value or "" for name, value in joined.slice(place, 1).to_pylist()[0].items()}


def convert_row(cells: Row, reports: MimicTree, images: MimicTree, options: Options) -> list[Outcome]:
    """The reading of one image."""
    where = cells["dicom_id"] or f"an image of study {cells['study_id']}"
    return [attempt(METADATA_TABLE, where, partial(_reading, cells, reports, images, options))]


def _reading(
    cells: Row, reports: MimicTree, images: MimicTree, options: Options, ledger: Ledger
) -> tuple[Split, Reading]:
    image_id, meta = cells["dicom_id"], image_row(cells)
    if meta.subject_id is None or meta.study_id is None:
        raise Dropped("patient_or_study_unknown", f"subject_id {cells['subject_id']!r}, study_id {cells['study_id']!r}")
    if cells["is_repeated"]:
        raise Dropped("duplicate_image_id")
    path = reports.report(meta.subject_id, meta.study_id)
    if not path.is_file():
        raise Dropped("report_missing", path.name)
    sentences = report_sentences(read_text(path, path, ledger), meta.study_id, f"s{meta.study_id}.txt", ledger)
    if not sentences:
        raise Dropped("report_without_text", f"s{meta.study_id}.txt")
    split = _split(cells, meta.subject_id, options, ledger)
    image = encode_image(images.picture(meta.subject_id, meta.study_id, image_id), options.image_size, ledger)
    if meta.width and meta.height:
        check_size(image_id, (image.width, image.height), (meta.width, meta.height), ledger)
    origin = Origin(
        source="mimic_cxr",
        generated=options.generated,
        image_id=image_id,
        subject_id=meta.subject_id,
        study_id=meta.study_id,
        view=meta.view,
        person=meta.person,
        license=mimic_license(options.generated),
        frame=(meta.width or image.width, meta.height or image.height),
    )
    reading = schema_row(origin, image, Recording(sentences, None, _findings(cells, ledger), []), ledger)
    return split, reading


def _split(cells: Row, subject_id: str, options: Options, ledger: Ledger) -> Split:
    """The split of the patient; a hash only where there is no split table at all."""
    if "split" not in cells:
        ledger.note("patient_split_by_hash", f"{cells['dicom_id']}: no split table")
        return hashed_split(subject_id, options.seed, *GAZE_SHARES)
    split = split_named(cells["split"])
    if split is None:
        raise Dropped("split_unknown", f"{cells['split'] or 'not'} in the split table")
    return split


def _findings(cells: Row, ledger: Ledger) -> list[Finding]:
    """The CheXpert labels that are not blank."""
    return read_findings(
        ((name, cells.get(name, "")) for name in CHEXPERT_LABELS), f"study {cells['study_id']}", ledger
    )


def _joined_tables(tree: MimicTree) -> tuple[pa.Table, Ledger]:
    path, shared = tree.table("metadata"), Ledger()
    if path is None:
        raise UserError(f"{tree.root}: no mimic-cxr-2.x.x-metadata.csv.gz; expected it above the folder files")
    joined = read_text_columns(path, METADATA_COLUMNS, shared, METADATA_TABLE, ("StudyDate",))
    joined = joined.set_column(0, "dicom_id", pc.utf8_lower(joined["dicom_id"]))
    joined = joined.append_column("is_repeated", pc.if_else(pa.array(is_repeated(joined["dicom_id"])), "1", ""))
    if split_path := tree.table("split"):
        joined = _with_columns(joined, "dicom_id", ("split",), SPLIT_TABLE, split_path, shared)
        pairs = joined.group_by(["subject_id", "split"]).aggregate([])
        splits_of_patients(zip(*(pairs[name].to_pylist() for name in ("subject_id", "split")), strict=True), split_path)
    for part, place, key, columns, name in (
        ("patients_table", tree.patients(), "subject_id", PATIENT_COLUMNS[1:], PATIENT_TABLE),
        ("chexpert_table", tree.table("chexpert"), "study_id", CHEXPERT_LABELS, CHEXPERT_TABLE),
    ):
        read = partial(_with_columns, joined, key, columns, name)
        joined = part_or(joined, part, place or tree.root / name, str(tree.root), shared, read)
    return joined, shared


def _with_columns(
    joined: pa.Table, key: str, columns: Sequence[str], name: str, path: Path, shared: Ledger
) -> pa.Table:
    """`columns` of the first row of a table with the same key, blank where there is none; the rest is counted."""
    other = read_text_columns(path, (key, *columns), shared, name)
    positions = pc.index_in(joined[key], value_set=pc.utf8_lower(other[key]).combine_chunks())
    for column in columns:
        joined = joined.append_column(column, pc.fill_null(other[column].take(positions), ""))
    used = set(pc.unique(positions).drop_null().to_pylist())
    unused = [index for index in range(other.num_rows) if index not in used]
    shared.enter(name, other.num_rows)
    shared.keep(name, len(used))
    first = [f"row {index + 1} {other[key][index].as_py()}" for index in unused[:OFFENDERS_NAMED]]
    shared.drop(name, "repeated_or_not_in_metadata", first, len(unused))
    return joined
