"""Ordinary days of a cluster: killed early, requeued when done, two starts on one folder, a full disk."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from accelerate.state import AcceleratorState
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from egma.programs import train as train_egma
from egma.tools.processes import ROOT
from egma.training import run as training_run
from egma.training.arguments import parse_settings
from egma.training.checkpoint import check_checkpoint, checkpoints
from egma.training.run import TrainingRun
from tests.egma.training.test_gather import free_port

from .test_resume import ENVIRONMENT, STEPS, assert_same, finish, interrupted_after, launched, lines, stopped
from .test_train import TINY

DISK_BYTES = 2**26


@pytest.fixture
def arguments(tmp_path: Path, phantom_data: Path) -> list[str]:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY | {"max_steps": STEPS, "evaluation_steps": 4}))
    return ["--config", str(preset), "--data", str(phantom_data), "--report_to", "none", "--heat_map_cases", "0"]


def plain(arguments: list[str], run: Path) -> list[str]:
    return [sys.executable, str(ROOT / "train_egma.py"), *arguments, "--output_dir", str(run)]


def test_one_line_serves_first_start_requeue_and_done(arguments: list[str], tmp_path: Path, capsys: Any) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    line = [*arguments, "--resume", "auto", "--output_dir", str(parts)]
    assert train_egma.main([*arguments, "--resume", "auto", "--output_dir", str(whole)]) == 0
    stopped(plain([*arguments, "--resume", "auto"], parts), parts, 2, signal.SIGKILL)
    assert checkpoints(parts) == [] and lines(parts)
    assert train_egma.main([*arguments, "--output_dir", str(parts)]) == 2
    assert f"{parts} already holds a run; go on with --resume auto" in capsys.readouterr().err
    assert train_egma.main(line) == 0
    assert_same(whole, parts)
    for folder in checkpoints(parts):
        shutil.rmtree(folder)
    before = (parts / "model.safetensors").stat().st_mtime_ns
    assert train_egma.main(line) == 0
    assert f"this run is finished, at step {STEPS}" in capsys.readouterr().out
    assert (parts / "model.safetensors").stat().st_mtime_ns == before
    assert train_egma.main([*line, "--learning_rate", "1"]) == 2
    assert "finished.json: learning_rate was 0.001 there and is 1.0 now" in capsys.readouterr().err


def test_checkpoints_come_by_steps_and_by_minutes(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = TrainingRun.save
    monkeypatch.setattr(TrainingRun, "save", lambda self: saved.append(self.step) or save(self))
    by_steps = ["--checkpoint_steps", "3", "--evaluation_steps", str(STEPS)]
    assert train_egma.main([*arguments, *by_steps, "--output_dir", str(tmp_path / "steps")]) == 0
    assert saved == [3, 6, 8]
    saved.clear()
    by_clock = ["--checkpoint_minutes", "0", "--evaluation_steps", str(STEPS), "--max_steps", "3"]
    assert train_egma.main([*arguments, *by_clock, "--output_dir", str(tmp_path / "minutes")]) == 0
    assert saved == [1, 2, 3]
    saved.clear()
    by_clock[1] = "60"
    assert train_egma.main([*arguments, *by_clock, "--output_dir", str(tmp_path / "hour")]) == 0
    assert saved == [3]


def test_of_two_starts_on_one_folder_one_runs_and_the_other_says_who(arguments: list[str], tmp_path: Path) -> None:
    command = plain([*arguments, "--max_steps", "80", "--evaluation_steps", "80", "--resume", "auto"], tmp_path / "run")
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], said
    refused = said[codes.index(2)].strip().splitlines()[-1]
    assert f"process {both[codes.index(0)].pid} of " in refused and "writes there" in refused
    assert [line["step"] for line in lines(tmp_path / "run") if "loss" in line] == list(range(1, 81))


@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (1, signal.SIGTERM)])
def test_a_launcher_that_dies_takes_its_workers_along(
    arguments: list[str], tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    output = tmp_path / "run"
    more = ["--batch_size", "4", "--max_steps", "100000", "--evaluation_steps", "100000"]
    launcher = subprocess.Popen(
        launched([*arguments, *more], output, processes),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (output / "metrics.jsonl").exists() or len(lines(output)) < 2:
        assert launcher.poll() is None
        time.sleep(0.05)
    workers = children(launcher.pid)
    assert len(workers) == processes
    launcher.send_signal(number)
    launcher.wait(timeout=60)
    with FileLock(output / ".lock", timeout=30):
        pass
    for _ in range(300):
        if not any(map(alive, workers)):
            break
        time.sleep(0.1)
    assert not any(map(alive, workers))
    # nothing is lost: the step at hand was finished and saved
    assert len(checkpoints(output)) == 1


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[-1][0] != "Z"
    return False


def test_ctrl_c_in_a_terminal_reaches_launcher_and_workers_and_loses_nothing(
    arguments: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = launched([*arguments, "--batch_size", "4", "--max_steps", "100000"], output, 2)
    said = stopped([*command, "--evaluation_steps", "100000"], output, 2, signal.SIGINT)
    for _ in range(300):
        if checkpoints(output):
            break
        time.sleep(0.1)
    assert len(checkpoints(output)) == 1, said


def test_a_run_is_extended_on_purpose_only(arguments: list[str], tmp_path: Path, capsys: Any) -> None:
    line = [*arguments, "--resume", "auto", "--output_dir", str(tmp_path / "run")]
    assert train_egma.main(line) == 0
    assert train_egma.main([*line, "--max_steps", "12"]) == 2
    assert "max_steps was 8 there and is 12 now; --extend goes on with more of them" in capsys.readouterr().err
    assert train_egma.main([*line, "--max_steps", "12", "--extend"]) == 0
    assert [found["step"] for found in lines(tmp_path / "run") if "loss" in found] == list(range(1, 13))
    assert checkpoints(tmp_path / "run")[-1].name == "checkpoint-12"
    # the same line again, as a batch system would
    assert train_egma.main([*line, "--max_steps", "12", "--extend"]) == 0
    assert train_egma.main([*line, "--max_steps", "12"]) == 0
    assert capsys.readouterr().out.count("finished, at step 12") == 2
    resume = ["--resume", str(tmp_path / "run" / "checkpoint-12"), "--output_dir", str(tmp_path / "shorter")]
    assert train_egma.main([*arguments, *resume, "--extend", "--max_steps", "10"]) == 2
    assert "of 12 steps, here 10; expected as many or more" in capsys.readouterr().err


def test_a_resume_shares_everything_but_paths_logging_and_workers(
    arguments: list[str], tmp_path: Path, phantom_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        assert train_egma.main([*arguments, "--output_dir", str(output)]) == 143
    resume = ["--resume", "auto", "--output_dir"]
    for changed, message in (
        (["--tf32", "False", "--gradient_checkpointing", "True"], "gradient_checkpointing was False there and is True"),
        (["--gaze_weight", "0.5"], "config.gaze_weight was 1.0 there and is 0.5 now"),
        (["--egma_config", '{"zero_shot_score": "late_interaction"}'], "config.zero_shot_score was "),
        (["--shift_fraction", "0.06"], "shift_fraction was 0.05 there and is 0.06 now"),
    ):
        assert train_egma.main([*arguments, *changed, *resume, str(output)]) == 2
        assert message in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        AcceleratorState._reset_state(reset_partial_state=True)
        assert train_egma.main([*arguments, *resume, str(output)]) == 2
        assert "precision was 'no' there and is 'bf16' now" in capsys.readouterr().err
    AcceleratorState._reset_state(reset_partial_state=True)
    shutil.copytree(phantom_data, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    free = ["--data", "moved", "--config", "tiny.yaml", "--num_workers", "2", "--log_steps", "3", "--gaze_weight", "1"]
    assert train_egma.main([*arguments, *free, "--evaluation_steps", "8", *resume, "run"]) == 0


@contextlib.contextmanager
def small_files(largest: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_when_the_best_model_is_written_loses_nothing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output, export = tmp_path / "run", training_run.export_best

    def cramped(*given: Any) -> None:
        with small_files(20_000):
            export(*given)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "export_best", cramped)
        assert train_egma.main([*arguments, "--output_dir", str(output)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {output}: the best model cannot be written (") and "File too large" in error
    assert not (output / "model.safetensors").exists() and not list(output.glob(".partial*"))
    assert train_egma.main([*arguments, "--resume", "auto", "--output_dir", str(output)]) == 0
    best = json.loads((output / "finished.json").read_text())["best_step"]
    exported = AutoModel.from_pretrained(output).state_dict()
    kept = load_file(output / f"checkpoint-{best}" / "model.safetensors")
    assert exported.keys() == kept.keys() and all(torch.equal(exported[name], kept[name]) for name in kept)


@pytest.mark.parametrize("largest", [100, 20_000])
def test_a_full_disk_ends_in_one_sentence(arguments: list[str], tmp_path: Path, largest: int, capsys: Any) -> None:
    """At the first lines that are written, and at the first checkpoint."""
    with small_files(largest):
        assert train_egma.main([*arguments, "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "File too large" in error
    assert not list((tmp_path / "run").glob(".partial*")) and not checkpoints(tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "egma-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_two_processes_on_a_disk_that_fills_go_on_bit_for_bit(
    arguments: list[str], tmp_path: Path, small_disk: Path
) -> None:
    """Full at the second checkpoint: the first one is whole, and all that there is."""
    arguments += ["--batch_size", "4", "--evaluation_steps", "2"]
    whole, parts, filler = tmp_path / "whole", small_disk / "parts", small_disk / "filler"
    finish(launched(arguments, whole, 2))
    first = sum(path.stat().st_size for path in (whole / f"checkpoint-{STEPS}").iterdir())
    filler.write_bytes(bytes(DISK_BYTES - int(1.5 * first)))
    command = [*launched(arguments, parts, 2), "--resume", "auto"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    # the only traceback is the launcher's own, of a child that ended with a code
    own, _, launchers = done.stderr.partition("Traceback (most recent call last)")
    assert "Traceback" not in launchers and "ChildFailedError" in launchers, done.stderr
    said = [line for line in own.splitlines() if line.startswith("error: ")]
    assert said and set(said) == {said[0]}
    assert "checkpoint-4: cannot be written (No space left on device); it needs" in said[0]
    assert said[0].endswith("kept: checkpoint-2")
    assert [folder.name for folder in checkpoints(parts)] == ["checkpoint-2"] and not list(parts.glob(".partial*"))
    check_checkpoint(parts / "checkpoint-2")
    filler.unlink()
    finish(command)
    assert_same(whole, parts)


def test_a_folder_that_cannot_be_made_ends_in_one_sentence(arguments: list[str], tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "tiny.yaml" / "run"
    assert train_egma.main([*arguments, "--output_dir", str(output)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and str(output) in error


def test_plain_python_keeps_the_exit_codes_and_launchers_say_one(arguments: list[str], tmp_path: Path) -> None:
    def code(command: list[str]) -> tuple[int, str]:
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stderr

    wrong = [*arguments, "--batch_size", "many"]
    assert code(plain(wrong, tmp_path / "run"))[0] == 2
    found, said = code(launched(wrong, tmp_path / "run", 1))
    assert found == 1 and "Traceback" not in said and "error: command line" in said
    long = plain([*arguments, "--max_steps", "100000"], tmp_path / "long")
    process = subprocess.Popen(long, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tmp_path / "long" / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


@pytest.mark.parametrize(
    "start", [["--model", "runs/typo"], ["--vision_model", "runs/typo", "--text_model", "runs/typo"]]
)
def test_a_mistyped_folder_fails_without_asking_the_hub(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, start: list[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"egma_config": {}}))
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("the Hub was asked"))
    assert train_egma.main([*arguments, *start, "--output_dir", str(tmp_path / "run")]) == 2
    assert (
        "error: runs/typo: no such folder; expected one with a model, or one that `hf download"
        in capsys.readouterr().err
    )


def resumed_on_two_machines(rank: int, arguments: list[str], folders: list[str], answers: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    codes, seed = [], torch.manual_seed
    torch.manual_seed = lambda number: Path(answers, f"seed-{rank}").write_text(str(number)) and seed(number)  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        if len(folders) == 3:
            interrupted_after(patch, 3)
        codes.append(train_egma.main([*arguments, "--resume", "auto", "--output_dir", folders[rank]]))
    Path(answers, f"codes-{rank}").write_text(str(codes))


def test_only_the_first_machine_needs_the_folder_and_each_process_has_a_dropout_of_its_own(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments += ["--batch_size", "4"]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(first: Path, second: Path, *interrupt: str) -> list[str]:
        monkeypatch.setenv("MASTER_PORT", str(free_port()))
        given = (arguments, [str(first), str(second), *interrupt], str(tmp_path))
        mp.spawn(resumed_on_two_machines, given, nprocs=2)
        return [(tmp_path / f"codes-{rank}").read_text() for rank in range(2)]

    nowhere = tmp_path / "nowhere"
    assert start(tmp_path / "whole", nowhere) == ["[0]", "[0]"]
    assert start(tmp_path / "parts", nowhere, "interrupted") == ["[143]", "[143]"]
    assert start(tmp_path / "parts", nowhere) == ["[0]", "[0]"]
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert not nowhere.exists()
    assert (tmp_path / "seed-0").read_text() != (tmp_path / "seed-1").read_text()


def test_a_seed_that_numpy_does_not_take_is_refused(arguments: list[str], capsys: Any) -> None:
    assert train_egma.main([*arguments, "--output_dir", "nowhere", "--seed", str(2**32)]) == 2
    assert "seed is 4294967296, expected a number from 0 to" in capsys.readouterr().err
    assert parse_settings([*arguments, "--output_dir", "nowhere", "--seed", str(2**32 - 1)]).seed == 2**32 - 1
