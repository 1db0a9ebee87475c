"""Checkpoints: what is read is what was written, or an older one, or a sentence that says why not."""

import errno
import io
import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset_scripts.schema import UserError
from egma.training import checkpoint
from egma.training.checkpoint import checkpoints, find_checkpoint
from egma.training.random_states import random_states, restore_random_states

from .saving import model_and_optimizer, read, same, write

FILES = ["model.safetensors", "optimizer.safetensors", "random-0.safetensors", "state.json", "complete.json"]


def test_everything_comes_back(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert same(folder, 3) and not same(folder, 4)


def test_next_update_is_the_same_as_without_a_break(tmp_path: Path) -> None:
    models = []
    write(tmp_path, 3)
    for model, optimizer in (model_and_optimizer(3), read(tmp_path / "checkpoint-3")[:2]):
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_random_numbers_go_on(tmp_path: Path) -> None:
    random.gauss(0, 1)
    states = random_states(torch.device("cpu"))

    def draw() -> list[Any]:
        normal = np.random.normal(size=2).tolist()  # noqa: NPY002
        return [torch.rand(3).tolist(), random.gauss(0, 1), random.random(), normal]

    first = draw()
    torch.manual_seed(9)
    restore_random_states(states, torch.device("cpu"))
    assert draw() == first


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        write(tmp_path, step, best_step=2)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-5", "checkpoint-6"]
    write(tmp_path, 7, best_step=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-6", "checkpoint-7"]


def test_the_same_step_again_leaves_a_good_checkpoint_alone_and_mends_a_bad_one(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    before = (folder / "model.safetensors").stat().st_ino
    write(tmp_path, 1)
    assert (folder / "model.safetensors").stat().st_ino == before
    (folder / "model.safetensors").write_bytes(b"")
    write(tmp_path, 1)
    assert same(folder, 1)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize("how", ["missing", "cut", "empty", "flipped"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, name: str, how: str, library_warnings
) -> None:
    write(tmp_path, 1)
    damage(write(tmp_path, 2) / name, how)
    assert find_checkpoint(tmp_path, "auto") == tmp_path / "checkpoint-1"
    assert "checkpoint-2" in library_warnings() and "going back" in library_warnings()
    with pytest.raises(UserError, match="checkpoint-2"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-2"))
    assert same(tmp_path / "checkpoint-1", 1)


def test_a_mark_does_not_lead_outside(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    (folder / "complete.json").write_text(json.dumps({"../secret": {}}))
    with pytest.raises(UserError, match="expected a file beside it"):
        find_checkpoint(tmp_path, str(folder))


def test_no_checkpoint_is_a_start_and_none_whole_is_an_error(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path, "auto") is None
    damage(write(tmp_path, 1) / "state.json", "cut")
    with pytest.raises(UserError, match="none of its 1 checkpoints is whole"):
        find_checkpoint(tmp_path, "auto")


def test_other_models_and_settings_are_named_with_both_sides(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    with pytest.raises(UserError, match=r"0.bias is \(4,\) there and \(5,\) here"):
        read(folder, width=5)
    with pytest.raises(UserError, match="batch_size was 8 there and is 16 now"):
        read(folder, batch_size=16)
    with pytest.raises(UserError, match="epochs was 3 there and is 4 now; --extend goes on"):
        checkpoint.check_same(folder, {"processes": 4, "epochs": 3}, {"processes": 4, "epochs": 4})


@pytest.mark.parametrize("writes_that_fit", range(6))
def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes_that_fit: int
) -> None:
    write(tmp_path, 1)
    count = 0
    flushed = checkpoint._write_flushed

    def fills(path: Path, data: bytes) -> None:
        nonlocal count
        if count == writes_that_fit:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count += 1
        flushed(path, data)

    monkeypatch.setattr(checkpoint, "_write_flushed", fills)
    if writes_that_fit == 5:
        write(tmp_path, 2)
        return
    with pytest.raises(UserError, match=r"No space left.*needs [\d,]+ bytes and [\d,]+ are free.*checkpoint-1"):
        write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert same(find_checkpoint(tmp_path, "auto"), 1)


def test_a_real_limit_of_the_system_is_met_in_the_same_way(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow beyond the limit, in a process of its own."""
    write(tmp_path, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            write(tmp_path, 2)
        except UserError as error:
            code = 0 if "File too large" in str(error) and "kept: checkpoint-1" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert same(tmp_path / "checkpoint-1", 1)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    for path in write(tmp_path, 1).iterdir():
        content = path.read_bytes()
        assert path.suffix in (".safetensors", ".json")
        assert b"torch._utils" not in content and not content.startswith((b"\x80", b"PK"))
        if path.suffix == ".json":
            json.load(io.BytesIO(content))
