"""Rows of corpora as workers read them: a batch at a time, without a step of Python for every fixation."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from dataset_scripts.schema import GuardedImage, naming
from egma.training.arguments import TrainingSettings
from egma.training.sampling import gaze_subset
from modeling_egma.pictures_egma import as_picture

COLUMNS = ["sentences", "fixations", "reading_id"]
# beside a GPU there is work for as many; without one the model wants the cores
MOST_WORKERS, WORKERS_WITHOUT_GPU = 16, 2
Place = tuple[int, int]


class RowReader(torch.utils.data.Dataset[dict[str, Any]]):
    """A map-style dataset of rows; a place is a row and the epoch it is read in.

    Attributes:
        frames: with what is prepared of the rows' images (`prepared.PreparedFrames`), or None.
    """

    frames: Any = None

    def table(self, indices: list[int], columns: list[str]) -> pa.Table:
        """The rows' columns."""
        raise NotImplementedError

    def keeps(self, index: int, row: dict[str, Any]) -> bool:
        """Whether the row's gaze is used."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row with its picture."""
        return self._rows([index], [*COLUMNS, "image"])[0]

    def __getitems__(self, places: Sequence[Place]) -> list[dict[str, Any]]:
        """Rows with their `epoch` and their picture, or what is prepared of it."""
        indices = [index for index, _ in places]
        rows = self._rows(indices, COLUMNS if self.frames else [*COLUMNS, "image"])
        made = [self.frames.of_row(index) if self.frames else {} for index in indices]
        return [row | one | {"epoch": epoch} for row, one, (_, epoch) in zip(rows, made, places, strict=True)]

    def _rows(self, indices: list[int], columns: list[str]) -> list[dict[str, Any]]:
        table = self.table(indices, columns)
        values = {name: table[name].to_pylist() for name in columns if name != "fixations"}
        values["fixations"] = _recordings(table["fixations"])
        if "image" in values:
            values["image"] = list(map(_picture, values["image"], values["reading_id"]))
        rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        return [row if self.keeps(i, row) else row | {"fixations": None} for i, row in zip(indices, rows, strict=True)]


class Readings(RowReader):
    """Rows of corpora, one after the other.

    Attributes:
        images: (rows,) a number for every row's image, equal for equal `image_id`s, in whatever corpus they stand.
        keeps_gaze: (rows,) bool, whose gaze is used.
        sentence_counts: (rows,)
    """

    def __init__(self, corpora: Sequence[Dataset], gaze_ratio: float, seed: int) -> None:
        self.rows = datasets.concatenate_datasets(list(corpora))
        self.views: dict[tuple[str, ...], Dataset] = {}
        self.sizes = [len(rows) for rows in corpora]
        self.images = numbers_of(_column(rows, "image_id") for rows in corpora)
        gaze = [list_lengths(_column(rows, "fixations"), "x") > 0 for rows in corpora]
        self.keeps_gaze = gaze_subset(np.concatenate(gaze), gaze_ratio, seed)
        self.sentence_counts = np.concatenate([list_lengths(_column(rows, "sentences")) for rows in corpora])

    def __len__(self) -> int:
        return len(self.rows)

    def table(self, indices: list[int], columns: list[str]) -> pa.Table:
        names = tuple(columns)
        if names not in self.views:  # which takes longer than reading
            self.views[names] = self.rows.with_format("arrow", columns=columns)
        return self.views[names][indices]

    def keeps(self, index: int, row: dict[str, Any]) -> bool:
        return bool(self.keeps_gaze[index])


def _picture(image: Any, name: str) -> Image.Image:
    with naming(f"reading '{name}'"):
        return as_picture(GuardedImage().decode_example(image))


def _recordings(column: pa.ChunkedArray) -> list[Mapping[str, Any] | None]:
    # of the rows of a batch, which are few
    whole = pa.concat_arrays(column.chunks)
    named = {}
    for field, lists in zip(whole.type, whole.flatten(), strict=True):
        values, ends = lists.values.to_numpy(zero_copy_only=False), lists.offsets.to_numpy().tolist()
        known = zip(itertools.pairwise(ends), lists.is_valid().to_pylist(), strict=True)
        named[field.name] = [values[start:end] if there else None for (start, end), there in known]
    rows = [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]
    return [row if there else None for row, there in zip(rows, whole.is_valid().to_pylist(), strict=True)]


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    return rows.select_columns([name]).with_format("arrow")[:][name]


def list_lengths(column: pa.ChunkedArray, field: str | None = None) -> NDArray[np.int64]:
    """Lengths of a column's lists, or of those of its struct's `field`; 0 where there is none.

    Chunk by chunk: the texts of all rows together may pass what 32-bit offsets can count.
    """
    place = None if field is None else column.type.get_field_index(field)
    lists = [chunk if place is None else chunk.flatten()[place] for chunk in column.chunks]
    lengths = [one.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for one in lists]
    return np.concatenate([np.zeros(0, dtype=np.int64), *lengths])


def numbers_of(columns: Iterable[pa.ChunkedArray]) -> NDArray[np.int64]:
    """A number for every string of columns that stand one after the other, equal for equal strings."""
    whole = pa.chunked_array([chunk.cast(pa.large_string()) for column in columns for chunk in column.chunks])
    return np.concatenate([chunk.indices.to_numpy() for chunk in whole.dictionary_encode().chunks]).astype(np.int64)


def available_cores() -> int:
    """This process's share of the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def worker_count(settings: TrainingSettings, device: torch.device) -> int:
    """Workers of one process: as given, or as the cores and the device ask for."""
    if settings.num_workers is not None:
        return settings.num_workers
    most = MOST_WORKERS if device.type == "cuda" else WORKERS_WITHOUT_GPU
    return min(most, available_cores() - 1) if available_cores() > 2 else 0


def make_loader(
    readings: RowReader, collator: Any, batches: Iterable[list[Place]], workers: int, device: torch.device
) -> DataLoader[Any]:
    """Batches of places -> batches of the collator; workers stay for the next iteration."""
    return DataLoader(
        readings,
        batch_sampler=batches,
        collate_fn=collator,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        # the loader draws a seed for its workers; the global state belongs to dropout
        generator=torch.Generator(),
    )
