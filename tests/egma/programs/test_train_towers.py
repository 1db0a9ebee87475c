"""The training program on other towers than Swin, on one process and two, and the length of its epochs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from safetensors.torch import load_file

from egma.programs import train as train_egma
from egma.training.arguments import parse_settings
from egma.training.run import TrainingRun
from tests.egma.training.test_gather import free_port
from tests.modeling_egma.tower_configs import BERT, VISION

LONGER = BERT | {"max_position_embeddings": 64}


def preset_of(folder: Path, vision: str, **fields: Any) -> Path:
    model_type, own, _ = VISION[vision]
    config = {"vision_config": {"model_type": model_type, **own}, "text_config": LONGER, "projection_dim": 8, **fields}
    path = folder / f"{vision}.yaml"
    path.write_text(yaml.safe_dump({"egma_config": config, "vocabulary_size": 300, "batch_size": 4}))
    return path


@pytest.fixture
def places(phantom_data: Path, tmp_path: Path) -> list[str]:
    quiet = ["--report_to", "none", "--heat_map_cases", "0"]
    return ["--data", str(phantom_data), "--output_dir", str(tmp_path / "run"), *quiet]


def train_in_process(rank: int, arguments: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    assert train_egma.main(arguments) == 0


def test_two_processes_train_past_parameters_without_gradient(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """DDP would wait for the mask token and the upper text layer, and die at the second step."""
    preset = preset_of(tmp_path, "dinov2", text_layers=[0, 1])
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(free_port())), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    mp.spawn(train_in_process, ([*places, "--config", str(preset), "--max_steps", "3"],), nprocs=2)
    said = capfd.readouterr().out
    assert said.count("are frozen: ") == 1
    assert "17 parameters get no gradient and are frozen: vision_model.embeddings.mask_token, text_" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]


def test_batch_statistics_from_nothing(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They train in whole batches, go on bit for bit, and stay as they are in a run that starts from them."""
    preset = ["--config", str(preset_of(tmp_path, "resnet"))]
    assert train_egma.main([*places, *preset, "--micro_batch_size", "2"]) == 2
    assert "BatchNorm2d, one of" in capsys.readouterr().err
    once, twice = [*places, *preset, "--max_steps", "4"], tmp_path / "twice"
    assert train_egma.main([*once, "--evaluation_steps", "2"]) == 0
    assert "running statistics" not in capsys.readouterr().out
    before = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    steps = TrainingRun._train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "_train_step", lambda self, taken: steps(self, taken) or _stop(self))
        assert train_egma.main([*once, "--evaluation_steps", "2", "--output_dir", str(twice)]) == 130
    assert train_egma.main([*once, "--evaluation_steps", "2", "--output_dir", str(twice), "--resume", "auto"]) == 0
    after = load_file(twice / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    means = [name for name in before if name.endswith("num_batches_tracked")]
    assert means and all(int(before[name]) == 4 for name in means)
    capsys.readouterr()
    second = ["--model", str(tmp_path / "run"), "--output_dir", str(tmp_path / "second"), "--batch_size", "4"]
    assert train_egma.main([*places, *second, "--micro_batch_size", "2", "--max_steps", "2"]) == 0
    assert "layers stay as they were learned" in capsys.readouterr().out
    start, end = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "second"))
    kept = [name for name in start if "running_" in name or name in means]
    assert kept and all(torch.equal(end[name], start[name]) for name in kept)
    scales = [name for name in start if name.endswith("normalization.weight")]
    assert scales and all(not torch.equal(end[name], start[name]) for name in scales)


def _stop(trainer: TrainingRun) -> None:
    if trainer.step == 3:
        raise KeyboardInterrupt


# --- length of a run


@pytest.mark.parametrize(
    ("accumulation", "epochs", "steps", "every"),
    [(1, "3", 6, 2), (2, "0.5", 1, 1), (3, "2", 1, 1), (4, "0.1", 1, 1), (1, "1.25", 2, 2), (5, "10", 4, 1)],
)
def test_epochs_are_rounded_after_they_are_multiplied(
    places: list[str], tmp_path: Path, accumulation: int, epochs: str, steps: int, every: int
) -> None:
    preset = ["--config", str(preset_of(tmp_path, "vit")), "--batch_size", "20", "--epochs", epochs]
    settings = parse_settings([*places, *preset, "--gradient_accumulation_steps", str(accumulation)])
    trainer = TrainingRun(settings)
    assert (trainer.data.batches_per_epoch, trainer.total_steps, trainer.evaluation_steps) == (2, steps, every)


def test_two_batches_an_epoch_four_a_step(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = ["--config", str(preset_of(tmp_path, "vit")), "--batch_size", "20"]
    arguments = [*places, *preset, "--gradient_accumulation_steps", "4", "--epochs", "10"]
    for streaming in ("False", "True"):
        trainer = TrainingRun(parse_settings([*arguments, "--streaming", streaming]))
        assert (trainer.data.batches_per_epoch, trainer.total_steps, trainer.evaluation_steps) == (2, 5, 1)
    assert train_egma.main([*arguments, "--dry_run"]) == 0
    assert "for 5 steps" in capsys.readouterr().out
    assert train_egma.main(arguments) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines if "validation_loss" in line] == [1, 2, 3, 4, 5]


def test_a_finished_run_may_be_asked_to_go_on(places: list[str], tmp_path: Path) -> None:
    arguments = [*places, "--config", str(preset_of(tmp_path, "vit")), "--max_steps", "1"]
    assert train_egma.main(arguments) == 0
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert train_egma.main([*arguments, "--resume", "auto"]) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
