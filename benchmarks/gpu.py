"""What a GPU makes of a training step: `python -m benchmarks.gpu [--output FILE]`. See benchmarks/README.md.

Ceilings, towers, objective, step, grid limit, and the program by its command line; writes JSON and a table. Without a
GPU it runs at a tiny size, which says nothing but that it runs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import set_seed

from benchmarks.parts import ROOT
from egma.training.arguments import parse_settings
from egma.training.devices import check_windows, make_module, parameter_groups
from egma.training.gather import Features
from egma.training.step import whole_step
from modeling_egma import EgmaConfig, EgmaModel

TERMS = ("contrastive", "gaze", "mapping")
SENTENCES, SHORTEST, LONGEST = 5, 6, 32
SWIN_TINY: dict[str, Any] = {"model_type": "swin", "image_size": 224}
BERT_BASE: dict[str, Any] = {"model_type": "bert"}


class Size(NamedTuple):
    """What is timed. `workers`: of the program, None being its own choice."""

    vision: dict[str, Any]
    text: dict[str, Any]
    width: int
    batches: tuple[int, ...]
    objectives: tuple[tuple[int, int], ...]
    product: int
    repeats: int
    limit: int
    readings: int
    picture: int
    program_batch: int
    program_steps: int
    workers: tuple[int | None, ...]


WHOLE = Size(
    SWIN_TINY,
    BERT_BASE,
    512,
    (64, 256),
    ((64, 49), (256, 49), (1024, 49), (2048, 49), (64, 1369), (256, 1369)),
    *(8192, 10, 1024, 1500, 512, 128, 40, (None, 0, 8)),
)
TINY = Size(
    {"model_type": "swin", "image_size": 56, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 7},
    {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    16,
    (4,),
    ((4, 49),),
    *(64, 2, 8, 40, 64, 4, 4, (0,)),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "benchmarks" / "gpu.json")
    parser.add_argument("--without_program", action="store_true", help="the towers, the objective and the step alone")
    arguments = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = WHOLE if device.type == "cuda" else TINY
    started = time.perf_counter()
    parts = [ceilings, towers_and_step, objective, grid_limit] + ([] if arguments.without_program else [program])
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    results: dict[str, Any] = {"card": card, "cores": os.cpu_count(), "torch": torch.__version__}
    for part in parts:
        results[part.__name__] = part(size, device)
        # what was found stands, should the next part not come to its end
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(results))
    return 0


def ceilings(size: Size, device: torch.device) -> dict[str, float]:
    """The bf16 matrix product and the copy that this card can do, TFLOP/s and TB/s."""
    a, b = (torch.randn(size.product, size.product, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = timed(lambda: a @ b, size.repeats, device).seconds
    copy = timed(lambda: a.clone(), size.repeats, device).seconds
    return {
        "bf16_teraflops": 2 * size.product**3 / product / 1e12,
        "copy_terabytes_per_second": 2 * a.nbytes / copy / 1e12,
    }


def towers_and_step(size: Size, device: torch.device) -> list[dict[str, Any]]:
    """Each tower, our step and that of the same towers with a plain CLIP loss, bf16 autocast, fused AdamW."""
    return [_towers_and_step(size, batch_size, device) for batch_size in size.batches]


def _towers_and_step(size: Size, batch_size: int, device: torch.device) -> dict[str, Any]:
    model = make_model(size, device)
    module = make_module(model, device).train()
    batch = make_batch(model, batch_size, device)
    accelerator = Accelerator()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=device.type == "cuda" or None)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16)

    def image() -> None:
        with autocast():
            model.encode_images(batch["pixel_values"])[1].sum().backward()

    def text() -> None:
        with autocast():
            model.encode_text(batch["input_ids"], batch["attention_mask"]).sum().backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def step() -> None:
        with autocast():
            whole_step(accelerator, module, [batch])
        update()

    def clip() -> None:
        with autocast():
            features = module(batch, stage="features")
        clip_loss(features, model.logit_scale).backward()
        update()

    with torch.no_grad(), FlopCounterMode(display=False) as counter, autocast():
        module(batch, stage="features")
    found = {
        name: timed(call, size.repeats, device)
        for name, call in (("image", image), ("text", text), ("clip_step", clip), ("step", step))
    }
    return {
        "batch": batch_size,
        **{f"{name}_seconds": one.seconds for name, one in found.items()},
        "step_gibibytes": found["step"].whole_gibibytes,
        "pairs_per_second": batch_size / found["step"].seconds,
        "encoder_teraflops": 3 * counter.get_total_flops() / 1e12,
        "real_tokens": float(batch["attention_mask"].float().mean()),
        "host_synchronisations": synchronisations(step, device),
    }


def objective(size: Size, device: torch.device) -> list[dict[str, Any]]:
    """Each term alone, float32: seconds of both passes, and the most memory beyond its inputs."""
    rows = []
    for images, patches in size.objectives:
        features = make_features(images, patches, size.width, device)
        row: dict[str, Any] = {"images": images, "patches": patches}
        for term in TERMS:
            row[term] = measured_term(size, term, features, device)
        rows.append(row)
    return rows


def measured_term(size: Size, term: str, features: Features, device: torch.device) -> dict[str, float] | None:
    """None where the device has not the memory."""
    weights = {f"{name}_weight": float(name == term) for name in TERMS}
    # the towers have no part in it
    model = make_model(TINY._replace(width=size.width), device, **weights)

    def both() -> None:
        features.patches.grad = features.sentences.grad = None
        model.objective(*features)[0].backward()

    try:
        found = timed(both, size.repeats, device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return {"seconds": found.seconds, "gibibytes": found.gibibytes}


def grid_limit(size: Size, device: torch.device) -> dict[str, Any]:
    """A batch with more windows than the attention kernel takes: refused before training, or trained."""
    shape = EgmaConfig(vision_config=size.vision, text_config=size.text).vision_config
    given = ["--data", "d", "--output_dir", "o", "--vision_model", "v", "--text_model", "t"]
    try:
        check_windows(shape, parse_settings([*given, "--batch_size", str(size.limit)]), device)
        said = "taken"
    except ValueError as error:
        said = str(error)
    return {"batch": size.limit, "said": said}


def program(size: Size, device: torch.device) -> list[dict[str, Any]]:
    """`accelerate launch train_egma.py` on a generated corpus: medians of the steps after the first eight."""
    with tempfile.TemporaryDirectory() as folder:
        data, towers = Path(folder, "data"), Path(folder, "start.yaml")
        raw, cores = Path(folder, "raw"), str(os.cpu_count() or 1)
        phantom = ("-m", "dataset_scripts.phantom", "--output", raw, "--readings", size.readings, "--num-proc", cores)
        run_python(*phantom)
        build = ("-m", "dataset_scripts.build", "mimic_eye", "--source", raw, "--output", data, "--num-proc", cores)
        run_python(*build, "--image-size", size.picture)
        fields = {"vision_config": size.vision, "text_config": size.text, "projection_dim": size.width}
        towers.write_text(json.dumps({"egma_config": fields}), encoding="utf-8")
        return [_program(size, device, data, towers, workers) for workers in size.workers]


def _program(size: Size, device: torch.device, data: Path, preset: Path, workers: int | None) -> dict[str, Any]:
    precision = "bf16" if device.type == "cuda" else "no"
    with tempfile.TemporaryDirectory() as output:
        launch = ("-m", "accelerate.commands.launch", "--quiet", "--num_processes", 1, "--num_machines", 1)
        given = ("--config", preset, "--data", data, "--output_dir", output, "--batch_size", size.program_batch)
        steps = ("--max_steps", size.program_steps, "--evaluation_steps", size.program_steps, "--heat_map_cases", 0)
        feeding = () if workers is None else ("--num_workers", workers)
        started = time.perf_counter()
        train = (ROOT / "train_egma.py", *given, *steps, *feeding, "--report_to", "none")
        run_python(*launch, "--mixed_precision", precision, "--dynamo_backend", "no", *train)
        seconds = time.perf_counter() - started
        lines = [json.loads(line) for line in Path(output, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    taken = [line for line in lines if "loss" in line]
    later = taken[min(8, len(taken) - 1) :]
    pairs = sum(size.program_batch / line["pairs_per_second"] for line in later)
    return {
        "workers": workers,
        "pairs_per_second": len(later) * size.program_batch / pairs,
        "wait_seconds_a_step": sum(line["data_wait_seconds"] for line in later) / len(later),
        "whole_seconds": seconds,
    }


def run_python(*words: object) -> None:
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])


class Measured(NamedTuple):
    """Median seconds of a call, and the most memory, with and without what was there before."""

    seconds: float
    gibibytes: float
    whole_gibibytes: float


def timed(call: Callable[[], object], repeats: int, device: torch.device) -> Measured:
    """Two calls to warm up, then `repeats`, each waited for."""
    for _ in range(2):
        call()
    wait(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Measured(sorted(seconds)[len(seconds) // 2], (peak - before) / 2**30, peak / 2**30)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def synchronisations(call: Callable[[], object], device: torch.device) -> int | None:
    """How often one call makes the host wait for the GPU, as PyTorch warns of it."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in said)


