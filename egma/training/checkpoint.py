"""Training state as safetensors and JSON, whole or not at all; nothing is pickled.

A checkpoint is a folder `checkpoint-STEP` with `model.safetensors`, `optimizer.safetensors`, one
`random-RANK.safetensors` a process, `state.json`, and `complete.json` with the size and SHA-256 of each of them. It is
written beside its place, flushed to the disk, renamed, and only then are older ones removed.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load, load_file, save
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers.utils import logging

from dataset_scripts.schema import UserError
from egma.training.random_states import random_states, restore_random_states

logger = logging.get_logger(__name__)

KEPT_CHECKPOINTS = 2
MARK = "complete.json"
PARTIAL, REMOVED = ".partial-", ".removed-"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Damaged(UserError):
    """A checkpoint folder that is not what was written."""


def save_checkpoint(
    accelerator: Accelerator, output: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> Path:
    """Write `checkpoint-{state["step"]}`; keep it, the one before and the one of `state["best_step"]`.

    Every process calls it; the first writes.

    Raises:
        UserError: it cannot be written (a full disk); the older checkpoints are untouched.
    """
    # everything that the processes do together comes before the first byte is written
    weights = _weights(model)
    optimizer_state = get_optimizer_state_dict(model, optimizer, options=WHOLE)
    generators = gather_object([save(random_states(accelerator.device))])
    final = output / f"checkpoint-{state['step']}"
    failure: list[str] = []
    if accelerator.is_main_process:
        tensors, groups = _flat_optimizer(optimizer_state)
        state = state | {"optimizer_groups": groups, "processes": accelerator.num_processes}
        files: dict[str, Callable[[], bytes]] = {
            "model.safetensors": lambda: save({name: value.contiguous() for name, value in weights.items()}),
            "optimizer.safetensors": lambda: save(tensors),
            "state.json": lambda: json.dumps(state, indent=1, allow_nan=False).encode(),
        }
        for rank, content in enumerate(generators):
            files[f"random-{rank}.safetensors"] = lambda content=content: content  # type: ignore[misc]
        try:
            if not _is_whole(final):
                _write_whole(final, files)
            _prune(output, int(state["best_step"]))
        except OSError as error:
            failure = [_why_not(output, final, files, error)]
    failure = gather_object(failure)
    if failure:
        raise UserError(failure[0])
    return final


def load_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    expected: Mapping[str, Any],
) -> dict[str, Any]:
    """Restore model, optimiser and this process's random states; returns `state.json`.

    Args:
        expected: settings that must not have changed, as they were saved under `settings`.

    Raises:
        UserError: the folder is no complete checkpoint, belongs to another model or number of processes, or a
            setting has changed.
    """
    state = check_checkpoint(folder)
    _check_same(folder, state, accelerator.num_processes, expected)
    weights = load_file(folder / "model.safetensors")
    _check_architecture(folder, model, weights)
    tensors = load_file(folder / "optimizer.safetensors")
    set_model_state_dict(model, dict(weights), options=WHOLE)
    nested = _nested_optimizer(tensors, state["optimizer_groups"])
    set_optimizer_state_dict(model, optimizer, nested, options=WHOLE)
    generators = load((folder / f"random-{accelerator.process_index}.safetensors").read_bytes())
    restore_random_states(generators, accelerator.device)
    return state


def find_checkpoint(output: Path, resume: str) -> Path:
    """The checkpoint that `--resume` means: `auto` is the newest complete one under `output`.

    Raises:
        UserError: there is none, or the named one is damaged.
    """
    if resume != "auto":
        check_checkpoint(Path(resume))
        return Path(resume)
    for folder in reversed(checkpoints(output)):
        try:
            check_checkpoint(folder)
        except Damaged as error:
            logger.warning(f"{error}; going back to the checkpoint before")
        else:
            return folder
    raise UserError(f"{output}: no checkpoint to resume from")


def checkpoints(output: Path) -> list[Path]:
    """Folders named as checkpoints, oldest first."""
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output.glob("checkpoint-*")}
    return sorted((path for path, match in steps.items() if match), key=_step_of)


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """`state.json` of a folder whose every file is as it was written.

    Raises:
        Damaged: which file is not, and why.
    """
    try:
        digests = json.loads((folder / MARK).read_text(encoding="utf-8"))
        for name, expected in digests.items():
            if Path(name).name != name:
                raise Damaged(f"{folder / MARK}: names '{name}', expected a file beside it")
            found = _digest((folder / name).read_bytes())
            if found != expected:
                raise Damaged(f"{folder / name}: not as it was written ({found['bytes']} of {expected['bytes']} bytes)")
        return dict(json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except Damaged:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{folder}: not a complete checkpoint ({error})") from None


def _is_whole(folder: Path) -> bool:
    """The same step is not written again over a good checkpoint: there would be a moment with none."""
    try:
        return bool(check_checkpoint(folder))
    except Damaged:
        return False


def _write_whole(final: Path, files: Mapping[str, Callable[[], bytes]]) -> None:
    partial = final.with_name(PARTIAL + final.name)
    _remove_leftovers(final.parent)
    partial.mkdir(parents=True)
    digests = {}
    for name, content in files.items():
        data = content()
        digests[name] = _digest(data)
        _write_flushed(partial / name, data)
    _write_flushed(partial / MARK, json.dumps(digests, indent=1).encode())
    _flush_folder(partial)
    if final.exists():
        final.rename(final.with_name(REMOVED + final.name))
    partial.rename(final)
    _flush_folder(final.parent)


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(output: Path, best_step: int) -> None:
    """Renamed first: a folder half removed must not be taken for a checkpoint."""
    found = checkpoints(output)
    for folder in found[:-KEPT_CHECKPOINTS]:
        if _step_of(folder) != best_step:
            folder.rename(folder.with_name(REMOVED + folder.name))
    _remove_leftovers(output)


def _remove_leftovers(output: Path) -> None:
    for prefix in (PARTIAL, REMOVED):
        for folder in output.glob(f"{prefix}checkpoint-*"):
            shutil.rmtree(folder)


def _why_not(output: Path, final: Path, files: Mapping[str, Callable[[], bytes]], error: OSError) -> str:
    """The partial folder is given back to the disk before anything is said."""
    shutil.rmtree(final.with_name(PARTIAL + final.name), ignore_errors=True)
    kept = [folder.name for folder in checkpoints(output)]
    text = f"{final}: cannot be written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = sum(len(content()) for content in files.values())
        text += f"; it needs {needed:,} bytes and {shutil.disk_usage(output).free:,} are free"
    return f"{text}; kept: {', '.join(kept) or 'no checkpoint'}"


def _digest(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Whole tensors by name on the first process, however the model is wrapped or sharded; nothing on the others."""
    return cast(dict[str, Tensor], get_model_state_dict(model, options=WHOLE))


