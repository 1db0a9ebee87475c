"""The average of the weights: against a loop, over a resumed run, and in what is exported."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from egma.programs import train as train_egma
from egma.training.averaging import WeightAverage
from tests.egma.programs.test_train import TINY


def test_average_equals_a_loop() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    average, weights = WeightAverage(optimizer, 0.9), []
    for step in range(40):
        parameter.grad = torch.tensor([1.0, float(step % 3)], dtype=torch.float64)
        optimizer.step()
        weights.append(parameter.detach().clone())
    expected = weights[0]
    for number, weight in enumerate(weights[1:], start=2):
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weight
    with average.in_use():
        assert torch.allclose(parameter, expected, rtol=0, atol=1e-14)
    assert torch.equal(parameter, weights[-1])


@pytest.fixture
def arguments(phantom_data: Path, tmp_path: Path) -> list[str]:
    preset = tmp_path / "tiny.yaml"
    fields = {"max_steps": 6, "evaluation_steps": 3, "heat_map_cases": 0, "report_to": "none", "ema_decay": 0.6}
    fields |= {"warmup_fraction": 0.0}
    preset.write_text(yaml.safe_dump(TINY | fields | {"learning_rate_schedule": "constant_with_warmup"}))
    return ["--config", str(preset), "--data", str(phantom_data)]


def test_a_resumed_run_exports_the_same_average(arguments: list[str], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train_egma.main([*arguments, "--output_dir", str(whole)]) == 0
    assert train_egma.main([*arguments, "--output_dir", str(cut), "--max_steps", "3"]) == 0
    resumed = [*arguments, "--output_dir", str(cut), "--resume", "auto", "--extend"]
    assert train_egma.main(resumed) == 0
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    raw = load_file(whole / "checkpoint-6" / "model.safetensors")
    kept = load_file(whole / "checkpoint-6" / "optimizer.safetensors")
    name = "text_projection.weight"
    assert torch.equal(expected[name], kept[f"{name}/average"]) and not torch.equal(expected[name], raw[name])


def test_a_decay_out_of_range_is_a_sentence(arguments: list[str], tmp_path: Path, capsys) -> None:
    assert train_egma.main([*arguments, "--output_dir", str(tmp_path / "run"), "--ema_decay", "1.5"]) == 2
    assert "ema_decay is 1.5, expected a number from 0 to 0.999999" in capsys.readouterr().err