def make_model(size: Size, device: torch.device, **weights: float) -> EgmaModel:
    set_seed(0)
    config = EgmaConfig(vision_config=size.vision, text_config=size.text, projection_dim=size.width, **weights)
    return EgmaModel(config).to(device)


def make_batch(model: EgmaModel, images: int, device: torch.device) -> dict[str, Tensor]:
    """Random pictures, five sentences each of 6 to 32 tokens, all looked at."""
    side, grid = model.config.vision_config.image_size, model.config.grid_size
    count = images * SENTENCES
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count, 1), device=device)
    mask = (torch.arange(LONGEST, device=device) < lengths).long()
    ids = torch.randint(5, model.config.text_config.vocab_size, (count, LONGEST), device=device) * mask
    return {
        "pixel_values": torch.randn(images, 3, side, side, device=device),
        "input_ids": ids,
        "attention_mask": mask,
        "sentence_to_image": torch.arange(images).repeat_interleave(SENTENCES),
        "gaze_heatmaps": torch.rand(count, grid, grid, device=device),
        "gaze_mask": torch.ones(images, dtype=torch.bool, device=device),
    }


def make_features(images: int, patches: int, width: int, device: torch.device) -> Features:
    count = images * SENTENCES
    return Features(
        F.normalize(torch.randn(images, patches, width, device=device), dim=-1).requires_grad_(),
        F.normalize(torch.randn(count, width, device=device), dim=-1).requires_grad_(),
        torch.arange(images).repeat_interleave(SENTENCES),
        torch.rand(count, patches, device=device),
        torch.ones(images, dtype=torch.bool, device=device),
    )


