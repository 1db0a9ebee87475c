"""What training costs: `python -m benchmarks.training [PART ...]`. See benchmarks/README.md."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.parts import ROOT, run_parts
from egma.training.sampling import EpochPlan
from modeling_egma.losses_egma import TILE_BYTES, late_interaction_logits, pad_reports, tiled_interaction

READINGS, STEPS, WARM_STEPS = 400, 12, 2
CONTRASTIVE_BATCH, MICRO_BATCHES = 256, (None, 64, 16)
PLAN_READINGS, PLAN_IMAGES = 400_000, 350_000
# images, patches, embedding dimension, sentences a report: the paper preset's 40 and a batch of 256
OBJECTIVES = ((40, 196, 512, 6), (256, 196, 512, 6))


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


def objective(folder: Path) -> None:
    """Bytes that late interaction keeps for its backward pass, tiled and not, and the time of both passes."""
    for size, patches, dimension, sentences in OBJECTIVES:
        _late_interaction(size, patches, dimension, sentences)


def _late_interaction(size: int, patches: int, dimension: int, sentences: int) -> None:
    image = torch.nn.functional.normalize(torch.randn(size, patches, dimension), dim=-1).requires_grad_()
    text = torch.nn.functional.normalize(torch.randn(size * sentences, dimension), dim=-1).requires_grad_()
    rows = torch.arange(size).repeat_interleave(sentences)
    plain = size * patches * size * sentences * 4
    kept, seconds = _kept_bytes(lambda: tiled_interaction(image * 10, pad_reports(text, rows, size), TILE_BYTES))
    print(
        f"late interaction of {size} images of {patches} patches with {size} reports of {sentences} sentences: "
        f"tiled keeps {kept / 2**20:.0f} MiB in {seconds:.2f} s; all similarities are {plain / 2**20:.0f} MiB"
    )
    if plain <= TILE_BYTES:
        kept, seconds = _kept_bytes(lambda: late_interaction_logits(image, text, rows, 10.0))
        print(f"  at once, as is done up to {TILE_BYTES // 2**20} MiB: keeps {kept / 2**20:.0f} MiB in {seconds:.2f} s")


def _kept_bytes(forward: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[int, float]:
    """Distinct storages that autograd saved, and the seconds of forward and backward."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = torch.stack([part.sum() for part in forward()]).sum()
    loss.backward()
    return sum(storages.values()), time.perf_counter() - start


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


PARTS = {"cached": cached, "throughput": throughput, "plan": plan, "objective": objective}


if __name__ == "__main__":
    run_parts(__doc__, PARTS)
