"""A run that was cut off goes on bit for bit, through the program, by signal or kill -9, on one process and on two."""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dataset_scripts.identity import corpus_identity, model_identity
from egma.programs import train as train_egma
from egma.tools.processes import ROOT
from egma.training.run import TrainingRun

from .test_train import TINY

STEPS = 8
# dropout is BERT's default; five or six steps an epoch, so 2 and 7 lie inside one
CUTS = (2, 5, 7)
WAYS: dict[str, list[str]] = {
    "plain": [],
    "workers": ["--num_workers", "2"],
    "accumulated": ["--batch_size", "4", "--gradient_accumulation_steps", "2"],
    "cached": ["--micro_batch_size", "3"],
    "streamed": ["--streaming", "True", "--shuffle_buffer", "16", "--crop_fraction", "0.2"],
}


@pytest.fixture
def arguments(tmp_path: Path, phantom_data: Path) -> list[str]:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY | {"max_steps": STEPS, "evaluation_steps": 4, "crop_fraction": 0.1}))
    return ["--config", str(preset), "--data", str(phantom_data), "--report_to", "none"]


def saved(run: Path) -> dict[str, torch.Tensor]:
    """Weights, moments and random states after the last step."""
    folder = run / f"checkpoint-{STEPS}"
    return {
        f"{path.name} {name}": value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def lines(run: Path) -> list[dict[str, Any]]:
    """Metrics but for what a clock or the machine says."""
    clocks = ("pairs_per_second", "data_wait_seconds", "memory_gigabytes")
    parsed = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in clocks} for line in parsed]


def assert_same(one: Path, other: Path) -> None:
    first, second = saved(one), saved(other)
    assert first.keys() == second.keys() and len(first) > 20
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert lines(one) == lines(other)
    states = [json.loads((run / f"checkpoint-{STEPS}" / "state.json").read_text()) for run in (one, other)]
    differing = {name for name in states[0] if states[0][name] != states[1][name]}
    assert differing <= {"settings"}
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def interrupted_after(monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    step = TrainingRun._train_step

    def then_signal(self: TrainingRun, *args: Any) -> None:
        step(self, *args)
        if self.step == cut:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingRun, "_train_step", then_signal)


@pytest.mark.parametrize(
    ("way", "cut"),
    [*(("plain", cut) for cut in CUTS), *zip(WAYS, (3, 5, 2, 7, 7), strict=True)],
)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, way: str, cut: int
) -> None:
    """With dropout and augmentation on."""
    arguments += WAYS[way]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_egma.main([*arguments, "--output_dir", str(whole)]) == 0
    with monkeypatch.context() as patch:
        interrupted_after(patch, cut)
        assert train_egma.main([*arguments, "--output_dir", str(parts)]) == 143
    assert f"SIGTERM at step {cut}: a checkpoint is written; go on with --resume auto" in capsys.readouterr().err
    torch.rand(3)
    assert train_egma.main([*arguments, "--output_dir", str(parts), "--resume", "auto"]) == 0
    assert_same(whole, parts)


def launched(arguments: list[str], run: Path, processes: int) -> list[str]:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", str(processes)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    # what accelerate calls several CPU processes (its --cpu would start one)
    launch += ["--multi_gpu"] if processes > 1 else []
    return [*launch, str(ROOT / "train_egma.py"), *arguments, "--output_dir", str(run)]


ENVIRONMENT = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def finish(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def stopped(command: list[str], run: Path, step: int, number: signal.Signals) -> str:
    """Start, and send the whole group a signal when `step` is in the metrics; returns what it said."""
    log = run.with_suffix(".log").open("w+")
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    for _ in itertools.count():
        if (run / "metrics.jsonl").exists() and any(line["step"] >= step for line in lines(run)):
            break
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.wait(timeout=120)
    log.seek(0)
    return log.read()


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_and_kill_of_a_launched_run(arguments: list[str], tmp_path: Path, processes: int) -> None:
    arguments += ["--batch_size", "4", "--evaluation_steps", "2", "--max_steps", str(STEPS)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(launched(arguments, whole, processes))
    command = launched(arguments, parts, processes)
    if processes == 2:
        said = stopped(command, parts, 3, signal.SIGTERM)
        assert "a checkpoint is written" in said
    else:
        stopped(command, parts, 3, signal.SIGKILL)
    assert not (parts / "model.safetensors").exists()
    finish([*command, "--resume", "auto"])
    assert_same(whole, parts)


def test_a_corpus_or_starting_model_that_changed_is_not_gone_on_with(
    arguments: list[str], tmp_path: Path, phantom_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    data, start = tmp_path / "data", tmp_path / "start"
    shutil.copytree(phantom_data, data)
    assert train_egma.main([*arguments, "--max_steps", "1", "--output_dir", str(start)]) == 0
    preset = tmp_path / "again.yaml"
    preset.write_text(yaml.safe_dump(TINY | {"egma_config": {}, "model": str(start), "max_steps": 4}))
    command = ["--config", str(preset), "--data", str(data), "--report_to", "none", "--output_dir", str(tmp_path / "r")]
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        assert train_egma.main(command) == 143
    origin = json.loads((tmp_path / "r" / "training_state.json").read_text())["origin"]
    assert origin == {"content of data": [corpus_identity(data)], "content of model": model_identity(start)}
    shard, settings = next(data.glob("data/train-*.parquet")), start / "processor_config.json"
    for path, changed in ((settings, settings.read_bytes() + b" "), (shard, turned(shard))):
        before = path.read_bytes()
        path.write_bytes(changed)
        assert train_egma.main([*command, "--resume", "auto"]) == 2
        named = "content of data" if path == shard else "content of model"
        assert f"checkpoint-2: {named} was {origin[named]!r} there" in capsys.readouterr().err
        path.write_bytes(before)
    assert train_egma.main([*command, "--resume", "auto"]) == 0


def turned(shard: Path) -> bytes:
    """The same rows from the last to the first."""
    table, sink = pq.read_table(shard), io.BytesIO()
    pq.write_table(table.take(list(range(len(table)))[::-1]), sink)
    return sink.getvalue()