def clip_loss(features: Features, logit_scale: Tensor) -> Tensor:
    """Mean patch against mean sentence, both ways: the least that a step of these towers costs."""
    images = F.normalize(features.patches.float().mean(1), dim=-1)
    texts = F.normalize(features.sentences.float().unflatten(0, (len(images), SENTENCES)).mean(1), dim=-1)
    logits, own = logit_scale.exp() * images @ texts.T, torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def table(results: dict[str, Any]) -> str:
    """What the JSON holds, short."""
    ceiling = results["ceilings"]
    lines = [
        f"{results['card']}, {results['cores']} cores, PyTorch {results['torch']}: bf16 product "
        f"{ceiling['bf16_teraflops']:.4g} TFLOP/s, copy {ceiling['copy_terabytes_per_second']:.3g} TB/s"
    ]
    for row in results["towers_and_step"]:
        share = row["encoder_teraflops"] / row["step_seconds"] / ceiling["bf16_teraflops"]
        milliseconds = {name: f"{1000 * row[f'{name}_seconds']:.1f}" for name in ("image", "text", "clip_step", "step")}
        lines.append(
            f"B {row['batch']}: image {milliseconds['image']} ms, text {milliseconds['text']} ms, with CLIP's loss "
            f"{milliseconds['clip_step']} ms, our step {milliseconds['step']} ms, {row['pairs_per_second']:.0f} "
            f"pairs/s, {row['step_gibibytes']:.2f} GiB, {share:.1%} of the ceiling, "
            f"{row['host_synchronisations']} host synchronisations"
        )
    for row in results["objective"]:
        terms = ", ".join(
            f"{term} "
            + (f"{1000 * row[term]['seconds']:.1f} ms {row[term]['gibibytes']:.2f} GiB" if row[term] else "no room")
            for term in TERMS
        )
        lines.append(f"objective {row['images']} x {row['patches']}: {terms}")
    lines.append(f"{results['grid_limit']['batch']} images: {results['grid_limit']['said']}")
    for row in results.get("program", ()):
        workers = "as it starts" if row["workers"] is None else f"{row['workers']} workers"
        lines.append(
            f"program, {workers}: {row['pairs_per_second']:.0f} pairs/s, {1000 * row['wait_seconds_a_step']:.0f} ms of "
            f"waiting a step, {row['whole_seconds']:.0f} s in all"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
