"""ChestX-Det10: two JSON lists in the form that its repository publishes, invented values."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts.corpora import chestx_det10
from dataset_scripts.schema import UserError
from egma.evaluation.protocols.pointing import pointing_targets
from egma.inference.prompts import load_prompts
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.evaluation_trees import save_picture


def entry(name: str, syms: Any = (), boxes: Any = ()) -> dict[str, Any]:
    return {"file_name": name, "syms": list(syms), "boxes": list(boxes)}


TRAIN = [
    entry("00000007_000.png", ["Mass", "Mass"], [[0, 0, 512, 256], [512, 512, 1024, 1024]]),
    entry("00000008_001.png"),
    entry("00000009_000.png", ["Effusion"], [[1, 1, 9, 9]]),  # a patient of the test set
    entry("36199.png", ["Nodule"], [[1, 1, 9, 9]]),  # whose patient nothing tells
    entry("00000008_001.png"),
]
TEST = [
    entry("00000009_003.png", ["Calcification", "Fracture"], [[256, 128, 512, 256], [2000, 0, 3000, 9]]),
    entry("00000010_000.png", ["Hernia"], [[1, 1, 9, 9]]),
]


def tree(root: Path, train: Any = TRAIN, test: Any = TEST) -> Path:
    root.mkdir()
    for name, entries in (("train", train), ("test", test)):
        (root / f"{name}.json").write_text(json.dumps(entries))
        for item in entries:
            if isinstance(item, dict) and item.get("file_name"):
                save_picture(root / f"{name}_data" / name / str(item["file_name"]))
    return root


def test_labels_boxes_and_splits(tmp_path: Path) -> None:
    rows, report = convert("chestx_det10", tree(tmp_path / "raw"), tmp_path / "out")
    assert set(rows) == {"00000007_000.png", "00000008_001.png", "00000009_003.png"}
    for row in rows.values():
        assert tuple(finding["name"] for finding in row["findings"]) == chestx_det10.LABELS
        assert (row["source"], row["width"], row["height"]) == ("chestx_det10", 1024, 1024)
    present = {name: {f["name"] for f in row["findings"] if f["value"] == 1} for name, row in rows.items()}
    assert present["00000007_000.png"] == {"Mass"} and present["00000008_001.png"] == set()
    assert present["00000009_003.png"] == {"Calcification", "Fracture"}
    boxes = rows["00000007_000.png"]["boxes"]
    corners = [[box[name] for name in ("x_min", "y_min", "x_max", "y_max")] for box in boxes]
    assert corners == [[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1]]
    assert rows["00000009_003.png"]["subject_id"] == "9" and report["splits"]["test"]["readings"] == 1
    dropped = report["tables"][chestx_det10.ANNOTATIONS.table]["dropped"]
    assert {reason: found["count"] for reason, found in dropped.items()} == {
        "duplicate_image_id": 1,
        "label_not_understood": 1,
        "patient_of_the_test_set": 1,
        "patient_unknown": 1,
    }
    assert report["tables"]["boxes"]["dropped"]["no_area_in_image"]["count"] == 1


def test_ready_for_the_pointing_game_and_prompts(tmp_path: Path) -> None:
    rows, _ = convert("chestx_det10", tree(tmp_path / "raw"), tmp_path / "out")
    prompts = load_prompts()
    assert set(chestx_det10.LABELS) <= set(prompts)
    found = {(target.finding, len(target.boxes)) for target in pointing_targets(list(rows.values()), prompts)}
    assert found == {("Mass", 2), ("Calcification", 1)}


@pytest.mark.parametrize(
    "broken",
    [
        *(7, {}, entry("a.png", ["Mass"], []), entry("a.png", ["Mass"], [[1, 2, 3]])),
        *(entry("a.png", ["Mass"], [["a", 1, 2, 3]]), {"file_name": 5, "syms": [], "boxes": []}),
        {"file_name": "a.png", "syms": [3], "boxes": [[1, 2, 3, 4]]},
    ],
)
def test_what_is_no_entry_is_named(tmp_path: Path, broken: Any) -> None:
    source = tree(tmp_path / "raw")
    (source / "test.json").write_text(json.dumps([*TEST, broken]))
    with pytest.raises(UserError, match=r"test.json: entry 3: expected an object with file_name, syms"):
        convert("chestx_det10", source, tmp_path / "out")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = tree(tmp_path / "raw")
    (source / "train.json").unlink()
    with pytest.raises(UserError, match=r"train.json: no such file"):
        convert("chestx_det10", source, tmp_path / "out")
