"""CheXpert 1.0, full size or small: `train.csv` and `valid.csv` with 14 labels an image, and the pictures.

`--source` is the folder that holds the tables or the one above it. Labels are looked up by name, as copies differ in
the order of their columns. `valid.csv`, which radiologists labelled, is the split `test`: the corpus keeps its own test
set to itself, so that is what papers report, and nothing may be chosen on it. To choose by, 2 % of the patients of
`train.csv` are the split `validation`, by a hash. Patients of `chexpert_5x200` and `chexpert_8x200` are among those of
`train.csv`: who trains on it and tests on them must leave them out.

An uncertain label stays -1 in the findings; `competition_labels` applies the rule of the five competition labels.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dataset_scripts.conversion import Dropped, Options, Outcome, Plan, attempt
from dataset_scripts.evaluation_sets import (
    LazyUnits,
    NumberedRow,
    Origin,
    labelled_reading,
    occurrences,
    read_text_columns,
    row_of,
)
from dataset_scripts.images import encode_image, inside
from dataset_scripts.mimic_cxr import CHEXPERT_LABELS as LABELS
from dataset_scripts.mimic_images import table_inside
from dataset_scripts.report import Ledger
from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, Finding, Reading, Split, UserError
from dataset_scripts.splits import hashed_split
from dataset_scripts.tables import Row, number

TRAIN_TABLE, VALID_TABLE = "train.csv", "valid.csv"
COLUMNS = ("Path", "Frontal/Lateral", "AP/PA", *LABELS)
HELD_OUT = 0.02  # of the patients of train.csv; ConVIRT and those after it hold out 5,000 of its 223,414 images
LICENSE = "Stanford University Dataset Research Use Agreement (CheXpert)"
TERMS = (
    f"The source is under the {LICENSE}: for personal, non-commercial research only, and not to be shared. This "
    "conversion holds its images and labels and must not be redistributed, nor pushed to a public repository."
)
# the five labels of the competition, and what an uncertain one counts as
COMPETITION_UNCERTAIN = {
    "Atelectasis": PRESENT,
    "Cardiomegaly": ABSENT,
    "Consolidation": ABSENT,
    "Edema": PRESENT,
    "Pleural Effusion": PRESENT,
}
_VALUES: dict[float | None, int] = {1.0: PRESENT, 0.0: ABSENT, -1.0: UNCERTAIN}
ID_PATTERN = r"(?P<id>(?:train|valid)/(?P<patient>patient[0-9]+)/(?P<study>study[0-9]+)/view[0-9]+_[a-z]+\.jpg)$"


class ChexpertUnit(NamedTuple):
    """A row of `table`, which ends up in the split of its patient; repeated when an earlier row has its id."""

    table: str
    row: NumberedRow
    is_repeated: bool


def competition_labels(findings: Sequence[Finding]) -> dict[str, int]:
    """1 or 0 for each of the five competition labels: uncertain ones by COMPETITION_UNCERTAIN, unlisted ones 0."""
    values = {finding["name"]: finding["value"] for finding in findings}
    return {
        name: uncertain if values.get(name) == UNCERTAIN else values.get(name, ABSENT)
        for name, uncertain in COMPETITION_UNCERTAIN.items()
    }


def plan(source: Path, options: Options) -> Plan:
    """One unit an image, those of `train.csv` before those of `valid.csv`.

    Raises:
        UserError: neither table is there, one lacks a column or has no row, or a patient is in both.
    """
    root = tables_folder(source, (TRAIN_TABLE, VALID_TABLE))
    tables = {name: read_labels(root / name) for name in (TRAIN_TABLE, VALID_TABLE) if (root / name).is_file()}
    _require_apart(tables, root)
    repeated = {name: occurrences(table["id"])[0] for name, table in tables.items()}
    places = [(name, index) for name, table in tables.items() for index in (0, table.num_rows)]

    def unit(place: int) -> ChexpertUnit:
        name = TRAIN_TABLE if TRAIN_TABLE in tables and place < tables[TRAIN_TABLE].num_rows else VALID_TABLE
        index = place if name == places[0][0] else place - places[1][1]
        return ChexpertUnit(name, row_of(tables[name], index), bool(repeated[name][index]))

    return Plan(
        units=LazyUnits(sum(table.num_rows for table in tables.values()), unit),
        convert=partial(convert_row, source=source, root=root, options=options),
        unit_name="images",
        reading_tables=tuple(tables),
        terms=TERMS,
    )


def convert_row(unit: ChexpertUnit, source: Path, root: Path, options: Options) -> list[Outcome]:
    """The reading of one image."""
    where = f"row {unit.row.number} {unit.row.cells['Path']}"
    return [attempt(unit.table, where, partial(_reading, unit, source, root, options))]


def _reading(
    unit: ChexpertUnit, source: Path, root: Path, options: Options, ledger: Ledger
) -> tuple[Split, Reading]:
    cells = unit.row.cells
    if unit.is_repeated:
        raise Dropped("duplicate_image_id")
    findings = label_findings(cells, ledger)
    patient = image_patient(cells["id"])
    is_train = unit.table == TRAIN_TABLE
    split: Split = hashed_split(patient, options.seed, 1 - HELD_OUT, HELD_OUT) if is_train else "test"
    return split, picture_reading("chexpert", cells, findings, source, root, options, ledger)


def picture_reading(
    corpus: str, cells: Row, findings: list[Finding], source: Path, root: Path, options: Options, ledger: Ledger
) -> Reading:
    """The row of one image with these findings."""
    image_id = cells["id"]
    patient, study = image_id.split("/")[1:3]
    origin = Origin(
        source=corpus,
        license=LICENSE,
        generated=options.generated,
        image_id=image_id,
        reading_id=image_id,
        study_id=f"{patient}/{study}",
        subject_id=patient,
        view=cells["AP/PA"] or cells["Frontal/Lateral"] or None,
        frame=None,
    )
    image = encode_image(_picture(source, root, cells), options.image_size, ledger)
    return labelled_reading(origin, image, findings, [], [], ledger)
