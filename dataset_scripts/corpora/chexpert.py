"""CheXpert 1.0, full size or small: `train.csv` and `valid.csv` with 14 labels an image, and the pictures.

`--source` is the folder that holds the tables or the one above it; or that of the folders `CheXpert-v1.0 batch ...` as
they are downloaded, of which the first holds the tables and `valid`, the others the patients of `train`. Where there
is no `train.csv`, the labels of `train_cheXbert.csv` or else `train_visualCheXbert.csv` are taken. Labels are looked up
by name, as copies differ in the order of their columns. `valid.csv`, which radiologists labelled, is the split `test`:
the corpus keeps its own test set to itself, so that is what papers report, and nothing may be chosen on it. To choose
by, 2 % of the patients of the training table are the split `validation`, by a hash. Patients of `chexpert_5x200` and
`chexpert_8x200` are among those of `train.csv`: who trains on it and tests on them must leave them out.

An uncertain label stays -1 in the findings.

`chexpert_5x200` (GLoRIA) and `chexpert_8x200` (ConVIRT) are samples of `train.csv`, 200 images of each class that show
it alone. Nobody published which: a seed draws them here, and a digest of the ids tells two samples apart.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from dataset_scripts.corpora.mimic_cxr import CHEXPERT_LABELS as LABELS
from dataset_scripts.corpora.rows import Origin, labelled_reading, read_findings, read_id_list
from dataset_scripts.corpora.splits import hashed_split, splits_of_patients
from dataset_scripts.files.paths import inside, table_inside
from dataset_scripts.files.tables import Row, is_repeated, label_value, portable_path, read_text_columns
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import OFFENDERS_NAMED, Dropped, Ledger
from dataset_scripts.plan import LazyUnits, Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Finding, Reading, Split, UserError

TRAIN_TABLE, VALID_TABLE = "train.csv", "valid.csv"
TRAIN_TABLES = (TRAIN_TABLE, "train_cheXbert.csv", "train_visualCheXbert.csv")
LABEL_FILES = (*TRAIN_TABLES, VALID_TABLE, "val_labels.csv", "test_labels.csv", "groundtruth.csv")
HELD_OUT = 0.02  # of the patients of train.csv; ConVIRT and those after it hold out 5,000 of its 223,414 images
LICENSE = "Stanford University Dataset Research Use Agreement (CheXpert)"
TERMS = (
    f"The source is under the {LICENSE}: for personal, non-commercial research only, and not to be shared. This "
    "conversion holds its images and labels and must not be redistributed, nor pushed to a public repository."
)
# of the competition
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
EIGHT = (
    *("No Finding", "Cardiomegaly", "Edema", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    "Fracture",
)
FOLDERS, BATCH = ("CheXpert-v1.0*", "chexpertchestxrays*"), "CheXpert-v1.0 batch "
IMAGES_PER_CLASS = 200
ROWS_AT_ONCE = 4096
_IMAGE_PATH = re.compile(r"(?:^|/)((?:train|valid)/(patient[0-9]+)/(study[0-9]+)/[^/]+\.(?:jpg|png))$")


class Layout(NamedTuple):
    """The folder that is read, and the folders in it (relative, "" itself) that may hold tables and patients."""

    root: Path
    folders: tuple[str, ...]

    def label_files(self) -> dict[str, Path]:
        """The tables of labels that are there, by name."""
        paths = ((name, table_inside(self.root, f"{folder}{name}")) for folder in self.folders for name in LABEL_FILES)
        return {name: path for name, path in reversed([*paths]) if path.is_file()}

    def picture(self, path: str) -> Path:
        """The file of `train/patientNNNNN/...`; the downloaded folders lack the first part."""
        names = [f"{folder}{name}" for folder in self.folders for name in (path, path.partition("/")[2])]
        paths = (inside(self.root, name) for name in names)
        return next((found for found in paths if found.is_file()), self.root / path)


class ChexpertRow(NamedTuple):
    """A row of `table`, `number` counting from 1; repeated when an earlier row has its path.

    `path` is "train/patientNNNNN/studyN/viewN_frontal.jpg" or "valid/...", "" where the column has no such path.
    """

    table: str
    number: int
    path: str
    is_repeated: bool
    cells: Row


class SampledRow(NamedTuple):
    """A row of the sample, and the only class that it shows."""

    path: str
    row: ChexpertRow
    shown: str


def plan(source: Path, options: Options) -> Plan:
    """One unit an image, those of `train.csv` before those of `valid.csv`.

    Raises:
        UserError: neither table is there, one lacks a column, or a patient is in both.
    """
    layout = _layout(source)
    files = layout.label_files()
    names = [*[name for name in TRAIN_TABLES if name in files][:1], *[VALID_TABLE] * (VALID_TABLE in files)]
    unread = ", ".join(sorted(files.keys() - set(names))) or "none"
    counted = Ledger()
    tables = [_Table(files[name], counted) for name in names]
    if not tables:
        raise UserError(
            f"{source}: neither {TRAIN_TABLE} nor {VALID_TABLE}; expected the folder that holds them (label files that "
            f"are not read: {unread})"
        )
    splits_of_patients(((patient, table.name) for table in tables for patient in table.patients()), layout.root)

    def row(place: int) -> ChexpertRow:
        beyond = place - len(tables[0])
        return tables[0].row(place) if beyond < 0 else tables[1].row(beyond)

    return Plan(
        units=LazyUnits(range(sum(map(len, tables))), row),
        convert=partial(convert_row, layout=layout, options=options),
        unit_name="images",
        reading_tables=tuple(table.name for table in tables),
        terms=TERMS,
        shared=counted,
        groups=[_split(table.name, patient, options) for table in tables for patient in table.patients()],
        facts={"labels from": ", ".join(names), "label files that are not read": unread},
    )


def convert_row(row: ChexpertRow, layout: Layout, options: Options) -> list[Outcome]:
    """The reading of one image."""
    return [attempt(row.table, _where(row), partial(_reading, row, layout, options))]


def plan_sample(source: Path, options: Options, classes: Sequence[str]) -> Plan:
    """One unit an image of the sample, by id.

    Every class has the IMAGES_PER_CLASS eligible images of lowest hash of seed, class and id, so that neither the order
    of the rows nor that of the classes matters. `options.ids` replaces the draw and the rule by a list.

    Raises:
        UserError: no table, a class with too few images, or a list with an id that is unknown or shows no single class.
    """
    layout = _layout(source)
    path = layout.label_files().get(TRAIN_TABLE, layout.root / TRAIN_TABLE)
    shared = Ledger()
    if options.ids is None:
        chosen = _drawn(path, classes, options.seed, shared)
    else:
        chosen = _listed(path, options.ids, classes, shared)
    chosen.sort(key=lambda row: row.path)
    digest = hashlib.sha256("\n".join(row.path for row in chosen).encode()).hexdigest()
    counts = {f"images of {name}": sum(row.shown == name for row in chosen) for name in classes}
    corpus = f"chexpert_{len(classes)}x{IMAGES_PER_CLASS}"
    return Plan(
        units=chosen,
        shared=shared,
        convert=partial(convert_sampled, layout=layout, corpus=corpus, classes=tuple(sorted(classes)), options=options),
        unit_name="images",
        reading_tables=(TRAIN_TABLE,),
        terms=TERMS,
        facts={"sha256 of the sorted image ids, a line each": digest, **counts},
    )


def convert_sampled(
    unit: SampledRow, layout: Layout, corpus: str, classes: Sequence[str], options: Options
) -> list[Outcome]:
    """The reading of one image of a sample: its class is present, the others of the sample are absent."""
    findings = [Finding(name=name, value=PRESENT if name == unit.shown else ABSENT) for name in classes]

    def build(ledger: Ledger) -> tuple[Split, Reading]:
        return "test", _picture_reading(corpus, unit.row, findings, layout, options, ledger)

    return [attempt(TRAIN_TABLE, _where(unit.row), build)]


def eligible_class(row: ChexpertRow, classes: Sequence[str]) -> str | None:
    """The class that a frontal image shows alone: its label 1, all others but No Finding 0 or blank; None without one.

    GLoRIA's `preprocess_chexpert_5x200_data`. An uncertain label is not 0. For the class No Finding that leaves out
    images with support devices, which CheXpert calls No Finding too.
    """
    if row.cells["Frontal/Lateral"] != "Frontal":
        return None
    values = {name: _value(row.cells[name]) for name in LABELS}
    for name in classes:
        others = (value for other, value in values.items() if other not in (name, "No Finding"))
        if values[name] == PRESENT and all(value == ABSENT for value in others):
            return name
    return None


class _Table:
    """One of the two tables, as columns."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.name = path.name
        columns = ("Path", "Frontal/Lateral", "AP/PA", *LABELS)
        self._columns = read_text_columns(path, columns, ledger, self.name, ("Sex", "Age"))
        found = (_IMAGE_PATH.search(portable_path(cell)) for cell in self._columns["Path"].to_pylist())
        self._paths: pa.Array = pa.array(["" if match is None else match[1] for match in found], pa.string())
        self._is_repeated = is_repeated(self._paths)

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def row(self, index: int) -> ChexpertRow:
        return self._row(index, self._columns.slice(index, 1).to_pylist()[0])

    def rows(self) -> Iterator[ChexpertRow]:
        """All rows, ten times as fast as one by one."""
        batches = (batch.to_pylist() for batch in self._columns.to_batches(max_chunksize=ROWS_AT_ONCE))
        return (self._row(index, cells) for index, cells in enumerate(chain.from_iterable(batches)))

    def _row(self, index: int, cells: Row) -> ChexpertRow:
        path: str = self._paths[index].as_py()
        return ChexpertRow(self.name, index + 1, path, bool(path and self._is_repeated[index]), cells)

    def patients(self) -> list[str]:
        return [path.split("/")[1] if path else "" for path in self._paths.to_pylist()]


