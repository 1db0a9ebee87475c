"""MS-CXR (PhysioNet): phrases of MIMIC-CXR's reports, each with the boxes of what it describes.

`MS_CXR_Local_Alignment_v1.x.x.csv`, or the `.json` in COCO's form where there is no CSV. A row of the schema is one
phrase about one image: its sentence is the phrase, its boxes (one or more) and its one finding carry the category, so
that a map of the sentence has its own boxes to be held against. The release holds no image: `--images` names a
MIMIC-CXR-JPG or MIMIC-CXR tree. The column `split` decides; where there is none, all is `test`.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.corpora.mimic_tree import ImageRow, MimicTree, image_rows, images_tree, study_ids
from dataset_scripts.corpora.rows import (
    CREDENTIALED_LICENSE,
    NumberedRow,
    Origin,
    labelled_reading,
    sized_boxes,
    with_rows_of_dropped,
)
from dataset_scripts.corpora.splits import split_named, splits_of_patients
from dataset_scripts.files.json_files import read_json
from dataset_scripts.files.paths import table_inside
from dataset_scripts.files.tables import Row, portable_path, read_table
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.images.sizes import side_pixels
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import PRESENT, Finding, Reading, Sentence, Split, UserError

TABLE_NAME = "MS_CXR_Local_Alignment_v*"
BOX_COLUMNS = ("x", "y", "w", "h")
COLUMNS = ("dicom_id", "category_name", "label_text", "path", *BOX_COLUMNS, "image_width", "image_height")
_COCO_LISTS = ("annotations", "images", "categories")
TERMS = (
    f"The phrases, the boxes and the images of MIMIC-CXR are under the {CREDENTIALED_LICENSE}: only credentialed users "
    "who signed its data use agreement may have them. This conversion must not be redistributed, nor pushed to a "
    "public repository."
)


class Phrase(NamedTuple):
    """The rows, one a box, of one phrase about one image, which is its image's `place`-th."""

    image_id: str
    place: int
    rows: list[NumberedRow]
    image: ImageRow | None = None


def plan(source: Path, options: Options) -> Plan:
    """One unit a phrase, in the order of the table.

    Raises:
        UserError: there is no table or it is no such table, `--images` is no MIMIC-CXR tree, or a patient is in two
            splits.
    """
    tree = images_tree(options, "ms_cxr")
    path, shared = _table(source), Ledger()
    is_coco = path.suffix == ".json"
    rows = read_coco(path, shared) if is_coco else read_table(path, COLUMNS, shared, path.name)
    if not rows:
        raise UserError(f"{path}: holds no box; expected one row or annotation a box")
    splits_of_patients(((study_ids(cells)[0], _split(cells)) for cells in rows), path)
    phrases = _phrases(rows)
    images = image_rows(tree, {phrase.image_id for phrase in phrases}, shared)
    return Plan(
        units=[phrase._replace(image=images[phrase.image_id]) for phrase in phrases],
        convert=partial(convert_phrase, tree=tree, table=path.name, options=options),
        unit_name="phrases",
        reading_tables=(f"phrases of {path.name}",),
        terms=TERMS,
        shared=shared,
    )


def convert_phrase(unit: Phrase, tree: MimicTree, table: str, options: Options) -> list[Outcome]:
    """The reading of one phrase."""
    where = f"row {unit.rows[0].number} {unit.image_id}"
    outcome = attempt(f"phrases of {table}", where, partial(_reading, unit, tree, table, options))
    return [with_rows_of_dropped(outcome, table, where, len(unit.rows))]


def read_coco(path: Path, ledger: Ledger) -> list[Row]:
    """The annotations of a COCO file as rows of the CSV's columns, "" for what is missing or of another type.

    Raises:
        UserError: no UTF-8 JSON of COCO's form.
    """
    content = read_json(path, path, ledger)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected COCO's JSON, an object with {', '.join(_COCO_LISTS)}")
    missing = [name for name in _COCO_LISTS if not isinstance(content.get(name), list)]
    if missing:
        raise UserError(f"{path}: expected COCO's JSON; {', '.join(missing)} missing, or no list")
    annotations, images, categories = (content[name] for name in _COCO_LISTS)
    images_by_id, categories_by_id = _by_id(images), _by_id(categories)
    return [_coco_row(item, images_by_id, categories_by_id) for item in annotations]


