"""A small model, an optimiser that has moved, and checkpoints of both."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from egma.training.checkpoint import load_checkpoint, save_checkpoint

SETTINGS = {"batch_size": 8, "seed": 0}


def model_and_optimizer(seed: int, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Weights and moments that depend on `seed`."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 2))
    matrices = [one for one in model.parameters() if one.ndim == 2]
    others = [one for one in model.parameters() if one.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01 * (seed + 1))
    model(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def write(output: Path, step: int, best_step: int = 0, seed: int | None = None) -> Path:
    model, optimizer = model_and_optimizer(step if seed is None else seed)
    state = {"step": step, "best_step": best_step, "settings": SETTINGS}
    return save_checkpoint(Accelerator(cpu=True), output, model, optimizer, state)


def read(folder: Path, width: int = 4, **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, Any]]:
    model, optimizer = model_and_optimizer(99, width)
    state = load_checkpoint(Accelerator(cpu=True), folder, model, optimizer, SETTINGS | settings)
    return model, optimizer, state


def same(folder: Path, step: int) -> bool:
    """Whether the folder holds, tensor by tensor, what `write` of this step put there."""
    model, optimizer, state = read(folder)
    expected, expected_optimizer = model_and_optimizer(step)
    moments = zip(optimizer.state.values(), expected_optimizer.state.values(), strict=True)
    return (
        state["step"] == step
        and all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
        and all(torch.equal(a[name], b[name]) for a, b in moments for name in b)
        and [g["lr"] for g in optimizer.param_groups] == [g["lr"] for g in expected_optimizer.param_groups]
    )
