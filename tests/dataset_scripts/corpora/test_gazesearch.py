"""GazeSearch: scanpaths without images or text, and what they say about location priors."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_scripts.corpora.gazesearch import plan
from dataset_scripts.gaze_quality import gaze_quality
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError, load_readings
from egma.evaluation.corpus import Corpus
from tests.dataset_scripts.converting import build

NAME = "finding_visual_search_coco_format_train_test.json"


def scanpath(name: str = "a", task: str = "edema", **changes: Any) -> dict[str, Any]:
    path = {"name": f"{name}.jpg", "task": task, "condition": "present", "split": "train", "length": 3, "bbox": [0] * 4}
    return path | {"X": [56, 112, 168], "Y": [0, 112, 56], "T": [0.25, 0.5, 0.0]} | changes


def converted(root: Path, paths: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    (root / "raw").mkdir()
    (root / "raw" / NAME).write_text(json.dumps(paths))
    report = build.build("gazesearch", root / "raw", root / "out", max_loss=1)
    splits = report["splits"]
    rows = {row["reading_id"]: row for one in splits for row in load_readings(root / "out", one, needs_images=False)}
    return rows, report


def test_a_reading_is_a_scanpath_without_an_image(tmp_path: Path) -> None:
    rows, report = converted(
        tmp_path, [scanpath(), scanpath(task="mass", condition="absent"), scanpath("b"), {"name": 3}]
    )
    assert set(rows) == {"a#1", "a#2", "b#1"}
    row = rows["a#1"]
    assert row["image"] is None and (row["width"], row["height"], row["sentences"]) == (224, 224, [])
    assert row["findings"] == [{"name": "edema", "value": 1}] and rows["a#2"]["findings"][0]["value"] == 0
    fixations = row["fixations"]
    assert fixations["x"] == [0.25, 0.5] and fixations["y"] == [0, 0.5] and fixations["start"] == [0, 0.25]
    assert report["tables"]["scanpaths"]["dropped"]["no_image_or_finding"]["count"] == 1
    assert report["tables"]["fixations"]["dropped"]["no_duration"]["count"] == 3


def test_scanpaths_of_an_image_are_on_one_side(tmp_path: Path) -> None:
    paths = [scanpath(f"i{number}", task) for number in range(60) for task in ("edema", "mass")]
    (tmp_path / NAME).write_text(json.dumps(paths))
    made = plan(tmp_path, Options(image_size=64, seed=0, generated=False))
    of_image: dict[str, set[str]] = {}
    for unit in made.units:
        (outcome,) = made.convert(unit)
        assert outcome.reading is not None
        of_image.setdefault(unit.image_id, set()).add(outcome.reading[0])
    assert {len(splits) for splits in of_image.values()} == {1}
    assert set().union(*of_image.values()) == {"train", "validation", "test"}


def test_who_needs_images_is_told(tmp_path: Path) -> None:
    converted(tmp_path, [scanpath(f"i{number}") for number in range(40)])
    with pytest.raises(UserError, match="readings have no image; expected a corpus with images, not gaze alone"):
        Corpus.read(tmp_path / "out", "test", None, None)


@pytest.mark.parametrize(
    "content",
    [b"not packed", gzip.compress(b"[")[:-9], gzip.compress(b"{}"), gzip.compress(b"[")],
    ids=["not packed", "cut off", "an object", "half a list"],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scanpaths.json.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"scanpaths.json.gz: expected"):
        plan(tmp_path, Options(image_size=64, seed=0, generated=False))


def test_what_knowing_the_finding_is_worth(tmp_path: Path) -> None:
    """Of two findings that lie apart the finding's gaze knows where, all gaze half of it."""
    random, paths = np.random.default_rng(0), []
    for number in range(200):
        left = 40 if number % 2 else 160
        x, y = random.integers(left, left + 20, 6).tolist(), random.integers(100, 120, 6).tolist()
        paths.append(scanpath(f"i{number}", "edema" if number % 2 else "mass", X=x, Y=y, T=[0.2] * 6))
    converted(tmp_path, paths)
    found = gaze_quality(tmp_path / "out")
    assert found.nss_of_finding is not None and found.nss_of_all is not None and found.gain is not None
    assert found.nss_of_finding > 1.3 * found.nss_of_all > 1
    assert found.gain[0] == pytest.approx(found.nss_of_finding - found.nss_of_all)


def test_real_gaze_is_as_telling_as_it_is(real_data: Path, tmp_path: Path) -> None:
    report = build.build("gazesearch", real_data / "gazesearch", tmp_path / "out")
    assert report["readings"]["rows_kept"] > 4800
    found = gaze_quality(tmp_path / "out")
    assert found.nss_of_all == pytest.approx(1.10, abs=0.05) and found.nss_of_finding == pytest.approx(1.17, abs=0.05)
    assert found.nss_of_one == pytest.approx(0.45, abs=0.05) and found.own_over_pooled is None
    assert found.gain is not None and found.gain[1] > 0
