"""A MIMIC-CXR-JPG or MIMIC-CXR tree: where its pictures, reports and tables lie.

`files/pNN/pNNNNNNNN/sNNNNNNNN/<dicom_id>.jpg` or `.dcm`, reports beside the folders of the studies, and the tables
`mimic-cxr-2.x.x-{metadata,split,chexpert}.csv.gz` (or unpacked) above `files`.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dataset_scripts.corpora.rows import rows_by_id
from dataset_scripts.corpora.splits import split_named
from dataset_scripts.files.paths import inside, plain_name
from dataset_scripts.files.tables import Row, number, portable_path, read_columns
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.sizes import side_pixels
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import Split, UserError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm")
METADATA_TABLE, SPLIT_TABLE, CHEXPERT_TABLE = (f"mimic-cxr-{name}.csv" for name in ("metadata", "split", "chexpert"))
PATIENT_TABLE = "patients.csv"
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns")
PATIENT_COLUMNS = ("subject_id", "gender", "anchor_age", "anchor_year")  # of MIMIC-IV's hosp/patients.csv.gz
_NAMES = (("subject_id", "patient_id"), ("image", "path"))
_STUDY_FOLDER = re.compile(r"p([0-9]{1,16})/s([0-9]{1,16})/[^/]*$")


class ImageRow(NamedTuple):
    """What a metadata table says of an image, and MIMIC-IV's of its patient; None where not. The size is in pixels."""

    subject_id: str | None
    study_id: str | None
    view: str | None
    width: int | None
    height: int | None
    person: Person


class MimicTree(NamedTuple):
    """`files` holds the folders pNN, `root` the tables."""

    root: Path
    files: Path

    def picture(self, subject_id: str, study_id: str, image_id: str) -> Path:
        """The file of an image, whichever format it has.

        Raises:
            Dropped: there is none, or the ids lead out of the tree.
        """
        folder = f"{self._subject(subject_id)}/s{plain_name(study_id)}"
        paths = [inside(self.files, f"{folder}/{plain_name(image_id)}{suffix}") for suffix in PICTURE_SUFFIXES]
        for path in paths:
            if path.is_file():
                return path
        raise Dropped("image_missing", f"{folder}/{image_id}.jpg or .dcm")

    def report(self, subject_id: str, study_id: str) -> Path:
        """Where a study's written report lies, if there is one."""
        return inside(self.files, f"{self._subject(subject_id)}/s{plain_name(study_id)}.txt")

    def table(self, name: str) -> Path | None:
        """The path of `mimic-cxr-2.x.x-<name>.csv.gz`, or unpacked; the newest version, None where there is none."""
        found = [path for suffix in ("csv.gz", "csv") for path in self.root.glob(f"mimic-cxr-2.*-{name}.{suffix}")]
        return max(found, key=lambda path: path.name) if found else None

    def patients(self) -> Path | None:
        """MIMIC-IV's table of patients, beside the other tables or in a folder `hosp` there."""
        found = (self.root / folder / name for folder in ("", "hosp") for name in ("patients.csv.gz", "patients.csv"))
        return next(filter(Path.is_file, found), None)

    @staticmethod
    def _subject(subject_id: str) -> str:
        name = plain_name(subject_id)
        return f"p{name[:2]}/p{name}"


