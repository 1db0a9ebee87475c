"""Training state as safetensors and JSON; nothing is pickled.

A checkpoint is a folder `checkpoint-STEP` with `model.safetensors`, `optimizer.safetensors`, `rng.safetensors` and
`state.json`. It is written beside its place and renamed when complete; then the older ones are removed.
"""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dataset_scripts.schema import UserError

KEPT_CHECKPOINTS = 2


def save_checkpoint(
    output: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Path:
    """Write `checkpoint-{state["step"]}` and remove all but the newest `KEPT_CHECKPOINTS`."""
    final = output / f"checkpoint-{state['step']}"
    partial = output / f".partial-checkpoint-{state['step']}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, partial / "model.safetensors")
    save_file(_optimizer_tensors(optimizer), partial / "optimizer.safetensors")
    save_file(_random_states(), partial / "rng.safetensors")
    (partial / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in _checkpoints(output)[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old)
    return final


def load_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, expected: dict[str, Any]
) -> dict[str, Any]:
    """Restore model, optimiser and random states; returns `state.json`.

    Args:
        expected: settings that must not have changed, as they were saved under `settings`.

    Raises:
        UserError: the folder is no complete checkpoint, belongs to another model, or a setting has changed.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = {name: load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer", "rng")}
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise UserError(f"{folder}: not a complete checkpoint ({error})") from None
    for name, value in expected.items():
        if state["settings"].get(name) != value:
            raise UserError(f"{folder}: {name} was {state['settings'].get(name)!r} there and is {value!r} now")
    try:
        model.load_state_dict(tensors["model"])
    except RuntimeError as error:
        raise UserError(f"{folder}: belongs to another model ({str(error).splitlines()[1].strip()})") from None
    _restore_optimizer(optimizer, tensors["optimizer"])
    _restore_random_states(tensors["rng"])
    return dict(state)


def find_checkpoint(output: Path, resume: str) -> Path:
    """The checkpoint that `--resume` means: `auto` is the newest one under `output`.

    Raises:
        UserError: there is none.
    """
    if resume != "auto":
        return Path(resume)
    found = _checkpoints(output)
    if not found:
        raise UserError(f"{output}: no checkpoint to resume from")
    return found[-1]


def _checkpoints(output: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output.glob("checkpoint-*")}
    return sorted((path for path, match in steps.items() if match), key=lambda path: int(path.name.split("-")[1]))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_states() -> dict[str, Tensor]:
    version, words, gauss = random.getstate()
    assert version == 3 and gauss is None
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.tensor(np.asarray(keys, dtype=np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate((3, tuple(states["python"].tolist()), None))
    position, has_gauss, cached = states["numpy_rest"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))  # noqa: NPY002
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