def _by_id(items: list[Any]) -> dict[str, dict[str, Any]]:
    return {str(item.get("id")): item for item in items if isinstance(item, dict)}


def _coco_row(item: Any, images: dict[str, dict[str, Any]], categories: dict[str, dict[str, Any]]) -> Row:
    item = item if isinstance(item, dict) else {}
    image = images.get(str(item.get("image_id")), {})
    category = categories.get(str(item.get("category_id")), {})
    box = item.get("bbox")
    sides = box if isinstance(box, list) and len(box) == len(BOX_COLUMNS) else [None] * len(BOX_COLUMNS)
    path = portable_path(_text(image.get("path") or image.get("file_name")))
    row = {
        "dicom_id": _text(image.get("dicom_id")) or Path(path).stem,
        "category_name": _text(category.get("name")),
        "label_text": _text(item.get("label_text")),
        "path": path,
        "image_width": _text(item.get("width") or image.get("width")),
        "image_height": _text(item.get("height") or image.get("height")),
        **{name: _text(side) for name, side in zip(BOX_COLUMNS, sides, strict=True)},
    }
    split = item.get("split") or image.get("split")
    return row if split is None else row | {"split": _text(split)}


def _text(value: Any) -> str:
    """A JSON value as the CSV would have it, "" what is neither a text nor a number."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _phrases(rows: list[Row]) -> list[Phrase]:
    """Rows with the same image, category and phrase belong together."""
    found: dict[tuple[str, str, str], Phrase] = {}
    phrases_of_image: dict[str, int] = {}
    for row_number, cells in enumerate(rows, 1):
        image_id = cells["dicom_id"].lower()
        key = (image_id, cells["category_name"], cells["label_text"])
        if key not in found:
            phrases_of_image[image_id] = phrases_of_image.get(image_id, 0) + 1
            found[key] = Phrase(image_id, phrases_of_image[image_id], [])
        found[key].rows.append(NumberedRow(row_number, cells))
    return list(found.values())


def _reading(unit: Phrase, tree: MimicTree, table: str, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    cells = unit.rows[0].cells
    category, phrase = cells["category_name"], cells["label_text"]
    for reason, value in (("no_image_id", unit.image_id), ("no_category", category), ("no_phrase", phrase)):
        if not value:
            raise Dropped(reason)
    split = _split(cells)
    if split is None:
        raise Dropped("split_unknown", f"{cells['split']!r}; expected train, validation or test")
    subject_id, study_id = study_ids(cells)
    if subject_id is None or study_id is None:
        raise Dropped("patient_or_study_unknown", f"path {cells['path']!r}")
    image = encode_image(tree.picture(subject_id, study_id, unit.image_id), options.image_size, ledger)
    width, height = side_pixels(cells["image_width"]), side_pixels(cells["image_height"])
    if width is None or height is None:
        ledger.note("image_size_from_the_file", unit.image_id)
        width, height = image.width, image.height
    boxes = sized_boxes(
        [(category, row) for row in unit.rows], BOX_COLUMNS, (width, height), table, unit.image_id, ledger
    )
    if not boxes:
        raise Dropped("no_box_left")
    assert unit.image is not None
    origin = Origin(
        source="ms_cxr",
        license=CREDENTIALED_LICENSE,
        generated=options.generated,
        image_id=unit.image_id,
        reading_id=f"{unit.image_id}#{unit.place}",
        study_id=study_id,
        subject_id=subject_id,
        view=unit.image.view,
        person=unit.image.person,
        frame=(width, height),
    )
    sentence = Sentence(text=phrase, start_seconds=None, end_seconds=None)
    findings = [Finding(name=category, value=PRESENT)]
    return split, labelled_reading(origin, image, findings, boxes, [sentence], ledger)


def _split(cells: Row) -> Split | None:
    return split_named(cells["split"]) if "split" in cells else "test"


def _table(source: Path) -> Path:
    """The newest CSV, or else the newest JSON."""
    for suffix in (".csv", ".json"):
        found = sorted(path.name for path in source.glob(f"{TABLE_NAME}{suffix}"))
        if found:
            return table_inside(source, found[-1])
    raise UserError(f"{source}: no {TABLE_NAME}.csv or .json; expected the folder that holds one")
