"""What a run learns from is its own; what describes a model stays with the model."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor

from dataset_scripts.schema import load_readings
from egma.programs import train as train_egma
from egma.training.arguments import OBJECTIVE_FIELDS, parse_settings
from egma.training.objective import objective_notes
from egma.training.start import build_model
from modeling_egma import EgmaConfig
from tests.egma.programs.test_train import TINY

OTHERS = {
    "contrastive_weight": 0.25,
    "gaze_weight": 0,
    "mapping_weight": 0.5,
    "gaze_sentence_weight": 0.75,
    "gaze_label_threshold": 0.3,
    "mapping_threshold": 0.6,
    "interaction": "cabs",
    "gaze_target": "soft",
    "mapping": "batch",
}
LEAD_SECONDS, SIGMA, MEAN = 0.7, 0.11, [0.25, 0.25, 0.25]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, phantom_data: Path) -> Path:
    """A model of a first stage without gaze, which weighed everything in its own way."""
    folder = tmp_path_factory.mktemp("first_stage")
    preset = folder / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY | {"egma_config": TINY["egma_config"] | OTHERS}))
    data = ["--data", str(phantom_data), "--output_dir", str(folder / "unused")]
    gaze = ["--gaze_lead_seconds", str(LEAD_SECONDS), "--gaze_sigma", str(SIGMA)]
    settings = parse_settings(["--config", str(preset), *data, *gaze])
    built, processor = build_model(settings, load_readings(phantom_data, "train"))
    processor.image_processor.image_mean = MEAN
    built.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def arguments(model: Path, phantom_data: Path, tmp_path: Path) -> list[str]:
    places = ["--data", str(phantom_data), "--output_dir", str(tmp_path / "run"), "--model", str(model)]
    return [*places, "--max_steps", "1", "--batch_size", "4", "--report_to", "none", "--heat_map_cases", "0"]


def first_line(tmp_path: Path) -> dict[str, float]:
    return json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])


def test_a_second_stage_with_gaze_trains_the_gaze_term(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_egma.main(arguments) == 0
    said = capsys.readouterr().out
    assert "the objective is this run's" in said and "gaze_weight 1 (there 0)" in said
    assert "mapping_threshold 0.285714 (there 0.6)" in said
    line = first_line(tmp_path)
    assert line["gaze"] > 0
    assert line["loss"] == pytest.approx(line["contrastive"] + line["gaze"] + line["mapping"], abs=1e-4)
    saved, default = AutoModel.from_pretrained(tmp_path / "run").config, EgmaConfig()
    assert {name: getattr(saved, name) for name in OTHERS} == {name: getattr(default, name) for name in OTHERS}


def test_what_describes_the_model_stays(arguments: list[str], tmp_path: Path) -> None:
    assert train_egma.main(arguments) == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "run")
    assert processor.gaze_kwargs == {"sigma": SIGMA, "lead": LEAD_SECONDS}
    assert list(processor.image_processor.image_mean) == MEAN
    settings = json.loads((tmp_path / "run" / "training_state.json").read_text())["settings"]
    assert (settings["gaze_sigma"], settings["gaze_lead_seconds"]) == (SIGMA, LEAD_SECONDS)


def test_what_is_given_goes_before_the_model(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "second.yaml"
    preset.write_text(yaml.safe_dump({"mapping_weight": 0.5, "egma_config": {"mapping_threshold": 0.4}}))
    given = ["--config", str(preset), "--gaze_lead_seconds", "0", "--contrastive_weight", "0.25"]
    assert train_egma.main([*arguments, *given]) == 0
    config = AutoModel.from_pretrained(tmp_path / "run").config
    assert (config.contrastive_weight, config.mapping_weight, config.mapping_threshold) == (0.25, 0.5, 0.4)
    assert (config.gaze_weight, config.gaze_label_threshold) == (1, 0.1)
    assert AutoProcessor.from_pretrained(tmp_path / "run").gaze_kwargs == {"sigma": SIGMA, "lead": 0}
    note = next(line for line in capsys.readouterr().out.splitlines() if "the objective is this run's" in line)
    assert "gaze_weight" in note and "mapping_threshold" not in note and "contrastive_weight" not in note


def test_gaze_that_weighs_nothing_is_said_and_so_is_a_term_without_gaze(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for extra, expected, other in (
        (["--gaze_weight", "0"], "gaze_weight is 0 though training readings have gaze", "no training reading has gaze"),
        (["--gaze_ratio", "0"], "no training reading has gaze", "gaze_weight is 0"),
        ([], "the objective is this run's", "gaze_weight is 0"),
    ):
        assert train_egma.main([*arguments, *extra, "--dry_run"]) == 0
        said = capsys.readouterr().out
        assert expected in said and other not in said


def test_no_note_where_nothing_differs(model: Path, arguments: list[str]) -> None:
    settings = parse_settings([*arguments, "--gaze_weight", "0"])
    given = ["--config", "configs/ablations/unified.yaml"]
    stored = EgmaConfig.from_pretrained(model)
    assert len(objective_notes(settings, stored, has_gaze=False)) == 0
    without = parse_settings([*given, "--vision_model", "a", "--text_model", "b", *arguments[:4]])
    assert objective_notes(without, EgmaConfig(), has_gaze=True) == []


def test_every_field_of_the_objective_is_the_runs(arguments: list[str]) -> None:
    """Those of the configuration that the loss reads, and no other."""
    assert set(OBJECTIVE_FIELDS) == set(OTHERS)
    fields, default = parse_settings(arguments).model_fields, EgmaConfig()
    assert fields == {name: getattr(default, name) for name in OBJECTIVE_FIELDS}


@pytest.mark.parametrize(
    ("option", "value"), [("--egma_config", '{"mapping_threshold": 0.4}'), ("--max_grad_norm", "0.5")]
)
def test_a_resumed_run_keeps_its_objective(
    model: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    if option == "--egma_config":
        preset = tmp_path / "other.yaml"
        preset.write_text(yaml.safe_dump({"egma_config": json.loads(value)}))
        option, value = "--config", str(preset)
    assert train_egma.main(arguments) == 0
    assert train_egma.main([*arguments, "--resume", "auto", option, value]) == 2
    assert " there and is " in capsys.readouterr().err


# --- precision of what is trained


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_stored_in_other_precision_trains_in_float32(
    model: Path, arguments: list[str], tmp_path: Path, dtype: torch.dtype
) -> None:
    stored = tmp_path / "stored"
    AutoModel.from_pretrained(model).to(dtype).save_pretrained(stored)
    AutoProcessor.from_pretrained(model).save_pretrained(stored)
    assert AutoModel.from_pretrained(stored).dtype == dtype
    assert train_egma.main([*arguments, "--model", str(stored), "--learning_rate", "1e-5", "--max_steps", "2"]) == 0
    before, after = (
        AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict() for folder in (stored, tmp_path / "run")
    )
    found = AutoModel.from_pretrained(tmp_path / "run")
    assert {value.dtype for value in found.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["dtype"] == "float32"
    moved = [(after[name] != before[name]).float().mean() for name in before if before[name].ndim == 2]
    assert torch.stack(moved).mean() > 0.9


def test_towers_stored_in_half_precision_train_in_float32(model: Path, arguments: list[str], tmp_path: Path) -> None:
    whole = AutoModel.from_pretrained(model).to(torch.bfloat16)
    whole.vision_model.save_pretrained(tmp_path / "vision")
    whole.text_model.save_pretrained(tmp_path / "text")
    AutoProcessor.from_pretrained(model).tokenizer.save_pretrained(tmp_path / "text")
    towers = ["--vision_model", str(tmp_path / "vision"), "--text_model", str(tmp_path / "text")]
    places = arguments[: arguments.index("--model")] + arguments[arguments.index("--model") + 2 :]
    assert train_egma.main([*places, *towers]) == 0
    found = AutoModel.from_pretrained(tmp_path / "run")
    assert {value.dtype for value in found.state_dict().values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("interaction", ["filip", "cabs"])
@pytest.mark.parametrize("score", ["pooled", "late_interaction", "cabs"])
def test_a_score_that_training_does_not_align_is_noted(interaction: str, score: str) -> None:
    settings = parse_settings(["--data", "a", "--output_dir", "b", "--vision_model", "c", "--text_model", "d"])
    fits = score == "pooled" or (score == "cabs") == (interaction == "cabs")

    notes = objective_notes(settings, EgmaConfig(interaction=interaction, zero_shot_score=score), has_gaze=True)

    assert [f"zero_shot_score is {score}, but interaction {interaction}" in note for note in notes] == [True] * (
        not fits
    )
