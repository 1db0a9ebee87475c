"""kill -9 at random moments of a run on two processes, of a rank or of the launcher: no bit of the weights changes.

    EGMA_RANDOM_KILLS=50 pytest tests/egma/programs/test_random_kills.py -s

A few where it is not asked; EGMA_RANDOM_KILLS_SECONDS ends earlier.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from egma.tools.processes import ROOT

from .test_resume import ENVIRONMENT, STEPS, assert_same, finish, launched
from .test_train import TINY

KILLS = int(os.environ.get("EGMA_RANDOM_KILLS", "3"))
SECONDS = float(os.environ.get("EGMA_RANDOM_KILLS_SECONDS", "inf"))
END_SECONDS = 120


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    try:
        return [int(word) for word in listed.read_text().split()]
    except OSError:
        return []


def is_rank(process: int) -> bool:
    try:
        return b"train_egma.py" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def wait_for_end(processes: list[int]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while any(Path(f"/proc/{one}").exists() and "\nState:\tZ" not in state(one) for one in processes):
        assert time.monotonic() < deadline, "processes outlive the one that was killed"
        time.sleep(0.1)


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/status").read_text()
    except OSError:
        return ""


def killed(command: list[str], run: Path, log: Path, draws: random.Random, victim: str) -> bool:
    """Start, kill -9 one at a random moment, wait for all; False where it had come to its end before.

    The moment is some seconds after the start, or within one after the first lines of metrics, so that a busy machine
    is killed in its steps, too.
    """
    metrics, changes = run / "metrics.jsonl", draws.randint(0, 6)
    seen = metrics.stat().st_mtime_ns if metrics.exists() else 0
    with log.open("a") as sink:
        launcher = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=sink, stderr=sink, start_new_session=True
        )
    while changes and launcher.poll() is None:
        time.sleep(0.005)
        now = metrics.stat().st_mtime_ns if metrics.exists() else 0
        seen, changes = now, changes - (now != seen)
    deadline = time.monotonic() + draws.uniform(0, 1 if metrics.exists() else 30)
    while time.monotonic() < deadline and launcher.poll() is None:
        time.sleep(0.005)
    ranks = sorted(filter(is_rank, children(launcher.pid)))
    target = launcher.pid if victim == "launcher" or not ranks else ranks[int(victim) % len(ranks)]
    alive = launcher.poll() is None
    if alive:
        os.kill(target, signal.SIGKILL)
    launcher.wait(timeout=END_SECONDS)
    wait_for_end(ranks)
    return alive


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="ranks are found in /proc")
def test_random_kills_change_no_bit(tmp_path: Path, phantom_data: Path) -> None:
    preset = tmp_path / "tiny.yaml"
    settings = {"max_steps": STEPS, "evaluation_steps": 2, "batch_size": 4, "crop_fraction": 0.1}
    preset.write_text(yaml.safe_dump(TINY | settings))
    arguments = ["--config", str(preset), "--data", str(phantom_data), "--report_to", "none", "--num_workers", "0"]
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    begun = time.monotonic()
    finish(launched(arguments, whole, 2))
    seconds, draws, done, ends = time.monotonic() - begun, random.Random(0), Counter[str](), 0
    command = [*launched(arguments, parts, 2), "--resume", "auto"]
    while done.total() < KILLS and time.monotonic() - begun < SECONDS:
        victim = draws.choice(["launcher", "0", "1"])
        if killed(command, parts, log, draws, victim):
            done[victim] += 1
            continue
        assert (parts / "model.safetensors").exists(), log.read_text()[-3000:]
        assert_same(whole, parts)
        shutil.rmtree(parts)
        ends += 1
    finish(command)
    assert_same(whole, parts)
    print(f"\n{dict(done)}: {done.total()} kills, {ends + 1} runs came to their end, {seconds:.0f} s undisturbed")
