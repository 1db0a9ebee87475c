"""Any folder of images with texts or labels: `metadata.csv` or `metadata.jsonl`, as `imagefolder` reads it.

Columns: `file_name`, and at least one of
    `text`      free text, cut into untimed sentences; a row without text has none
    `labels`    the complete list of an image's labels, joined by a pipe (NIH ChestX-ray14): every label that occurs in
                the table is listed, 1 or 0; a blank means not labelled, and lists nothing
    `finding`   what is known to be there, joined by a pipe: listed as 1, and nothing else follows from it. Not read
                where there is a column `labels`.
"No Finding" is a label as any other. Optional: `patient_id`, `view`, `sex`, `age`, `license`, and `split`, which then
decides; else a hash of the patient splits 70/15/15, an image without `patient_id` being a patient of its own.
"""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.corpora.rows import Origin, schema_row
from dataset_scripts.corpora.splits import LABELLED_SHARES, hashed_split, named_splits
from dataset_scripts.files.paths import first_table, inside
from dataset_scripts.files.tables import Row, plain_row, read_table
from dataset_scripts.files.texts import read_text
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Finding, Reading, Recording, Split, UserError
from dataset_scripts.speech.sentences import untimed_sentences

TABLES = ("metadata.csv", "metadata.jsonl")
CONTENT_COLUMNS = ("text", "labels", "finding")
TERMS = (
    "Every image and text stays under the licence of its source, which the column `license` names where the source "
    "does. Redistribute the rows only as those licences allow."
)


class MetadataRow(NamedTuple):
    """One row of the metadata table, `number` counting from 1, and the split of its patient."""

    number: int
    cells: Row
    split: Split


def plan(source: Path, options: Options) -> Plan:
    """One unit a row of the metadata table.

    Raises:
        UserError: no metadata table, a column missing, no row, a split that is none, or a patient in two splits.
    """
    path, shared = first_table(source, TABLES), Ledger()
    is_lines = path.suffix == ".jsonl"
    cells = _read_jsonl(path, shared) if is_lines else read_table(path, ("file_name",), shared, path.name)
    if not cells:
        raise UserError(f"{path}: the table has no row; expected one row an image")
    cells = [plain_row(row, ("patient_id",), ("file_name",)) for row in cells]
    columns = {name for row in cells for name in row}
    if "file_name" not in columns:
        raise UserError(f"{path}: column file_name missing; it has {', '.join(sorted(columns))}")
    if not columns.intersection(CONTENT_COLUMNS):
        raise UserError(f"{path}: expected at least one of the columns {', '.join(CONTENT_COLUMNS)}; it has none")
    splits = _splits(cells, path, options)
    return Plan(
        units=list(map(MetadataRow, range(1, len(cells) + 1), cells, splits)),
        convert=partial(convert_row, source=source, table=path.name, vocabulary=_vocabulary(cells), options=options),
        unit_name="images",
        reading_tables=(path.name,),
        terms=TERMS,
        shared=shared,
        groups=splits,
    )


def convert_row(row: MetadataRow, source: Path, table: str, vocabulary: list[str], options: Options) -> list[Outcome]:
    """The reading of one row; `vocabulary` holds every name in the column `labels`."""
    where = f"row {row.number} {row.cells.get('file_name', '')}"
    return [attempt(table, where, partial(_reading, row, source, vocabulary, options))]


def _reading(
    row: MetadataRow, source: Path, vocabulary: list[str], options: Options, ledger: Ledger
) -> tuple[Split, Reading]:
    cells, name = row.cells, row.cells.get("file_name", "")
    sentences, findings = untimed_sentences(cells.get("text", "")), _findings(cells, vocabulary)
    if not name:
        raise Dropped("no_file_name")
    if not sentences and not findings:
        raise Dropped("neither_text_nor_label")
    image = encode_image(inside(source, name), options.image_size, ledger)
    patient = cells.get("patient_id") or None
    for reason, is_so in (("no_text", not sentences), ("no_patient_id_split_by_image", patient is None)):
        if is_so:
            ledger.note(reason, name)
    origin = Origin(
        source="image_text",
        generated=options.generated,
        image_id=name,
        reading_id=f"{name}#{row.number}",
        subject_id=patient,
        view=cells.get("view") or None,
        person=Person(cells.get("sex", ""), cells.get("age", "")),
        license=cells.get("license") or None,
    )
    reading = schema_row(origin, image, Recording(sentences, None, findings, []), ledger, Path(name).stem)
    return row.split, reading


def _read_jsonl(path: Path, ledger: Ledger) -> list[Row]:
    lines, rows = read_text(path, path, ledger).split("\n"), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append({str(name): _cell(value) for name, value in json.loads(line).items()})
        except (ValueError, AttributeError):
            raise UserError(f"{path}: line {number} is no JSON object; expected one object a line") from None
    return rows


def _cell(value: object) -> str:
    if isinstance(value, list):
        return "|".join(str(item) for item in value)
    return "" if value is None else str(value).strip()


def _names(cell: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in cell.split("|") if name.strip()))


def _vocabulary(cells: list[Row]) -> list[str]:
    return sorted({name for row in cells for name in _names(row.get("labels", ""))})


def _findings(cells: Row, vocabulary: list[str]) -> list[Finding]:
    if not vocabulary:
        return [Finding(name=name, value=PRESENT) for name in _names(cells.get("finding", ""))]
    present = set(_names(cells.get("labels", "")))
    if not present:
        return []
    return [Finding(name=name, value=PRESENT if name in present else ABSENT) for name in vocabulary]


def _splits(cells: list[Row], path: Path, options: Options) -> list[Split]:
    """The split of every row: the table's, or a hash of the patient; an image without patient is one of its own."""
    patients = [row.get("patient_id") or f"image {row.get('file_name')}" for row in cells]
    hashed = (hashed_split(patient, options.seed, *LABELLED_SHARES) for patient in patients)
    return named_splits(cells, patients, path) or list(hashed)
