"""`training_state.json`: what ran, on what, with what."""

import dataclasses
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from dataset_scripts.identity import version
from egma_training.arguments import TrainingSettings
from modeling_egma import EgmaModel

PACKAGES = ("egma", "torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


def training_state(
    settings: TrainingSettings, accelerator: Accelerator, model: EgmaModel, data: dict[str, Any], total_steps: int
) -> dict[str, Any]:
    """Versions, device, settings, model and data of a run; no path of an image and no patient.

    Args:
        data: what `TrainingData.describe` says.
    """
    cuda = accelerator.device.type == "cuda"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_revision": git_revision(Path(__file__).resolve().parents[1]),
        "device": torch.cuda.get_device_name(accelerator.device) if cuda else platform.machine(),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "distributed": accelerator.distributed_type.value,
        "settings": dataclasses.asdict(settings),
        "readings_in_a_contrastive_batch": settings.batch_size * accelerator.num_processes,
        "total_steps": total_steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": data,
        "config": model.config.to_dict(),
    }


def git_revision(root: Path) -> str | None:
    """The commit of the sources, with `+` when files differ from it; None outside a clone."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
