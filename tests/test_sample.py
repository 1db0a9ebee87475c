"""The model and the readings that travel with the package are what their card says; `egma app` alone shows them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_scripts.identity import corpus_identity, model_identity
from dataset_scripts.schema import is_generated, load_readings
from egma import SAMPLE_MODEL, SAMPLE_READINGS
from egma.inference.models import load_whole_model
from egma.programs import app
from egma.programs.sample import FILES
from egma.study.evidence import FIGURES_OF, WORLDS, _spread, lines
from egma.tools.processes import ROOT, preset_path
from modeling_egma import EgmaModel

MODEL, READINGS = Path(SAMPLE_MODEL), Path(SAMPLE_READINGS)
MAX_BYTES = 4_000_000


def results() -> dict[str, Any]:
    return dict(json.loads((MODEL / "results.json").read_text()))


def own_gaze(figure: str) -> Any:
    """Interval of the figure over worlds, of the same objective and gaze, as docs/evidence.md has it."""
    found = [line for line in lines("worth") if (line["arm"], line["world"]) == ("own", next(iter(WORLDS)))]
    return _spread(found, figure).interval


def test_it_is_small_and_of_the_kinds_of_files_that_are_promised() -> None:
    files = [path for path in MODEL.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert {path.name for path in MODEL.iterdir()} == {*FILES, "README.md", "results.json", "training_state.json"}
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md", ".parquet"}


def test_weights_and_card_are_of_one_run() -> None:
    card, found = (MODEL / "README.md").read_text(), results()
    assert f"`{model_identity(MODEL)}`" in card and found["model"]["identity"] == model_identity(MODEL)
    assert f"| {found['data']['identity']} |" in card and "GENERATED data" in card and "`make sample`" in card
    state = json.loads((MODEL / "training_state.json").read_text())
    assert state["data"]["data"]["fingerprint"] == found["data"]["identity"]
    assert state["git_revision"] in card and not state["git_revision"].endswith("+")


@pytest.mark.parametrize("figure", ["auroc", "pointing"])
def test_its_figures_are_within_the_spread_of_worlds(figure: str) -> None:
    low, high = own_gaze(figure)
    assert low <= results()[FIGURES_OF[figure]] <= high


def test_the_model_is_whole_and_small_and_takes_its_code_along_when_it_is_saved(tmp_path: Path) -> None:
    model, processor = load_whole_model(MODEL)
    assert processor.max_length == 64 and model.num_parameters() == results()["model"]["parameters"]
    EgmaModel.from_pretrained(SAMPLE_MODEL).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "modeling_egma.py").is_file()


def test_it_was_trained_by_the_presets_of_today() -> None:
    """A preset that changes asks for `make sample`."""
    asked: dict[str, Any] = {}
    for name in ("phantom", "ablations/plus"):
        asked |= yaml.safe_load(preset_path(f"configs/{name}.yaml").read_text())
    settings = json.loads((MODEL / "training_state.json").read_text())["settings"]
    assert asked | settings == settings | {name: asked[name] for name in asked.keys() - settings.keys()}


def test_four_generated_readings_with_all_that_a_page_shows() -> None:
    rows = load_readings(READINGS, "test").to_list()
    assert len(rows) == 4 and is_generated(READINGS) and len(corpus_identity(READINGS)) == 16
    for row in rows:
        assert row["source"].startswith("phantom/") and row["sentences"] and row["fixations"]["x"] and row["boxes"]


def test_the_page_without_a_model_shows_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown: list[Any] = []
    monkeypatch.setattr(app, "build_page", lambda handlers, about: shown.append((handlers, about)))
    app.make_page(None, None)
    (_, about), said = shown[0], capsys.readouterr().out
    assert "the package's sample" in said
    assert "`sample_model`, trained on GENERATED" in about and "`sample_readings`, **generated**" in about


def test_the_card_is_found_from_the_clone() -> None:
    assert MODEL == ROOT / "egma" / "sample" / "sample_model" and (MODEL / "README.md").is_file()
