"""Settings that say how, not what, is computed give one trajectory: through the program, step by step."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from egma.programs import train as train_egma
from egma.tools.processes import ROOT
from egma.training import data
from egma.training.run import TrainingRun

from .test_resume import ENVIRONMENT, launched
from .test_train import TINY

STEPS, CUT = 50, 20
# of every value, and of the mean over the steps: a drift to one side shows there first
TERMS = ("loss", "contrastive", "gaze", "mapping")
EXACT = dict.fromkeys([*TERMS, *(f"validation_{name}" for name in TERMS)], (2e-5, 2e-6))
# bfloat16 keeps eight bits: two roundings of the largest loss, 14; the mean parts by half a rounding of the mean one, 5
ROUNDED = dict.fromkeys(EXACT, (2 * 14 * 2**-8, 5 * 2**-9))
OFF = ("brightness", "contrast", "rotation_degrees", "shift_fraction", "flip_probability")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, phantom_data: Path) -> list[str]:
    fields: dict[str, Any] = json.loads(json.dumps(TINY))
    fields["egma_config"]["text_config"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fields["egma_config"]["vision_config"]["drop_path_rate"] = 0.0
    fields |= {"max_steps": STEPS, "evaluation_steps": 25, "heat_map_cases": 0, "report_to": "none"}
    # a similarity that rounding moves across a threshold, or past another one as the best, parts two runs for good: no
    # threshold, and so small steps that it shows little
    fields["egma_config"]["mapping_threshold"], fields["learning_rate"] = 0, 1e-4
    # one bucket of lengths where they are in buckets, so that little is compiled
    fields["max_length"] = 16
    preset = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    preset.write_text(yaml.safe_dump(fields | dict.fromkeys(OFF, 0.0)))
    return ["--config", str(preset), "--data", str(phantom_data)]


def trajectory(run: Path) -> dict[str, np.ndarray]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {name: np.array([line[name] for line in lines if name in line]) for name in EXACT}
    assert len(found["loss"]) == STEPS and len(found["validation_loss"]) == 2
    return found


def here(arguments: list[str], run: Path) -> None:
    assert train_egma.main([*arguments, "--output_dir", str(run)]) == 0


def apart(processes: int, *options: str) -> Callable[[list[str], Path], None]:
    """In processes of their own; `options` are the launcher's."""

    def start(arguments: list[str], run: Path) -> None:
        command = launched(arguments, run, processes)
        place = command.index("--mixed_precision")
        command[place : place + len(options)] = options
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stderr

    return start


def cut_off(arguments: list[str], run: Path) -> None:
    """Stopped by a signal, and gone on with."""
    step = TrainingRun._train_step

    def then_signal(self: TrainingRun, *args: Any) -> None:
        step(self, *args)
        if self.step == CUT:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "_train_step", then_signal)
        assert train_egma.main([*arguments, "--output_dir", str(run)]) == 143
    here([*arguments, "--resume", "auto"], run)


def with_all_sentences(arguments: list[str], run: Path) -> None:
    """Each tokenised and encoded as often as it is said, filled up to the longest."""

    def said(self: data.ReadingCollator, reports: list[list[str]]) -> dict[str, Any]:
        tokens = self.processor(text=[text for report in reports for text in report])
        images = [image for image, report in enumerate(reports) for _ in report]
        return {**tokens, "sentence_to_image": torch.tensor(images), "truncated_sentences": 0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.ReadingCollator, "_tokens", said)
        here(arguments, run)


WAYS: dict[str, tuple[Callable[[list[str], Path], None], list[str]]] = {
    "micro batches": (here, ["--micro_batch_size", "2"]),
    "workers": (here, ["--num_workers", "2"]),
    "resumed": (cut_off, []),
    "all sentences": (with_all_sentences, []),
    "two processes": (apart(2), ["--batch_size", "4"]),
    "two processes, micro batches": (apart(2), ["--batch_size", "4", "--micro_batch_size", "3"]),
}
NEARLY: dict[str, tuple[Callable[[list[str], Path], None], list[str], dict[str, tuple[float, float]]]] = {
    "compiled": (apart(1), ["--torch_compile", "True"], EXACT),
    "bf16": (apart(1, "--mixed_precision", "bf16"), [], ROUNDED),
}


@pytest.fixture(scope="module")
def whole(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    run = tmp_path_factory.mktemp("whole") / "run"
    here(arguments, run)
    return trajectory(run)


def assert_near(
    found: dict[str, np.ndarray],
    whole: dict[str, np.ndarray],
    bounds: dict[str, tuple[float, float]],
    record: Callable[[str, float], None],
) -> None:
    for field, (largest, mean) in bounds.items():
        residual = found[field] - whole[field]
        record(f"{field}, largest difference", float(np.abs(residual).max()))
        assert np.abs(residual).max() <= largest, field
        if len(residual) == STEPS:
            record(f"{field}, mean of differences", abs(float(residual.mean())))
            assert abs(residual.mean()) <= mean, field


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS)
def test_one_trajectory(
    arguments: list[str], whole: dict[str, np.ndarray], tmp_path: Path, record_difference: Any, way: str
) -> None:
    start, extra = WAYS[way]
    start([*arguments, *extra], tmp_path / "run")
    record = lambda name, value: record_difference(f"one trajectory, {name}", value)  # noqa: E731
    assert_near(trajectory(tmp_path / "run"), whole, EXACT, record)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", NEARLY)
def test_nearly_one_trajectory(
    arguments: list[str], whole: dict[str, np.ndarray], tmp_path: Path, record_difference: Any, way: str
) -> None:
    start, extra, bounds = NEARLY[way]
    start([*arguments, *extra], tmp_path / "run")
    record = lambda name, value: record_difference(f"{way}, {name}", value)  # noqa: E731
    assert_near(trajectory(tmp_path / "run"), whole, bounds, record)


def test_a_drift_to_one_side_is_seen(whole: dict[str, np.ndarray]) -> None:
    """Which the largest difference alone would let pass."""
    drifted = {name: values + EXACT[name][0] / 2 for name, values in whole.items()}
    with pytest.raises(AssertionError, match="mean"):
        assert_near(drifted, whole, EXACT, lambda *_: None)
    assert whole["loss"][-5:].mean() < whole["loss"][:5].mean() - 0.1
