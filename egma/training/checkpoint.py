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
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import PreTrainedModel
from transformers.utils import logging

from dataset_scripts.schema import UserError
from egma.training.adapters import merged
from egma.training.averaging import averages
from egma.training.random_states import random_states, restore_random_states
from egma.training.together import on_first

logger = logging.get_logger(__name__)

KEPT_CHECKPOINTS = 2
MARK, FINISHED = "complete.json", "finished.json"
PARTIAL, REMOVED = ".partial-", ".removed-"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
SENT = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


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

    def write() -> None:
        tensors, groups = _flat_optimizer(optimizer_state)
        whole = state | {"optimizer_groups": groups}
        files: dict[str, Callable[[], bytes]] = {
            "model.safetensors": lambda: save({name: value.contiguous() for name, value in weights.items()}),
            "optimizer.safetensors": lambda: save(tensors),
            "state.json": lambda: json.dumps(whole, indent=1, allow_nan=False).encode(),
        }
        for rank, content in enumerate(generators):
            files[f"random-{rank}.safetensors"] = lambda content=content: content  # type: ignore[misc]
        try:
            if not _is_whole(final):
                _write_whole(final, files)
            _prune(output, int(state["best_step"]))
        except OSError as error:
            raise UserError(_why_not(output, final, files, error)) from None

    on_first(accelerator, write)
    return final


def load_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    expected: Mapping[str, Any],
) -> dict[str, Any]:
    """Restore model, optimiser and the random states of every process; returns `state.json`.

    Only the first process reads: the others may lie on machines without the folder.

    Args:
        expected: settings that must not have changed, as they were saved under `settings`.

    Raises:
        UserError: the folder is no complete checkpoint, belongs to another model, or a setting has changed.
    """
    weights: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}

    def read() -> tuple[dict[str, Any], list[bytes]]:
        state = check_checkpoint(folder)
        check_same(folder, state["settings"], expected)
        weights.update(load_file(folder / "model.safetensors"))
        _check_architecture(folder, model, weights)
        tensors.update(load_file(folder / "optimizer.safetensors"))
        ranks = range(accelerator.num_processes)
        return state, [(folder / f"random-{rank}.safetensors").read_bytes() for rank in ranks]

    state, generators = on_first(accelerator, read)
    options = WHOLE if accelerator.num_processes == 1 else SENT
    set_model_state_dict(model, weights, options=options)
    nested = _nested_optimizer(tensors, state["optimizer_groups"]) if accelerator.is_main_process else {}
    set_optimizer_state_dict(model, optimizer, nested, options=options)
    restore_random_states(load(generators[accelerator.process_index]), accelerator.device)
    return state


def find_checkpoint(output: Path, resume: str) -> Path | None:
    """The checkpoint that `--resume` means: `auto` is the newest complete one under `output`, None where no run is.

    Raises:
        UserError: none is whole, or the named one is damaged.
    """
    if resume != "auto":
        check_checkpoint(Path(resume))
        return Path(resume)
    found = checkpoints(output)
    for folder in reversed(found):
        try:
            check_checkpoint(folder)
        except Damaged as error:
            logger.warning(f"{error}; going back to the checkpoint before")
        else:
            return folder
    if found:
        raise UserError(f"{output}: none of its {len(found)} checkpoints is whole; start again in another --output_dir")
    return None


def read_finished(output: Path) -> dict[str, Any] | None:
    """What the run in `output` ended with; None while it is under way."""
    path = output / FINISHED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def export_best(folder: Path, model: PreTrainedModel, processor: Any, output: Path) -> None:
    """Model and processor of a checkpoint as others load them: averaged where a run keeps averages, without adapters.

    Written beside their place, then moved.

    Raises:
        UserError: they cannot be written, or the checkpoint is damaged.
    """
    check_checkpoint(folder)
    partial = output / f"{PARTIAL}model"
    try:
        weights = load_file(folder / "model.safetensors")
        weights |= averages(load_file(folder / "optimizer.safetensors"))
        model.save_pretrained(partial, state_dict=merged(weights))
        processor.save_pretrained(partial)
        shutil.copytree(partial, output, dirs_exist_ok=True, copy_function=os.replace)
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{output}: the best model cannot be written ({why}); --resume auto writes it, from {folder}"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def check_same(where: Path, before: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """What a run must share with the one that it goes on with.

    Raises:
        UserError: names the first setting that has changed, with both values.
    """
    for name, value in expected.items():
        if before.get(name) != value:
            longer = "; --extend goes on with more of them" if name in ("max_steps", "epochs") else ""
            raise UserError(f"{where}: {name} was {before.get(name)!r} there and is {value!r} now{longer}")


def _check_architecture(folder: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    # not `_weights`, which only the first process gets
    own = {name: tuple(value.shape) for name, value in cast(dict[str, Tensor], get_model_state_dict(model)).items()}
    there = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(own.keys() | there.keys()):
        if own.get(name) != there.get(name):
            shapes = [str(shapes.get(name, "no such tensor")) for shapes in (there, own)]
            raise UserError(f"{folder}: belongs to another model; {name} is {shapes[0]} there and {shapes[1]} here")
