"""What travels with the package is made again: in small, and in full beside what was packed."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts.identity import corpus_identity, model_identity
from dataset_scripts.schema import is_generated, load_readings
from egma import SAMPLE_MODEL
from egma.evaluation.reporting.report import HEADLINE_LABELS
from egma.hub.push import stage_model
from egma.inference.models import load_whole_model
from egma.programs import evaluate, sample
from egma.programs.demo import train_and_evaluate
from egma.study.evidence import FIGURES_OF
from tests.test_sample import own_gaze

TOLERANCE = 0.005  # of a figure of the same weights on the same readings


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    places = ["--work", str(folder / "work"), "--output", str(folder / "packed")]
    assert sample.main([*places, "--readings", "64", "--max_steps", "2"]) == 0
    return folder


def test_the_packed_model_is_the_trained_one_without_code_and_paths(small: Path) -> None:
    packed = small / "packed" / "sample_model"
    known = {*sample.FILES, "README.md", "results.json", "training_state.json"}
    assert {path.name for path in packed.iterdir()} == known
    trained, _ = load_whole_model(small / "work" / "egma")
    model, _ = load_whole_model(packed)
    for name, value in trained.state_dict().items():
        assert value.equal(model.state_dict()[name]), name
    for name in known - {"model.safetensors"}:
        text = (packed / name).read_text()
        assert str(small) not in text and "_egma." not in text, name


def test_the_card_says_generated_and_has_digest_and_figures(small: Path) -> None:
    packed = small / "packed" / "sample_model"
    card, results = (packed / "README.md").read_text(), read(packed / "results.json")
    identity = model_identity(packed)
    assert results["model"]["identity"] == identity and f"`{identity}`" in card
    assert "GENERATED data" in card and "make sample" in card
    assert "| Pointing game |" in card and "details" not in results


def test_it_goes_to_the_hub_as_any_run_does_with_its_code(small: Path, tmp_path: Path) -> None:
    staged = stage_model(small / "packed" / "sample_model", "lab/egma", None, tmp_path / "staged")
    assert (staged / "modeling_egma.py").is_file() and "auto_map" in read(staged / "config.json")
    assert "| max_steps | 2 |" in (staged / "README.md").read_text()


def test_the_readings_are_of_the_test_split_as_converted(small: Path) -> None:
    packed = small / "packed" / "sample_readings"
    rows = load_readings(packed, "test").to_list()
    known = {row["reading_id"]: row for row in load_readings(small / "work" / "data", "test").to_list()}
    assert len(rows) == 4 and all(row == known[row["reading_id"]] for row in rows)
    assert is_generated(packed) and all(row["fixations"]["x"] for row in rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's world drawn again, and a model trained and evaluated in it: some five minutes of two cores."""
    folder = tmp_path_factory.mktemp("world")
    train_and_evaluate(folder, ["egma"], 5500, None, seed=0)
    return folder


def test_the_packed_weights_earn_the_figures_of_their_card(world: Path, tmp_path: Path) -> None:
    assert evaluate.main([SAMPLE_MODEL, "--data", str(world / "data"), "--output", str(tmp_path)]) == 0
    found, known = read(tmp_path / "results.json"), read(Path(SAMPLE_MODEL) / "results.json")
    same = corpus_identity(world / "data") == known["data"]["identity"]
    changed = "model or evaluation" if same else "generator or conversion"
    figures = [name for name in HEADLINE_LABELS if known[name] is not None]
    assert {"zero_shot_auroc", "pointing_game", "gaze_nss"} <= {*figures}
    for name in figures:
        said = f"{name}: {found[name]}, in the card {known[name]}: {changed} changed, so `make sample`"
        assert found[name] == pytest.approx(known[name], abs=TOLERANCE), said


@pytest.mark.parametrize("figure", ["auroc", "pointing"])
def test_a_model_trained_anew_is_within_the_spread_of_worlds(world: Path, figure: str) -> None:
    low, high = own_gaze(figure)
    assert low <= read(world / "evaluation" / "results.json")[FIGURES_OF[figure]] <= high