def _drawn(path: Path, classes: Sequence[str], seed: int, shared: Ledger) -> list[SampledRow]:
    eligible: dict[str, list[SampledRow]] = {name: [] for name in classes}
    for row in _Table(path, shared).rows():
        shown = eligible_class(row, classes)
        if shown is None or not row.path or row.is_repeated:
            _leave_out(row, "duplicate_path" if row.is_repeated else "not_eligible", shared)
        else:
            eligible[shown].append(SampledRow(row.path, row, shown))
    chosen: list[SampledRow] = []
    for name, rows in eligible.items():
        if len(rows) < IMAGES_PER_CLASS:
            raise UserError(f"{path}: {len(rows)} images show {name} alone; expected at least {IMAGES_PER_CLASS}")
        rows.sort(key=lambda row: hashlib.sha256(f"{seed}:{row.shown}:{row.path}".encode()).digest())
        chosen += rows[:IMAGES_PER_CLASS]
        for left in rows[IMAGES_PER_CLASS:]:
            _leave_out(left.row, "eligible_but_not_drawn", shared)
    return chosen


def _listed(path: Path, ids: Path, classes: Sequence[str], shared: Ledger) -> list[SampledRow]:
    found = ((name, _IMAGE_PATH.search(name)) for name in read_id_list(ids, shared))
    wanted = {name if match is None else match[1] for name, match in found}
    chosen = []
    for row in _Table(path, shared).rows():
        if row.path not in wanted or row.is_repeated:
            _leave_out(row, "duplicate_path" if row.is_repeated else "not_listed", shared)
            continue
        shown = [name for name in classes if _value(row.cells[name]) == PRESENT]
        if len(shown) != 1:
            raise UserError(f"{ids}: {row.path} does not show exactly one of {', '.join(classes)}; {path.name} says so")
        if eligible_class(row, classes) is None:
            shared.note("listed_although_the_published_rule_leaves_it_out", _where(row))
        chosen.append(SampledRow(row.path, row, shown[0]))
    unknown = sorted(wanted.difference(row.path for row in chosen))
    if unknown:
        raise UserError(f"{ids}: {len(unknown)} ids are not in {path}: {', '.join(unknown[:OFFENDERS_NAMED])}")
    return chosen


