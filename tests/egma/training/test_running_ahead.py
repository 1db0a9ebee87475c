"""A device that runs ahead of the host: figures fetched together, a broken step found late and skipped at once.

There is no GPU here: the run is told that its device runs ahead, and a fused optimiser asks on the CPU what it would
ask there.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from transformers import PretrainedConfig

from dataset_scripts.schema import UserError
from egma.programs import train as train_egma
from egma.training import run as training_run
from egma.training.arguments import parse_settings
from egma.training.devices import check_windows, parameter_groups
from egma.training.run import TrainingRun
from tests.egma.programs.test_resume import lines
from tests.egma.programs.test_train import TINY

STEPS = 7


@pytest.fixture
def arguments(tmp_path: Path, phantom_data: Path) -> list[str]:
    preset = tmp_path / "tiny.yaml"
    changes = {"max_steps": STEPS, "evaluation_steps": STEPS, "log_steps": 3, "heat_map_cases": 0, "report_to": "none"}
    preset.write_text(yaml.safe_dump(TINY | changes))
    return ["--config", str(preset), "--data", str(phantom_data), "--output_dir"]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    build = TrainingRun.__init__

    def built(self: TrainingRun, settings: Any) -> None:
        build(self, settings)
        self.runs_ahead = True

    def fused(model: torch.nn.Module, settings: Any, device: torch.device) -> torch.optim.AdamW:
        return torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)

    monkeypatch.setattr(TrainingRun, "__init__", built)
    monkeypatch.setattr(training_run, "make_optimizer", fused)


class Asks(TorchDispatchMode):
    """Counts what makes a host wait for a GPU: a number that is read, a shape that depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(part in name for part in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default", "_unique")):
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


def uncounted(call: Any, *given: Any) -> Any:
    with _disable_current_modes():
        return call(*given)


@pytest.mark.usefixtures("ahead")
def test_no_step_reads_a_number_between_fetches(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apart from the batch, which the host makes, and the passes through the model."""
    step, whole_step, asked, fetched = TrainingRun._train_step, training_run.whole_step, [], []

    def counted(self: TrainingRun, batches: Iterator[Any]) -> None:
        with Asks() as asks:
            step(self, iter(lambda: uncounted(next, batches), None))
        asked.append(asks.asked)

    fetch = TrainingRun._fetch
    monkeypatch.setattr(TrainingRun, "_train_step", counted)
    monkeypatch.setattr(training_run, "whole_step", lambda *given: uncounted(whole_step, *given))
    monkeypatch.setattr(TrainingRun, "_fetch", lambda self: fetched.append(self.step) or fetch(self))
    assert train_egma.main([*arguments, str(tmp_path / "run")]) == 0
    # at the end before the validation and, with nothing left, before the checkpoint
    assert fetched == [3, 6, 7, 7]
    assert asked == [[]] * STEPS
    with Asks() as seen:
        float(torch.ones(()))
    assert seen.asked


def test_figures_and_weights_are_those_of_a_run_that_waits_for_every_step(
    arguments: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert train_egma.main([*arguments, str(tmp_path / "waits")]) == 0
    request.getfixturevalue("ahead")
    assert train_egma.main([*arguments, str(tmp_path / "ahead")]) == 0
    waits, ahead = lines(tmp_path / "waits"), lines(tmp_path / "ahead")
    assert [line["step"] for line in ahead] == [line["step"] for line in waits] == [*range(1, STEPS + 1), STEPS]
    for one, other in zip(waits, ahead, strict=True):
        # the fused optimiser rounds otherwise
        assert one.keys() == other.keys() and other == pytest.approx(one, rel=2e-3)


@pytest.mark.parametrize("broken", ["loss", "gradient norm"])
@pytest.mark.usefixtures("ahead")
def test_a_broken_step_updates_nothing_from_there_on_and_is_named_at_the_next_fetch(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, broken: str
) -> None:
    """Step 4 is broken, the next fetch is after step 6."""
    step, weights, steps = TrainingRun._train_step, [], []
    named: list[str] = []
    whole_step = training_run.whole_step

    def kept(self: TrainingRun, batches: Any) -> None:
        try:
            step(self, batches)
        finally:
            weights.append({name: value.clone() for name, value in self.training.model.state_dict().items()})

    def poisoned(accelerator: Any, module: Any, taken: Any) -> Any:
        loss, terms = whole_step(accelerator, module, taken)
        steps.append(len(steps) + 1)
        if steps[-1] == 4:
            named.extend(taken[0]["reading_ids"])
            if broken == "loss":
                loss = loss * float("nan")
            else:
                next(p for p in module.parameters() if p.grad is not None).grad.fill_(float("inf"))
        return loss, terms

    monkeypatch.setattr(TrainingRun, "_train_step", kept)
    monkeypatch.setattr(training_run, "whole_step", poisoned)
    assert train_egma.main([*arguments, str(tmp_path / "run")]) == 2
    assert steps == [1, 2, 3, 4, 5, 6]
    error = capsys.readouterr().err
    assert f"step 4: the {broken} is {'nan' if broken == 'loss' else 'inf'}; nothing was updated" in error
    found = json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())
    assert found["step"] == 4 and found["reading_ids"] == named
    for after in weights[3:]:
        assert all(torch.equal(after[name], weights[2][name]) for name in after)
    assert not torch.equal(weights[1]["logit_scale"], weights[2]["logit_scale"])
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize(("size", "fits"), [(1023, True), (1024, False)])
def test_more_windows_than_a_gpu_takes_are_refused_before_training(size: int, fits: bool) -> None:
    """1,024 images of 64 windows ended in the backward pass with 65536 against 65535."""
    swin = PretrainedConfig(image_size=224, patch_size=4, window_size=7)
    given = ["--data", "d", "--output_dir", "o", "--vision_model", "v", "--text_model", "t", "--batch_size", str(size)]
    settings = parse_settings(given)
    check_windows(swin, settings, torch.device("cpu"))
    check_windows(PretrainedConfig(image_size=224, patch_size=16), settings, torch.device("cuda"))
    check_windows(swin, parse_settings([*given, "--micro_batch_size", "64"]), torch.device("cuda"))
    if fits:
        check_windows(swin, settings, torch.device("cuda"))
        return
    with pytest.raises(UserError, match=r"1024 images of 64 attention windows .* --micro_batch_size 1023 keeps"):
        check_windows(swin, settings, torch.device("cuda"))
