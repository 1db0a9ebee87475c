"""Columns of many rows, recordings of a batch, and the workers that read them."""

import errno
import itertools
import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing import reductions

from dataset_scripts.command_line import program
from dataset_scripts.schema import UserError, load_readings
from egma.training import data as data_module
from egma.training import readings
from egma.training.data import ReadingCollator, TrainingData
from egma.training.readings import _recordings, list_lengths, numbers_of, worker_count
from egma.training.streaming import MOST_LANES

from .test_data import settings

numbers = st.none() | st.lists(st.floats(-1, 2), max_size=4)
recordings = st.lists(st.none() | st.fixed_dictionaries({"x": numbers, "start": numbers}), min_size=1, max_size=6)
FIXATIONS = pa.struct({"x": pa.list_(pa.float64()), "start": pa.list_(pa.float64())})


@given(st.lists(recordings, min_size=1, max_size=3), st.integers(0, 3))
def test_recordings_are_those_of_the_rows(chunks: list[list[Any]], skipped: int) -> None:
    column = pa.chunked_array([pa.array(chunk, FIXATIONS) for chunk in chunks]).slice(skipped)
    if not len(column):
        return
    found = [
        one and {name: None if values is None else values.tolist() for name, values in one.items()}
        for one in _recordings(column)
    ]
    assert found == column.to_pylist()
    expected = [len(one["x"]) if one and one["x"] else 0 for one in column.to_pylist()]
    assert list_lengths(column, "x").tolist() == expected


def test_more_text_than_32_bits_count() -> None:
    """The same 64 MiB forty times over, in no more memory."""
    text = "a" * 2**26
    sentence = pa.struct({"text": pa.string()})
    chunk = pa.array([[{"text": text}], None, [], [{"text": "b"}, {"text": "c"}]], pa.list_(sentence))
    column = pa.chunked_array([chunk] * 40)
    assert list_lengths(column).tolist() == [1, 0, 0, 2] * 40
    names = numbers_of([pa.chunked_array([pa.array([text, "b"])] * 40), pa.chunked_array([pa.array(["b", "c"])])])
    assert names.tolist() == [0, 1] * 40 + [1, 2]


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=5), min_size=1, max_size=4).filter(any))
def test_equal_names_have_equal_numbers(columns: list[list[str]]) -> None:
    found = numbers_of([pa.chunked_array([pa.array(column, pa.string())]) for column in columns])
    names = list(itertools.chain(*columns))
    assert len(found) == len(names)
    assert all((a == b) == (i == j) for (a, i), (b, j) in itertools.product(zip(names, found, strict=True), repeat=2))