def _flat_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors by `parameter name / entry`, and the groups, which are plain values and names."""
    tensors = {
        f"{parameter}/{entry}": torch.as_tensor(value).contiguous()
        for parameter, entries in state["state"].items()
        for entry, value in entries.items()
    }
    return tensors, [dict(group) for group in state["param_groups"]]


def _nested_optimizer(tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter, _, entry = name.rpartition("/")
        state.setdefault(parameter, {})[entry] = value
    return {"state": state, "param_groups": groups}


def _check_same(folder: Path, state: Mapping[str, Any], processes: int, expected: Mapping[str, Any]) -> None:
    if state["processes"] != processes:
        raise UserError(
            f"{folder}: was written by {state['processes']} process(es) and there are {processes} now; batches and "
            "dropout would be others"
        )
    for name, value in expected.items():
        before = state["settings"].get(name)
        if before != value:
            raise UserError(f"{folder}: {name} was {before!r} there and is {value!r} now")


def _check_architecture(folder: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    # not `_weights`, which only the first process gets
    own = {name: tuple(value.shape) for name, value in cast(dict[str, Tensor], get_model_state_dict(model)).items()}
    there = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(own.keys() | there.keys()):
        if own.get(name) != there.get(name):
            shapes = [str(shapes.get(name, "no such tensor")) for shapes in (there, own)]
            raise UserError(f"{folder}: belongs to another model; {name} is {shapes[0]} there and {shapes[1]} here")
