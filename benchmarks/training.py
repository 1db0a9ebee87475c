"""What training costs: `python -m benchmarks.training [PART ...]`. See benchmarks/README.md."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.parts import ROOT, run_parts
from egma.training.sampling import EpochPlan

READINGS, STEPS, WARM_STEPS = 400, 12, 2
CONTRASTIVE_BATCH, MICRO_BATCHES = 256, (None, 64, 16)
PLAN_READINGS, PLAN_IMAGES = 400_000, 350_000


class Measured(NamedTuple):
    """Medians over the steps of a run, and its largest resident memory."""

    step_seconds: float
    wait_seconds: float
    pairs_per_second: float
    gigabytes: float

    @property
    def work_seconds(self) -> float:
        return self.step_seconds - self.wait_seconds


def cached(folder: Path) -> None:
    """The whole batch's graph against cached gradients, data apart, as runs one after the other."""
    data = corpus(folder)
    whole: Measured | None = None
    for micro in MICRO_BATCHES:
        extra = [] if micro is None else ["--micro_batch_size", str(micro)]
        found = _train(data, ["--batch_size", str(CONTRASTIVE_BATCH), *extra])
        whole = whole or found
        print(
            f"{CONTRASTIVE_BATCH} readings a batch, {'whole' if micro is None else f'in micro batches of {micro}'}: "
            f"{found.work_seconds:.2f} s a step ({found.work_seconds / whole.work_seconds:.2f} times the whole), "
            f"{found.gigabytes:.2f} GB at most ({found.gigabytes / whole.gigabytes:.2f})"
        )


def throughput(folder: Path) -> None:
    """Pairs a second and the wait for data, with the batches made in the process and by workers."""
    data = corpus(folder)
    for workers in (0, 1):
        found = _train(data, ["--num_workers", str(workers)])
        print(
            f"configs/phantom.yaml, {workers} worker(s): {found.pairs_per_second:.1f} pairs/s, "
            f"{found.wait_seconds * 1000:.1f} ms of {found.step_seconds * 1000:.0f} ms a step waiting for data"
        )


def plan(folder: Path) -> None:
    """An epoch's batches of a corpus of MIMIC-CXR's size, several readings of one image kept apart."""
    random = np.random.default_rng(0)
    images = random.integers(PLAN_IMAGES, size=PLAN_READINGS)
    start = time.perf_counter()
    batches = EpochPlan(images, [PLAN_READINGS], None, 1024, 0).epoch(0)
    seconds = time.perf_counter() - start
    print(f"plan of {PLAN_READINGS:,} readings of {PLAN_IMAGES:,} images, {len(batches)} batches: {seconds:.2f} s")


def corpus(folder: Path) -> Path:
    data = folder / "training-data"
    if not data.exists():
        raw = folder / "training-raw"
        _python("-m", "dataset_scripts.phantom", "--output", str(raw), "--readings", str(READINGS))
        _python("-m", "dataset_scripts.build", "mimic_eye", "--source", str(raw), "--output", str(data))
    return data


def _train(data: Path, extra: list[str]) -> Measured:
    """A few steps of the small preset through the program, in a process of its own."""
    with tempfile.TemporaryDirectory() as output:
        common = [
            "--config",
            "configs/phantom.yaml",
            "--data",
            str(data),
            "--output_dir",
            output,
            "--report_to",
            "none",
        ]
        steps = ["--max_steps", str(STEPS), "--evaluation_steps", str(STEPS), "--heat_map_cases", "0"]
        _python("train_egma.py", *common, *steps, *extra)
        lines = [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]
        batch = json.loads((Path(output) / "training_state.json").read_text())["settings"]["batch_size"]
    taken = [line for line in lines if "loss" in line][WARM_STEPS:]
    pairs, wait = (
        float(np.median([line[name] for line in taken])) for name in ("pairs_per_second", "data_wait_seconds")
    )
    return Measured(batch / pairs, wait, pairs, max(line["memory_gigabytes"] for line in taken))


def _python(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


PARTS = {"cached": cached, "throughput": throughput, "plan": plan}


if __name__ == "__main__":
    run_parts(__doc__, PARTS)
