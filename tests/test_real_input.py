"""Real pictures with real notes through the same programs; the folder is named by EGMA_REAL_DATA."""

import json
from pathlib import Path

import pytest

from dataset_scripts import build
from egma.programs import evaluate as evaluate_egma
from egma.programs import train as train_egma
from tests.egma.programs.test_train import arguments, preset  # noqa: F401


@pytest.fixture
def phantom_data(real_data: Path, tmp_path: Path) -> Path:
    """What `arguments` trains on: the notes in place of the generated corpus."""
    source, output = str(real_data / "notes"), str(tmp_path / "notes")
    assert build.main(["image_text", "--source", source, "--output", output, "--image-size", "112"]) == 0
    return tmp_path / "notes"


def test_notes_train_without_gaze_and_are_scored_zero_shot_on_nih(
    arguments: list[str],  # noqa: F811
    real_data: Path,
    tmp_path: Path,
) -> None:
    assert train_egma.main([*arguments, "--max_steps", "4"]) == 0
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["gaze"] == 0
    retrieval = ["--data", str(tmp_path / "notes"), "--tasks", "retrieval", "--output", str(tmp_path / "retrieval")]
    assert evaluate_egma.main([str(tmp_path / "run"), *retrieval]) == 0
    nih = ["image_text", "--source", str(real_data / "nih"), "--output", str(tmp_path / "nih"), "--image-size", "112"]
    assert build.main(nih) == 0
    zero_shot = ["--data", str(tmp_path / "nih"), "--tasks", "zero_shot", "--output", str(tmp_path / "zero_shot")]
    zero_shot += ["--classes", "Pneumonia", "No Finding"]
    assert evaluate_egma.main([str(tmp_path / "run"), *zero_shot]) == 0
    results = json.loads((tmp_path / "zero_shot" / "results.json").read_text())
    assert results["generated"] is False and 0 <= results["zero_shot_auroc"] <= 1
