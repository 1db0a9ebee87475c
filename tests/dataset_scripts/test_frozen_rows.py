"""The rows of the generated corpus in its three layouts, column by column: no change of a converter may touch one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts.phantom import write_phantom
from dataset_scripts.phantom.corpus import LAYOUTS
from dataset_scripts.schema import FEATURES, Reading
from tests.dataset_scripts.converting import convert

FOLDERS = dict(zip(("mimic_eye", "egd", "reflacx", "images"), (tree.folder for tree in LAYOUTS["all"]), strict=True))
READINGS, SEED, DIGITS = 30, 11, 9
FROZEN = {
    ("real", "mimic_eye"): (30, "255d2902d2ba6322"),
    ("real", "egd"): (6, "33f7f546d280ba4a"),
    ("real", "reflacx"): (24, "1165f8ee3fc3fa03"),
    ("clear", "mimic_eye"): (30, "67243411014ed7de"),
    ("clear", "egd"): (6, "ee13c183548908a5"),
    ("clear", "reflacx"): (24, "83e8bef735de4f22"),
}


def digest(rows: dict[str, Reading]) -> str:
    """Of all columns of all rows by their ids; numbers to DIGITS places, pictures by their pixels."""
    found = hashlib.sha256()
    for reading_id, row in sorted(rows.items()):
        assert row.keys() == FEATURES.keys()
        picture = row["image"]
        columns = {**row, "image": (picture.mode, picture.size, hashlib.sha256(picture.tobytes()).hexdigest())}
        found.update(json.dumps([reading_id, rounded(columns)], sort_keys=True).encode())
    return found.hexdigest()[:16]


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


@pytest.mark.parametrize("gaze", ["real", "clear"])
def test_rows_of_the_three_layouts_are_frozen(tmp_path: Path, gaze: str) -> None:
    raw = write_phantom(tmp_path / "raw", READINGS, SEED, layout="all", gaze=gaze)
    for corpus in ("mimic_eye", "egd", "reflacx"):
        images = {} if corpus == "mimic_eye" else {"images": raw / FOLDERS["images"]}
        rows, _ = convert(corpus, raw / FOLDERS[corpus], tmp_path / corpus, **images)
        assert (len(rows), digest(rows)) == FROZEN[gaze, corpus]
