"""RSNA Pneumonia Detection Challenge, stage 2: one reading a patient, with the boxes of the opacities.

`stage_2_train_labels.csv` has a row a box, and one for a patient without; `stage_2_detailed_class_info.csv` says what
the others are. Findings: Pneumonia (the column Target), and the three detailed classes, of which each patient has one.
A patient without pneumonia need not be normal, so there is no finding "No Finding"; "Normal" says it where it is true.
Patients are split 70/15/15 by a hash of `patientId`, of which each has one image: whether two are of one person is said
in RSNA's mapping to the NIH's ids only. The challenge's own test set has no labels here. The boxes are in pixels of
1024 x 1024, whatever the size of the copy. Images: `stage_2_train_images/<patientId>.dcm`, or PNG or JPEG.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.corpora.mimic_tree import PICTURE_SUFFIXES
from dataset_scripts.corpora.rows import (
    NumberedRow,
    Origin,
    labelled_reading,
    part_or,
    picture_in,
    sized_boxes,
    with_rows_of_dropped,
)
from dataset_scripts.corpora.splits import LABELLED_SHARES, hashed_split
from dataset_scripts.files.paths import table_inside
from dataset_scripts.files.tables import label_value, read_table
from dataset_scripts.images.dicom import person_in
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Finding, Reading, Split, UserError

LABELS_TABLE, CLASSES_TABLE = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
PATIENTS = f"patients of {LABELS_TABLE}"
IMAGE_FOLDERS = ("stage_2_train_images",)
BOX_COLUMNS = ("x", "y", "width", "height")
CLASSES = ("Lung Opacity", "No Lung Opacity / Not Normal", "Normal")
FINDING = "Pneumonia"
FRAME = (1024, 1024)
LICENSE = "RSNA Pneumonia Detection Challenge terms of use"
TERMS = (
    "The images are from the NIH's ChestX-ray14, the labels and boxes from radiologists of the RSNA and the STR, under "
    f"the {LICENSE}: for non-commercial research and education. Redistribute the rows only as those terms allow."
)


class RsnaPatient(NamedTuple):
    """The rows of one patient, who has one image, and the detailed class, None where it is not known."""

    patient_id: str
    rows: list[NumberedRow]
    detailed: str | None


def plan(source: Path, options: Options) -> Plan:
    """One unit a patient, in the order of the table.

    Raises:
        UserError: there is no table of labels, or a table lacks a column.
    """
    by_patient: dict[str, list[NumberedRow]] = {}
    shared, columns = Ledger(), ("patientId", *BOX_COLUMNS, "Target")
    labels = read_table(table_inside(source, LABELS_TABLE), columns, shared, LABELS_TABLE)
    for row_number, cells in enumerate(labels, 1):
        by_patient.setdefault(cells["patientId"], []).append(NumberedRow(row_number, cells))
    if not by_patient:
        raise UserError(f"{source / LABELS_TABLE}: the table has no row; expected one a box or patient")
    read = partial(_detailed_classes, patients=by_patient)
    path = table_inside(source, CLASSES_TABLE)
    detailed = part_or(dict[str, str](), "detailed_classes", path, path.name, shared, read)
    return Plan(
        units=[RsnaPatient(name, rows, detailed.get(name)) for name, rows in by_patient.items()],
        convert=partial(convert_patient, source=source, options=options),
        unit_name="patients",
        reading_tables=(PATIENTS,),
        terms=TERMS,
        shared=shared,
    )


def convert_patient(unit: RsnaPatient, source: Path, options: Options) -> list[Outcome]:
    """The reading of one patient."""
    where = unit.patient_id or f"row {unit.rows[0].number}"
    outcome = attempt(PATIENTS, where, partial(_reading, unit, source, options))
    return [with_rows_of_dropped(outcome, LABELS_TABLE, where, len(unit.rows))]


def _reading(unit: RsnaPatient, source: Path, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    if not unit.patient_id:
        raise Dropped("no_patient_id")
    rows, target = _understood_rows(unit, ledger)
    path = picture_in(source, IMAGE_FOLDERS, unit.patient_id, PICTURE_SUFFIXES)
    image, person = encode_image(path, options.image_size, ledger), person_in(path)
    marked = [(FINDING, row) for row in rows] if target else []
    boxes = sized_boxes(marked, BOX_COLUMNS, FRAME, LABELS_TABLE, unit.patient_id, ledger)
    findings = [Finding(name=FINDING, value=target)]
    if unit.detailed is None:
        ledger.note("no_detailed_class", unit.patient_id)
    else:
        findings += [Finding(name=name, value=PRESENT if name == unit.detailed else ABSENT) for name in CLASSES]
        if (unit.detailed == "Lung Opacity") != bool(target):
            ledger.note("detailed_class_contradicts_target", f"{unit.patient_id}: {unit.detailed}, Target {target}")
    if target and not boxes:
        ledger.note("pneumonia_without_box", unit.patient_id)
    origin = Origin(
        source="rsna",
        license=LICENSE,
        generated=options.generated,
        image_id=unit.patient_id,
        subject_id=unit.patient_id,
        person=person,
        frame=FRAME,
    )
    split = hashed_split(unit.patient_id, options.seed, *LABELLED_SHARES)
    return split, labelled_reading(origin, image, findings, boxes, [], ledger)


def _understood_rows(unit: RsnaPatient, ledger: Ledger) -> tuple[list[NumberedRow], int]:
    """The rows that say whether there is pneumonia, and that; those of a negative patient are accounted for here."""
    understood = []
    for row in unit.rows:
        if label_value(row.cells["Target"]) in (PRESENT, ABSENT):
            understood.append(row)
        else:
            ledger.enter(LABELS_TABLE, 1)
            where = f"row {row.number} {unit.patient_id}: {row.cells['Target']!r}"
            ledger.drop(LABELS_TABLE, "target_is_neither_0_nor_1", [where])
    targets = {label_value(row.cells["Target"]) for row in understood}
    if len(targets) != 1:
        raise Dropped("no_target" if not targets else "rows_disagree_in_target")
    if targets == {PRESENT}:
        return understood, PRESENT
    for place, row in enumerate(understood):
        ledger.enter(LABELS_TABLE, 1)
        if any(row.cells[name] for name in BOX_COLUMNS):
            ledger.drop(LABELS_TABLE, "box_of_a_negative", [f"row {row.number} {unit.patient_id}"])
        elif place:
            ledger.drop(LABELS_TABLE, "duplicate_row", [f"row {row.number} {unit.patient_id}"])
        else:
            ledger.keep(LABELS_TABLE, 1)
    return [], ABSENT


def _detailed_classes(path: Path, shared: Ledger, patients: dict[str, list[NumberedRow]]) -> dict[str, str]:
    """The class of each patient whose rows (one a box) agree on it."""
    rows = read_table(path, ("patientId", "class"), shared, CLASSES_TABLE)
    named: dict[str, set[str]] = {}
    for cells in rows:
        if cells["class"] in CLASSES:
            named.setdefault(cells["patientId"], set()).add(cells["class"])
    shared.enter(CLASSES_TABLE, len(rows))
    for row_number, cells in enumerate(rows, 1):
        patient = cells["patientId"]
        reason = (
            "class_unknown" if cells["class"] not in CLASSES
            else "patient_without_label" if patient not in patients
            else "rows_disagree_in_class" if len(named[patient]) > 1
            else None
        )  # fmt: skip
        if reason is None:
            shared.keep(CLASSES_TABLE, 1)
        else:
            shared.drop(CLASSES_TABLE, reason, [f"row {row_number} {patient}: {cells['class']!r}"])
    return {patient: min(classes) for patient, classes in named.items() if len(classes) == 1}