@pytest.mark.parametrize(
    ("cores", "device", "processes", "expected"),
    [
        (2, "cpu", 1, 0),
        (16, "cpu", 1, 2),
        (2, "cuda", 1, 0),
        (16, "cuda", 1, 15),
        (64, "cuda", 1, 16),
        (64, "cuda", 8, 7),
    ],
)
def test_workers_are_chosen(
    monkeypatch: pytest.MonkeyPatch, cores: int, device: str, processes: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert worker_count(settings("unused"), torch.device(device)) == expected
    assert worker_count(settings("unused", num_workers=3), torch.device(device)) == 3


class NamesItsProcess(ReadingCollator):
    def __call__(self, rows: Any) -> Any:
        batch = super().__call__(rows)
        batch["process"] = os.getpid()
        return batch


def test_workers_stay_over_epochs_and_validations(phantom_data: Path, processor: Any) -> None:
    one = settings(phantom_data, num_workers=2)
    data = TrainingData(one, 0, 1)
    batches = data.batches(NamesItsProcess(processor, one), 0)
    seen = [batch["process"] for batch in itertools.islice(batches, 2 * data.batches_per_epoch + 1)]
    assert len(set(seen)) == 2 and os.getpid() not in seen
    collator = NamesItsProcess(processor)
    validations = [[batch["process"] for batch in data.validation_batches(collator)] for _ in range(2)]
    assert set(validations[0]) == set(validations[1]) and os.getpid() not in validations[0]
    assert "2 workers prepare batches" in data.summary


def test_a_batch_is_read_at_once(phantom_data: Path, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = readings.Readings.table

    def counted(self: Any, indices: list[int], columns: list[str]) -> pa.Table:
        asked.append(len(indices))
        return read(self, indices, columns)

    monkeypatch.setattr(readings.Readings, "table", counted)
    one = settings(phantom_data, num_workers=0)
    next(TrainingData(one, 0, 1).batches(ReadingCollator(processor, one), 0))
    assert asked == [4]


def test_numbers_of_images_are_those_of_the_corpus(phantom_data: Path) -> None:
    rows = load_readings(phantom_data, "train")
    found = TrainingData(settings(phantom_data), 0, 1).source.images
    assert np.array_equal(np.unique(found, return_inverse=True)[1], found)
    _, expected = np.unique(np.asarray(rows["image_id"]), return_inverse=True)
    assert len(set(zip(found.tolist(), expected.tolist(), strict=True))) == len(set(expected.tolist()))


def test_lanes_are_a_power_of_two() -> None:
    assert MOST_LANES & (MOST_LANES - 1) == 0


def test_columns_are_chosen_once(phantom_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = TrainingData(settings(phantom_data), 0, 1).source
    chosen: list[Any] = []
    choose = Dataset.with_format
    monkeypatch.setattr(
        Dataset, "with_format", lambda *args, **kwargs: chosen.append(kwargs) or choose(*args, **kwargs)
    )
    for first in range(3):
        read.table([first, 5], ["reading_id"])
        read.table([first], ["reading_id", "image_id"])
    assert len(chosen) == 2


def test_workers_batches_are_those_of_the_process(phantom_data: Path, processor: Any) -> None:
    batches = []
    for workers in (0, 2):
        one = settings(phantom_data, num_workers=workers, rotation_degrees=10, positives="text_match")
        data = TrainingData(one, 0, 1)
        batches.append(list(itertools.islice(data.batches(ReadingCollator(processor, one), 0), 4)))
    for own, sent in zip(*batches, strict=True):
        assert own.keys() == sent.keys()
        for name, value in own.items():
            if isinstance(value, torch.Tensor):
                assert sent[name].dtype == value.dtype
                assert torch.equal(sent[name].nan_to_num(-1.0), value.nan_to_num(-1.0)), name
            else:
                assert sent[name] == value, name


def test_small_tensors_are_sent_without_shared_memory(
    phantom_data: Path, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    one = settings(phantom_data, num_workers=0)
    batch = next(TrainingData(one, 0, 1).batches(ReadingCollator(processor, one), 0))
    monkeypatch.setattr(data_module, "LARGEST_SENT_BYTES", batch["pixel_values"].nbytes)
    monkeypatch.setattr(
        torch.UntypedStorage, "_share_fd_cpu_", lambda storage, *_, **__: shared.append(storage.nbytes()) or (0, 0)
    )
    monkeypatch.setattr(reductions.multiprocessing.reduction, "DupFd", lambda descriptor: descriptor)
    ForkingPickler.dumps(batch)
    assert shared == [batch["pixel_values"].nbytes]


class Spoilt:
    """A row that is refused, deep inside."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitems__(self, places: list[Any]) -> list[Any]:
        try:
            raise ValueError("deeper")
        except ValueError:
            raise self.error  # noqa: B904


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            UserError("reading 'r7': a picture of 3 bytes, expected a PNG"),
            "reading 'r7': a picture of 3 bytes, expected a PNG",
        ),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "data/train.arrow"), "data/train.arrow"),
    ],
    ids=["row", "file"],
)
def test_what_a_worker_refuses_is_one_sentence(workers: int, error: Exception, said: str, capsys: Any) -> None:
    @program
    def main(_: Any) -> None:
        list(readings.make_loader(Spoilt(error), list, [[(0, 0)]], workers, torch.device("cpu")))  # type: ignore[arg-type]

    assert main([]) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1 and found.startswith("error: ") and said in found
    assert isinstance(error, OSError) or found == f"error: {said}\n"
