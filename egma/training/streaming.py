"""Training readings read from the shards as they come, without an index: for corpora that do not fit the disk cache.

All processes, and all workers of one, read the same stream of undecoded rows and decode only their own. So the batches
are those of one process, the same image never meets itself, and a resumed run finds its place by reading its epoch
again up to there.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader, get_worker_info
from transformers import BatchFeature

from dataset_scripts.schema import UserError, split_files
from egma.training.arguments import TrainingSettings
from egma.training.augmentation import text_number

COLUMNS = ["image", "sentences", "fixations", "reading_id", "image_id"]
# of each corpus, for a new model's vocabulary and grey values
SAMPLE = 1000
RATIO_STEPS = 2**32
ROWS_AT_ONCE = 16


class StreamedBatches:
    """The batches of one process over the training shards of all corpora.

    `gaze_ratio` keeps the gaze of readings whose number, drawn from seed and name, lies below it: about that share.
    """

    def __init__(
        self, settings: TrainingSettings, folders: list[Path], weights: list[float] | None, rank: int, world: int
    ) -> None:
        self.settings, self.rank, self.world = settings, rank, world
        self.shards = [[str(path) for path in split_files(folder, "train")] for folder in folders]
        sizes = [sum(pq.read_metadata(path).num_rows for path in shards) for shards in self.shards]
        self.readings = sum(sizes)
        shares = weights or sizes
        self.probabilities = [share / sum(shares) for share in shares]
        self.batches_per_epoch = sum(sizes) // (settings.batch_size * world)
        if self.batches_per_epoch == 0:
            raise UserError(
                f"the training split has {sum(sizes)} readings, fewer than one batch of {settings.batch_size} on each "
                f"of {world} process(es); lower --batch_size"
            )
        samples = [row for shards in self.shards for row in itertools.islice(_stream(shards), SAMPLE)]
        features = datasets.Features({name: _stream(self.shards[0]).features[name] for name in COLUMNS})
        self.rows = Dataset.from_list(samples, features=features)
        self.has_gaze = settings.gaze_ratio > 0 and any(_has_fixations(shards) for shards in self.shards)
        self.summary = f"{sum(sizes)} training readings, streamed, about {settings.gaze_ratio:.0%} of the gaze kept"

    def batches(self, collator: Any, first_batch: int) -> Iterator[BatchFeature]:
        """Batches without end from `first_batch` on."""
        while True:
            epoch, position = divmod(first_batch, self.batches_per_epoch)
            collator.epoch = epoch
            part = _Part(self, collator, epoch, position)
            # the loader draws a seed for its workers; the global state belongs to dropout
            workers = self.settings.num_workers
            yield from DataLoader(part, batch_size=None, num_workers=workers, generator=torch.Generator())
            first_batch += self.batches_per_epoch - position

    def joined_batches(self, epoch: int) -> Iterator[list[dict[str, Any]]]:
        """Undecoded rows of the batches of all processes in one epoch."""
        size = self.settings.batch_size * self.world
        held: deque[dict[str, Any]] = deque()
        stream = itertools.chain.from_iterable(self._rows(epoch, passage) for passage in itertools.count())
        for _ in range(self.batches_per_epoch):
            batch: dict[str, dict[str, Any]] = {}
            for _ in range(len(held)):
                _place(held.popleft(), batch, held, size)
            while len(batch) < size:
                if len(held) > self.readings:
                    raise UserError(f"the training split has fewer than {size} different images; lower --batch_size")
                _place(next(stream), batch, held, size)
            yield list(batch.values())

    def decoded(self, row: dict[str, Any]) -> dict[str, Any]:
        number = text_number(f"{self.settings.seed} {row['reading_id']}") % RATIO_STEPS
        keeps = number < self.settings.gaze_ratio * RATIO_STEPS
        image = datasets.Image().decode_example(row["image"])
        return row | {"image": image, "fixations": row["fixations"] if keeps else None}

    def _rows(self, epoch: int, passage: int) -> Iterator[dict[str, Any]]:
        seed = text_number(f"{self.settings.seed} {epoch} {passage}") % RATIO_STEPS
        streams = [_stream(shards) for shards in self.shards]
        mixed = streams[0]
        if len(streams) > 1:
            mixed = datasets.interleave_datasets(
                streams, probabilities=self.probabilities, seed=seed, stopping_strategy="all_exhausted"
            )
        mixed = mixed.shuffle(seed=seed, buffer_size=self.settings.shuffle_buffer)
        # `iter`: inside a loader's worker, plain iteration would give each worker other shards
        for columns in mixed.iter(batch_size=ROWS_AT_ONCE):
            yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


class _Part(torch.utils.data.IterableDataset[BatchFeature]):
    """One process's batches of one epoch from `position` on; workers take turns."""

    def __init__(self, source: StreamedBatches, collator: Any, epoch: int, position: int) -> None:
        self.source, self.collator, self.epoch, self.position = source, collator, epoch, position

    def __iter__(self) -> Iterator[BatchFeature]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        batches = itertools.islice(self.source.joined_batches(self.epoch), self.position + number, None, workers)
        size = self.source.settings.batch_size
        start = self.source.rank * size
        for batch in batches:
            yield self.collator([self.source.decoded(row) for row in batch[start : start + size]])


def _place(row: dict[str, Any], batch: dict[str, Any], held: deque[dict[str, Any]], size: int) -> None:
    """Into the batch, or held back for the next one when its image is there already or the batch is full."""
    if row["image_id"] in batch or len(batch) == size:
        held.append(row)
    else:
        batch[row["image_id"]] = row


def _stream(shards: list[str]) -> IterableDataset:
    # not load_dataset, which tells the Hub that it was called
    rows = IterableDataset.from_parquet(shards, split=datasets.Split.TRAIN, columns=COLUMNS)
    return rows.cast_column("image", datasets.Image(decode=False))


def _has_fixations(shards: list[str]) -> bool:
    for path in shards:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["fixations"]).column("fixations").combine_chunks()
            if (column.field("x").value_lengths().fill_null(0).to_numpy(zero_copy_only=False) > 0).any():
                return True
    return False
