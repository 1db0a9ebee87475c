"""Frames that are made once: the same batches, refused when they are of something else, never half a file."""

import fcntl
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageOps

from dataset_scripts.schema import UserError, load_readings
from egma.training import prepared
from egma.training.data import ReadingCollator, TrainingData
from egma.training.step import to_device

from .test_data import settings, without_gaze

CPU = torch.device("cpu")


def batches_of(data: Any, processor: Any, count: int = 3, **changes: Any) -> list[dict[str, Any]]:
    one = settings(data, num_workers=0, rotation_degrees=10, brightness=0.1, **changes)
    made = TrainingData(one, 0, 1)
    made.prepare(processor.image_processor)
    batches = made.batches(ReadingCollator(processor, one), 0)
    validation = made.validation_batches(ReadingCollator(processor))
    both = itertools.chain(itertools.islice(batches, count), itertools.islice(validation, 1))
    return [to_device(batch, CPU) for batch in both]


def same(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    pairs = list(zip(some, others, strict=True))
    # frames of which some are in colours all have three channels
    tensors = all(
        torch.allclose(*torch.broadcast_tensors(value, b[name]), atol=1e-6)
        for a, b in pairs
        for name, value in a.items()
        if isinstance(value, torch.Tensor)
    )
    return tensors and [a["reading_ids"] for a, _ in pairs] == [b["reading_ids"] for _, b in pairs]


@pytest.fixture
def half_in_colours(phantom_data: Path, tmp_path: Path) -> Path:
    for split in ("train", "validation"):
        rows = load_readings(phantom_data, split)
        many = len({*rows["image_id"]}) // 2
        late = {name: place for place, name in enumerate(dict.fromkeys(rows["image_id"]))}

        def painted(row: dict[str, Any], late: dict[str, int] = late, many: int = many) -> dict[str, Any]:
            image = row["image"]
            return {"image": ImageOps.colorize(image, "black", "red") if late[row["image_id"]] >= many else image}

        (tmp_path / "painted" / "data").mkdir(parents=True, exist_ok=True)
        rows.map(painted).to_parquet(str(tmp_path / "painted" / "data" / f"{split}-00000-of-00001.parquet"))
    return tmp_path / "painted"


@pytest.mark.parametrize("kept", [False, True])
def test_batches_are_the_same(phantom_data: Path, processor: Any, tmp_path: Path, kept: bool) -> None:
    both = f"{phantom_data},{without_gaze(phantom_data, tmp_path / 'other')}"
    expected = batches_of(both, processor)
    frames = str(tmp_path / "frames")
    assert same(batches_of(both, processor, prepared=frames, keep_on_device=kept), expected)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").iterdir() if path.name != ".lock"}
    assert same(batches_of(both, processor, prepared=frames, keep_on_device=kept), expected)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert {path.name for path in times} == {
        *("key.json", "train.npy", "train-sizes.npy", "validation.npy", "validation-sizes.npy")
    }


def test_colours_stay(half_in_colours: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "IMAGES_AT_ONCE", 4)
    expected = batches_of(half_in_colours, processor)
    assert same(batches_of(half_in_colours, processor, prepared=str(tmp_path / "frames")), expected)
    assert np.load(tmp_path / "frames" / "train.npy", mmap_mode="r").shape[1] == 3


def test_an_image_is_kept_once(phantom_data: Path, processor: Any, tmp_path: Path) -> None:
    batches_of(phantom_data, processor, prepared=str(tmp_path))
    images = len(set(load_readings(phantom_data, "train")["image_id"]))
    frames = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert frames.shape == (images, 1, 112, 112) and frames.dtype == np.uint8


def test_frames_of_something_else_are_refused(phantom_data: Path, processor: Any, tmp_path: Path) -> None:
    frames = str(tmp_path / "frames")
    batches_of(phantom_data, processor, prepared=frames)
    other = without_gaze(phantom_data, tmp_path / "other")
    with pytest.raises(UserError, match=r"key.json: the frames are of corpora \['[0-9a-f]+'\], expected"):
        batches_of(other, processor, prepared=frames)
    processor.image_processor.resample = 3
    with pytest.raises(UserError, match="the frames are of geometry"):
        batches_of(phantom_data, processor, prepared=frames)


@pytest.mark.parametrize("name", ["code", "decoder"])
def test_other_code_or_another_decoder_is_refused(
    phantom_data: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    batches_of(phantom_data, processor, prepared=str(tmp_path))
    key = prepared._key([phantom_data], processor.image_processor)
    monkeypatch.setattr(prepared, "_key", lambda *_: key | {name: "another"})
    with pytest.raises(UserError, match=f"the frames are of {name} "):
        batches_of(phantom_data, processor, prepared=str(tmp_path))


def test_what_was_killed_halfway_is_made_anew(
    phantom_data: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(prepared, "IMAGES_AT_ONCE", 4)
    frame = prepared._framed
    calls = itertools.count()

    def cut_off(image_processor: Any, rows: Any) -> Any:
        if next(calls) == 3:
            raise Killed
        return frame(image_processor, rows)

    with monkeypatch.context() as broken:
        broken.setattr(prepared, "_framed", cut_off)
        broken.setattr(prepared, "available_cores", lambda: 0)
        with pytest.raises(Killed):
            batches_of(phantom_data, processor, prepared=str(tmp_path))
    assert not (tmp_path / "train.npy").exists() and (tmp_path / ".partial-train.npy").exists()
    assert same(batches_of(phantom_data, processor, prepared=str(tmp_path)), batches_of(phantom_data, processor))
    assert not list(tmp_path.glob(".partial-*"))


def test_a_second_start_waits_for_the_first(phantom_data: Path, processor: Any, tmp_path: Path) -> None:
    done = threading.Event()

    def second() -> None:
        batches_of(phantom_data, processor, prepared=str(tmp_path))
        done.set()

    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.5) and not (tmp_path / "train.npy").exists()
    thread.join(timeout=120)
    assert done.is_set() and (tmp_path / "train.npy").exists()


def test_what_does_not_fit_the_device_is_refused(
    phantom_data: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "LARGEST_SHARE", 0.0)
    with pytest.raises(UserError, match=r"keep_on_device: the training frames take .* GB, expected at most 0%"):
        batches_of(phantom_data, processor, prepared=str(tmp_path), keep_on_device=True)


@pytest.mark.parametrize("changes", [{"prepared": "x", "streaming": True}, {"keep_on_device": True}])
def test_settings_that_do_not_go_together(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="keep_on_device needs prepared"):
        settings("unused", **changes)
