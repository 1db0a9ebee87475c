"""ChestX-Det10 (Liu et al., 2020): boxes of ten findings on 3,543 images of NIH ChestX-ray14.

`train.json` and `test.json` are lists of `{file_name, syms, boxes}`, a box as left, top, right, bottom in pixels of
1024 x 1024. The ten labels are complete: what is not named is absent. `test.json` is the split `test`; the patients of
`train.json`, which the names of the NIH's images tell, are split 7 : 1 by a hash, but for those of the test set. The
images lie in the NIH's folders, or those of `train_data.zip` and `test_data.zip`.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from dataset_scripts.corpora import nih
from dataset_scripts.corpora.rows import NumberedRow
from dataset_scripts.files.json_files import read_json_list
from dataset_scripts.files.paths import table_inside
from dataset_scripts.files.tables import Row
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options, Plan
from dataset_scripts.schema import UserError

TRAIN, TEST = "train.json", "test.json"
LABELS = (
    *("Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema"),
    *("Fibrosis", "Fracture", "Mass", "Nodule", "Pneumothorax"),
)
ANNOTATIONS = nih.Annotations("chestx_det10", f"images of {TRAIN} and {TEST}", "boxes", LABELS)
_NIH_NAME = re.compile(r"0*([1-9][0-9]*)_[0-9]+\.png")


def plan(source: Path, options: Options) -> Plan:
    """One unit an image, those for training first.

    Raises:
        UserError: a file is missing or not what it should be.
    """
    shared, kept, seen = Ledger(), list[nih.NihUnit](), set[str]()
    lists = [(path, read_json_list(path, shared)) for path in _files(source)]
    units = [_unit(item, path, place) for path, items in lists for place, item in enumerate(items, 1)]
    tested = {unit.row.cells["Patient ID"] for unit in units if unit.listed_in == nih.TEST_LIST}
    for unit in units:
        name = unit.row.cells["Image Index"]
        if unit.listed_in == nih.TRAIN_LIST and unit.row.cells["Patient ID"] in tested:
            shared.enter(ANNOTATIONS.table, 1)
            shared.drop(ANNOTATIONS.table, "patient_of_the_test_set", [name])
        else:
            kept.append(unit._replace(is_repeated=name in seen))
        seen.add(name)
    convert = partial(nih.convert_row, root=source, of=ANNOTATIONS, options=options)
    groups = [unit.listed_in for unit in kept]
    return Plan(kept, convert, "images", (ANNOTATIONS.table,), nih.TERMS, shared=shared, groups=groups)


def _files(source: Path) -> list[Path]:
    return [table_inside(source, name) for name in (TRAIN, TEST)]


def _unit(item: Any, path: Path, place: int) -> nih.NihUnit:
    try:
        name, labels, boxes = item["file_name"], item["syms"], item["boxes"]
        rows = [NumberedRow(place, _box(*pair)) for pair in zip(labels, boxes, strict=True)]
        found, named = _NIH_NAME.fullmatch(name), "|".join(labels or [nih.NO_FINDING])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: entry {place}: expected an object with file_name, syms and as many boxes of four numbers"
        ) from None
    cells = {"Image Index": name, "Patient ID": found[1] if found else "", "Finding Labels": named}
    return nih.NihUnit(NumberedRow(place, cells), False, rows, nih.TEST_LIST if path.name == TEST else nih.TRAIN_LIST)


def _box(label: str, corners: list[float]) -> Row:
    left, top, right, bottom = corners
    sides = dict(zip(nih.BOX_COLUMNS, map(str, (left, top, right - left, bottom - top)), strict=True))
    return {"Finding Label": label, **sides}
