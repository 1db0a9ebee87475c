"""The examples and the notebook as they stand, on a tiny model and a generated corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_scripts.schema import load_readings
from modeling_egma import EgmaModel, EgmaProcessor

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model_folder(tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor) -> Path:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts(model_folder: Path, phantom_data: Path, tmp_path: Path) -> None:
    reading = load_readings(phantom_data, "test")[0]
    reading["image"].save(tmp_path / "radiograph.png")
    said = run("zero_shot.py", model_folder, tmp_path / "radiograph.png", "pneumothorax", "pleural effusion")
    assert {line.split("  ")[1] for line in said.splitlines()} == {"pneumothorax", "pleural effusion"}
    said = run("heat_map.py", model_folder, tmp_path / "radiograph.png", "there is an opacity.", tmp_path / "map.png")
    assert "peak (" in said and (tmp_path / "map.png").stat().st_size > 5000
    fixations = reading["fixations"]
    names = ("x", "y", "start", "duration")
    rows = zip(*(fixations[name] for name in names), strict=True)
    (tmp_path / "fixations.csv").write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]))
    lines = [f'"{s["text"]}",{s["start_seconds"]},{s["end_seconds"]}' for s in reading["sentences"]]
    (tmp_path / "sentences.csv").write_text("\n".join(["text,start,end", *lines]))
    gaze = (tmp_path / "fixations.csv", tmp_path / "sentences.csv")
    said = run("bring_your_own_gaze.py", model_folder, tmp_path / "radiograph.png", *gaze)
    assert len(said.splitlines()) == len(reading["sentences"])


def test_notebook(model_folder: Path, phantom_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((EXAMPLES / "egma.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    code = "\n".join(cells).replace("runs/demo/egma", str(model_folder)).replace("runs/demo/data", str(phantom_data))
    names: dict[str, object] = {}
    exec(compile(code, "egma.ipynb", "exec"), names)
    assert len(names["found"]) == len(names["sentences"])  # type: ignore[arg-type]
