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

from dataset_scripts.conversion import Dropped, Options
from dataset_scripts.images import inside
from dataset_scripts.report import Ledger
from dataset_scripts.schema import Split, UserError
from dataset_scripts.splits import SPLIT_NAMES
from dataset_scripts.tables import Row, number, portable_path, read_columns

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm")
LONGEST_SIDE = 100_000
LONGEST_NAME_BYTES = 128
SHAPE_TOLERANCE = 0.02
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns")


_STUDY_FOLDER = re.compile(r"p([0-9]{1,16})/s([0-9]{1,16})/[^/]*$")


class ImageRow(NamedTuple):
    """What a metadata table says of an image; None where it does not. The size is in pixels."""

    subject_id: str | None
    study_id: str | None
    view: str | None
    width: int | None
    height: int | None


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

    def report(self, subject_id: str, study_id: str) -> str | None:
        """The text of a study's written report, None where there is none."""
        return read_report(inside(self.files, f"{self._subject(subject_id)}/s{plain_name(study_id)}.txt"))

    def table(self, name: str) -> Path | None:
        """The path of `mimic-cxr-2.x.x-<name>.csv.gz`, or unpacked; the newest version, None where there is none."""
        found = [path for suffix in ("csv.gz", "csv") for path in self.root.glob(f"mimic-cxr-2.*-{name}.{suffix}")]
        return max(found, key=lambda path: path.name) if found else None

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


def table_inside(root: Path, relative: str) -> Path:
    """The path of a table that many readings need.

    Raises:
        UserError: it is a symbolic link that leads out of `root`.
    """
    try:
        return inside(root, relative)
    except Dropped:
        raise UserError(f"{root / relative}: a symbolic link out of {root}; expected the table itself") from None


def images_tree(options: Options, corpus: str) -> MimicTree:
    """The tree of `--images`, which a corpus without pictures of its own needs."""
    if options.images is None:
        raise UserError(f"{corpus} holds no image: --images with a MIMIC-CXR-JPG or MIMIC-CXR tree is needed")
    return open_tree(options.images)


def read_report(path: Path) -> str | None:
    """A report's text, None where the file is missing."""
    return path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else None


def image_rows(tree: MimicTree, wanted: Collection[str]) -> dict[str, ImageRow]:
    """What the metadata table says of the wanted images (lower-case ids); empty where the tree has no such table.

    Raises:
        UserError: the table lacks a column.
    """
    path = tree.table("metadata")
    return {} if path is None else {row["dicom_id"]: image_row(row) for row in _rows(path, METADATA_COLUMNS, wanted)}


def image_splits(tree: MimicTree, wanted: Collection[str]) -> dict[str, Split]:
    """The splits of the wanted images (lower-case ids), where the tree has a split table that names one."""
    path = tree.table("split")
    rows = [] if path is None else _rows(path, ("dicom_id", "split"), wanted)
    return {row["dicom_id"]: split for row in rows if (split := SPLIT_NAMES.get(row["split"].lower()))}


def _rows(path: Path, columns: Sequence[str], wanted: Collection[str]) -> Iterator[Row]:
    """The rows of the wanted images, ids in lower case; the first of several with one id."""
    left = set(wanted)
    for batch in read_columns(path, dict.fromkeys(columns, pa.string())):
        ids = pc.utf8_lower(pc.utf8_trim_whitespace(batch.column("dicom_id")))
        found = batch.filter(pc.is_in(ids, value_set=pa.array(left, pa.string())))
        for cells in found.to_pylist():
            row = {name: (value or "").strip() for name, value in cells.items()}
            row["dicom_id"] = row["dicom_id"].lower()
            if row["dicom_id"] in left:
                left.remove(row["dicom_id"])
                yield row


def image_row(row: Row) -> ImageRow:
    """A row of a metadata table that has METADATA_COLUMNS (`subject_id` may be missing)."""
    width, height = side_pixels(row["Columns"]), side_pixels(row["Rows"])
    return ImageRow(
        whole_id(row.get("subject_id", "")), whole_id(row["study_id"]), row["ViewPosition"] or None, width, height
    )


def side_pixels(cell: str) -> int | None:
    """The side of an image in pixels, None where the cell holds no size that an image can have."""
    value = number(cell)
    return int(value) if value is not None and 1 <= value <= LONGEST_SIDE else None


def whole_id(cell: str) -> str | None:
    """A patient's or study's number, which pandas may have written as a float; None where it is none."""
    value = number(cell)
    return str(int(value)) if value is not None and 0 < value < 2**53 else None


def study_ids(subject_id: str, study_id: str, path: str) -> tuple[str | None, str | None]:
    """Patient and study from their cells, or else from a path that ends in `pNNNNNNNN/sNNNNNNNN/<dicom_id>.dcm`."""
    found = _STUDY_FOLDER.search(portable_path(path))
    from_path = found.groups() if found else (None, None)
    return whole_id(subject_id) or from_path[0], whole_id(study_id) or from_path[1]


def plain_name(name: str) -> str:
    """An id as part of a path.

    Raises:
        Dropped: no file can have this name.
    """
    too_long = len(name.encode(errors="replace")) > LONGEST_NAME_BYTES
    if too_long or not name.isprintable() or not Path(name).name:
        raise Dropped("id_is_no_file_name", ascii(name[:40]))
    return name


def check_size(image_id: str, picture: tuple[int, int], frame: tuple[int, int], ledger: Ledger) -> None:
    """Note when a decoded picture has another size or shape than the frame (width, height) that gaze refers to.

    Gaze is scaled by the frame, so another size does no harm; another shape means that one of the two is wrong.
    """
    if picture == frame:
        return
    ratio = picture[0] * frame[1] / (picture[1] * frame[0])
    kind = "shape" if abs(ratio - 1) > SHAPE_TOLERANCE else "size"
    ledger.note(f"image_{kind}_differs_from_table", f"{image_id}: {_by(picture)}, table {_by(frame)}")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
