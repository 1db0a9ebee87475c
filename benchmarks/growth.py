"""How the objective grows with the batch and the patch grid: `python -m benchmarks.growth [--device cuda]`.

Draws docs/images/growth.png and prints the table behind it. See benchmarks/README.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.parts import ROOT
from egma.figures.training_curves import LINE_COLORS
from egma.training.devices import memory_gigabytes
from modeling_egma import losses_egma as losses
from modeling_egma.interaction_egma import lay_out

# images and side of the patch grid: over the batch, over the grid, and a batch of large grids
CELLS = (*((images, 7) for images in (16, 64, 256, 1024, 2048)), *((16, grid) for grid in (14, 28, 37)), (64, 37))
WIDTH, SENTENCES, SCALE, REPEATS = 512, 5, 14.3, 3
# a core takes some 20 s for it
MOST_FLOP = 1.2e12


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--most_flop", type=float, default=MOST_FLOP, help="larger steps are left out")
    parser.add_argument("--cell", nargs=3, metavar=("NAME", "IMAGES", "GRID"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "growth.png")
    arguments = parser.parse_args()
    if arguments.cell:
        name, images, grid = arguments.cell
        print(json.dumps(_measure(name, int(images), int(grid), torch.device(arguments.device))))
        return
    rows = []
    for name in FUNCTIONS:
        for images, grid in CELLS:
            if operations(name, images, grid) <= arguments.most_flop:
                rows.append(_in_a_process(name, images, grid, arguments.device))
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    draw(rows, arguments.output, arguments.device)


def operations(name: str, images: int, grid: int) -> float:
    """Floating point operations of forward and backward pass, about."""
    patches = grid * grid
    late, mapping = 8 * images**2 * SENTENCES * patches * WIDTH, 6 * images * patches**2 * WIDTH
    return {"contrastive": late, "dense": late, "mapping": mapping, "all": late + mapping}.get(name, 0.0)


def clip(patches: Tensor, sentences: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of one vector an image and one a report."""
    report = torch.zeros(len(patches), sentences.shape[1], device=rows.device).index_add(0, rows, sentences)
    logits = F.normalize(patches.mean(dim=1), dim=-1) @ F.normalize(report, dim=-1).T * scale
    target = torch.arange(len(logits), device=rows.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def dense(patches: Tensor, sentences: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """The contrastive term with all similarities at once, as autograd keeps them."""
    reports = lay_out(rows, len(patches), patches.device)
    similarity = torch.einsum("bpd,rmd->brpm", patches, reports.pad(sentences)) * scale
    image_logits = similarity.masked_fill(~reports.valid[:, None], -torch.inf).amax(dim=-1).mean(dim=-1)
    best_patch = similarity.amax(dim=-2).masked_fill(~reports.valid, 0.0)
    target = torch.arange(len(patches), device=rows.device)
    by_text = F.cross_entropy((best_patch.sum(dim=-1) / reports.counts).T, target)
    return (F.cross_entropy(image_logits, target) + by_text) / 2


def _all(patches: Tensor, sentences: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    return sum((term(patches, sentences, rows, scale) for term in TERMS.values()), start=scale * 0.0)


def _gaze(patches: Tensor, sentences: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    return losses.gaze_alignment_loss(patches, sentences, rows, *_looked(patches, sentences), scale)


def _mapping(patches: Tensor, sentences: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    return losses.cross_modality_mapping_loss(patches, sentences, rows, *_looked(patches, sentences), scale)


def _looked(patches: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
    return patches.new_ones(len(sentences), patches.shape[1]), patches.new_ones(len(patches), dtype=torch.bool)


TERMS: dict[str, Callable[..., Tensor]] = {
    "contrastive": losses.contrastive_alignment_loss,
    "gaze": _gaze,
    "mapping": _mapping,
}
FUNCTIONS = {**TERMS, "all": _all, "dense": dense, "clip": clip}


def _measure(name: str, images: int, grid: int, device: torch.device) -> dict[str, Any]:
    """Seconds of forward and backward pass, and memory above that of torch itself."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    before = memory_gigabytes(device)
    patches = F.normalize(torch.randn(images, grid * grid, WIDTH, generator=generator), dim=-1).to(device)
    sentences = F.normalize(torch.randn(images * SENTENCES, WIDTH, generator=generator), dim=-1).to(device)
    rows = torch.arange(images, device=device).repeat_interleave(SENTENCES)
    leaves = [patches.requires_grad_(), sentences.requires_grad_(), torch.tensor(SCALE, device=device).requires_grad_()]
    seconds = []
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(FUNCTIONS[name](*leaves[:2], rows, leaves[2]), leaves)
    for _ in range(REPEATS if operations(name, images, grid) < 1e11 else 1):
        start = time.perf_counter() if device.type == "cuda" else time.process_time()
        torch.autograd.grad(FUNCTIONS[name](*leaves[:2], rows, leaves[2]), leaves)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() if device.type == "cuda" else time.process_time()) - start)
    return {
        "loss": name,
        "images": images,
        "patches": grid * grid,
        "seconds": round(min(seconds), 5),
        "gigabytes": round(memory_gigabytes(device) - before, 3),
        "gflop": round(counter.get_total_flops() / 1e9, 1),
    }


def _in_a_process(name: str, images: int, grid: int, device: str) -> dict[str, Any]:
    """What was resident once stays counted, so that every cell needs a process."""
    cell = ["--cell", name, str(images), str(grid), "--device", device]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", *cell], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def draw(rows: list[dict[str, Any]], path: Path, device: str) -> Figure:
    """Time and memory over the batch at 7 x 7 patches, and over the patches at 16 images."""
    figure = Figure(figsize=(8.4, 6.0), layout="constrained")
    panels = figure.subplots(2, 2)
    for line, value in enumerate(("seconds", "gigabytes")):
        for column, (over, fixed, at) in enumerate((("images", "patches", 49), ("patches", "images", 16))):
            axes = panels[line][column]
            for place, name in enumerate(FUNCTIONS):
                points = sorted((row[over], row[value]) for row in rows if row["loss"] == name and row[fixed] == at)
                if len(points) > 1:
                    axes.plot(
                        *zip(*points, strict=True), marker="o", markersize=3, label=name, color=LINE_COLORS[place]
                    )
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlabel(f"{over} ({fixed}: {at})")
            axes.set_ylabel({"seconds": f"seconds, one {'core' if device == 'cpu' else device}"}.get(value, value))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    return figure


if __name__ == "__main__":
    main()