def _leave_out(row: ChexpertRow, reason: str, shared: Ledger) -> None:
    shared.enter(row.table, 1)
    shared.drop(row.table, reason, [_where(row)])


def _reading(row: ChexpertRow, layout: Layout, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    if not row.path:
        raise Dropped("path_not_understood")
    if row.is_repeated:
        raise Dropped("duplicate_path")
    findings = _findings(row, ledger)
    if not findings:
        raise Dropped("no_label")
    split = _split(row.table, row.path.split("/")[1], options)
    return split, _picture_reading("chexpert", row, findings, layout, options, ledger)


def _split(table: str, patient: str, options: Options) -> Split:
    return "test" if table == VALID_TABLE else hashed_split(patient, options.seed, 1 - HELD_OUT, HELD_OUT)


def _picture_reading(
    corpus: str, row: ChexpertRow, findings: list[Finding], layout: Layout, options: Options, ledger: Ledger
) -> Reading:
    _, patient, study, _ = row.path.split("/")
    origin = Origin(
        source=corpus,
        license=LICENSE,
        generated=options.generated,
        image_id=row.path,
        study_id=f"{patient}/{study}",  # the numbers of the studies begin anew with every patient
        subject_id=patient,
        view=row.cells["AP/PA"] or row.cells["Frontal/Lateral"].upper() or None,
        person=Person(row.cells.get("Sex", ""), row.cells.get("Age", "")),
    )
    image = encode_image(layout.picture(row.path), options.image_size, ledger)
    return labelled_reading(origin, image, findings, [], [], ledger)


def _value(cell: str) -> int | None:
    """A label; blank is absent, as the published rule has it, and None what is no label."""
    return label_value(cell) if cell else ABSENT


def _findings(row: ChexpertRow, ledger: Ledger) -> list[Finding]:
    """The labels that are not blank."""
    return read_findings(((name, row.cells[name]) for name in LABELS), f"{row.table} row {row.number}", ledger)


def _layout(source: Path) -> Layout:
    """The source, or the only folder in it that is called CheXpert-v1.0 or so, or the downloaded batches in either."""
    folders = sorted(path.name for pattern in FOLDERS for path in source.glob(pattern) if path.is_dir())
    batches = [name for name in folders if name.startswith(BATCH)]
    if batches or not folders or any((source / name).is_file() for name in LABEL_FILES):
        return Layout(source, ("", *(f"{name}/" for name in batches)))
    if len(folders) > 1:
        raise UserError(f"{source}: holds {' and '.join(folders)}; name one of them")
    return _layout(table_inside(source, folders[0]))


def _where(row: ChexpertRow) -> str:
    return f"row {row.number} {row.cells['Path']}"