def open_tree(root: Path) -> MimicTree:
    """The tree at `root`, which is the folder that holds `files`, or `files` itself.

    Raises:
        UserError: neither.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected the root of a MIMIC-CXR-JPG or MIMIC-CXR tree")
    if (root / "files").is_dir():
        if not (root / "files").resolve().is_relative_to(root.resolve()):
            raise UserError(f"{root / 'files'}: a symbolic link out of {root}; name the folder that it points to")
        return MimicTree(root, root / "files")
    if any(path.is_dir() for path in root.glob("p[0-9][0-9]")):
        return MimicTree(root.parent if root.name == "files" else root, root)
    raise UserError(
        f"{root}: neither a folder files nor folders p10 to p19; expected a MIMIC-CXR-JPG or MIMIC-CXR tree"
    )


def images_tree(options: Options, corpus: str) -> MimicTree:
    """The tree of `--images`, which a corpus without pictures of its own needs."""
    if options.images is None:
        raise UserError(f"{corpus} holds no image: --images with a MIMIC-CXR-JPG or MIMIC-CXR tree is needed")
    return open_tree(options.images)


def image_rows(tree: MimicTree, wanted: Collection[str], ledger: Ledger) -> dict[str, ImageRow]:
    """What the metadata table says of all the wanted images (lower-case ids), which may be nothing.

    Raises:
        UserError: the table lacks a column.
    """
    rows = _rows(tree.table("metadata"), METADATA_COLUMNS, wanted, ledger, METADATA_TABLE, ("StudyDate",))
    people = _rows(
        tree.patients(), PATIENT_COLUMNS, {row["subject_id"] for row in rows.values()}, ledger, PATIENT_TABLE
    )
    found = {name: image_row(people.get(row["subject_id"], {}) | row) for name, row in rows.items()}
    return dict.fromkeys(wanted, ImageRow(None, None, None, None, None, Person())) | found


def image_splits(tree: MimicTree, wanted: Collection[str], ledger: Ledger) -> dict[str, Split]:
    """The splits of the wanted images (lower-case ids), where the tree has a split table that names one."""
    rows = _rows(tree.table("split"), ("dicom_id", "split"), wanted, ledger, SPLIT_TABLE)
    return {name: split for name, row in rows.items() if (split := split_named(row["split"]))}


def _rows(
    path: Path | None,
    columns: Sequence[str],
    wanted: Collection[str],
    ledger: Ledger,
    table: str,
    optional: Sequence[str] = (),
) -> dict[str, Row]:
    """The rows of the wanted images, or patients, by the lower-case id in the first column."""

    def chosen(path: Path) -> Iterator[Row]:
        values = pa.array(sorted(wanted), pa.string())
        for batch in read_columns(path, dict.fromkeys(columns, pa.string()), ledger, table, optional):
            ids = pc.utf8_lower(pc.utf8_trim_whitespace(batch.column(columns[0])))
            found = batch.filter(pc.is_in(ids, value_set=values))
            ledger.enter(table, batch.num_rows - found.num_rows)
            ledger.drop(table, "not_of_this_corpus", [path.name], batch.num_rows - found.num_rows)
            yield from ({name: (cell or "").strip() for name, cell in row.items()} for row in found.to_pylist())

    if path is None:
        ledger.note("table_of_the_images_missing", table)
        return {}
    return rows_by_id(chosen(path), columns[0], ledger, table)


def image_row(row: Row) -> ImageRow:
    """A row of a metadata table that has METADATA_COLUMNS (`subject_id` may be missing), with those of the patient."""
    width, height = side_pixels(row["Columns"]), side_pixels(row["Rows"])
    return ImageRow(
        *(whole_id(row.get("subject_id", "")), whole_id(row["study_id"]), row["ViewPosition"] or None, width, height),
        person=Person(row.get("gender", ""), _age(row)),
    )


def _age(row: Row) -> str:
    """Years at the study: the age in the anchor year, unless it is 0 for unknown, and the years since."""
    anchor, year, date = (number(row.get(name, "")[:4]) for name in ("anchor_age", "anchor_year", "StudyDate"))
    return "" if anchor is None or year is None or date is None else f"{anchor and anchor + date - year:g}"


def whole_id(cell: str) -> str | None:
    """A patient's or study's number, which pandas may have written as a float; None where it is none."""
    value = number(cell)
    return str(int(value)) if value is not None and 0 < value < 2**53 else None


def study_ids(cells: Row) -> tuple[str | None, str | None]:
    """Patient and study from their cells, or else from a path that ends in `pNNNNNNNN/sNNNNNNNN/<dicom_id>.dcm`.

    EGD says `patient_id` and `path`, REFLACX `subject_id` and `image`.
    """
    subject_id, path = (cells.get(one) or cells.get(other, "") for one, other in _NAMES)
    found = _STUDY_FOLDER.search(portable_path(path))
    from_path = found.groups() if found else (None, None)
    return whole_id(subject_id) or from_path[0], whole_id(cells.get("study_id", "")) or from_path[1]
