"""Readings -> batches of one epoch, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BatchFeature

from dataset_scripts.schema import UserError
from egma_training.arguments import TrainingSettings
from modeling_egma.gaze_egma import frame_affine

TRAINING_COLUMNS = ["image", "sentences", "fixations", "reading_id"]


class Readings(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of the schema as a map-style dataset; `keeps_gaze` (rows,) bool says whose gaze is used."""

    def __init__(self, rows: Dataset, gaze_ratio: float, seed: int) -> None:
        self.rows = rows.select_columns(TRAINING_COLUMNS).cast_column("image", datasets.Image(mode="L"))
        self.keeps_gaze = gaze_subset(_has_gaze(rows), gaze_ratio, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return row | {"index": index, "fixations": row["fixations"] if self.keeps_gaze[index] else None}


def gaze_subset(has_gaze: np.ndarray, gaze_ratio: float, seed: int) -> np.ndarray:
    """Which readings keep their gaze: a seeded share of those that have one (METHOD "gaze_ratio").

    A larger share contains the smaller one of the same seed.
    """
    recorded = np.flatnonzero(has_gaze)
    order = np.random.default_rng([seed, 0]).permutation(recorded)
    kept = np.zeros(len(has_gaze), dtype=bool)
    kept[order[: round(gaze_ratio * len(recorded))]] = True
    return kept


def _has_gaze(rows: Dataset) -> np.ndarray:
    fixations = rows.select_columns(["fixations"]).with_format("arrow")[:]["fixations"].combine_chunks()
    counts = fixations.field("x").value_lengths().to_numpy(zero_copy_only=False)
    return np.nan_to_num(counts) > 0


class ReadingCollator:
    """Rows -> model inputs; augments when `settings` are given, each reading by (seed, epoch, row)."""

    def __init__(self, processor: Any, max_length: int, settings: TrainingSettings | None = None) -> None:
        self.processor = processor
        self.max_length = max_length
        self.settings = settings
        self.epoch = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> BatchFeature:
        augmentation = self._frame_affines(rows)
        batch = self.processor(
            images=[row["image"] for row in rows],
            text=[[sentence["text"] for sentence in row["sentences"]] for row in rows],
            gaze=[row["fixations"] for row in rows],
            spans=[[_span(sentence) for sentence in row["sentences"]] for row in rows],
            frame_affines=augmentation,
            max_length=self.max_length,
        )
        if self.settings is not None:
            batch["pixel_values"] = self._brightness_and_contrast(batch["pixel_values"], rows)
        batch["return_loss"] = True
        return batch

    def _generator(self, row: dict[str, Any], kind: int) -> np.random.Generator:
        assert self.settings is not None
        return np.random.default_rng([self.settings.seed, 1 + kind, self.epoch, row["index"]])

    def _frame_affines(self, rows: Sequence[dict[str, Any]]) -> list[Tensor] | None:
        settings = self.settings
        moves = ("rotation_degrees", "scale_fraction", "shift_fraction", "flip_probability")
        if settings is None or not any(getattr(settings, name) for name in moves):
            return None
        affines = []
        for row in rows:
            rotation, scale, shift_x, shift_y = self._generator(row, kind=0).uniform(-1, 1, size=4)
            affines.append(
                frame_affine(
                    rotation_degrees=settings.rotation_degrees * rotation,
                    scale=1 + settings.scale_fraction * scale,
                    shift=(settings.shift_fraction * shift_x, settings.shift_fraction * shift_y),
                    flip=bool(self._generator(row, kind=1).random() < settings.flip_probability),
                )
            )
        return affines

    def _brightness_and_contrast(self, pixel_values: Tensor, rows: Sequence[dict[str, Any]]) -> Tensor:
        settings = self.settings
        if settings is None or not (settings.brightness or settings.contrast):
            return pixel_values
        draws = torch.tensor(np.stack([self._generator(row, kind=2).uniform(-1, 1, size=2) for row in rows])).float()
        full_scale = 1 / float(np.mean(self.processor.image_processor.image_std))
        brightness = full_scale * settings.brightness * draws[:, 0, None, None, None]
        contrast = 1 + settings.contrast * draws[:, 1, None, None, None]
        mean = pixel_values.mean(dim=(1, 2, 3), keepdim=True)
        return (pixel_values - mean) * contrast + mean + brightness


def _span(sentence: dict[str, Any]) -> tuple[float, float] | None:
    start, end = sentence["start_seconds"], sentence["end_seconds"]
    return None if start is None or end is None else (start, end)


def epoch_batches(rows: int, batch_size: int, seed: int, epoch: int, rank: int, world: int) -> list[list[int]]:
    """Row indices of every batch of one process in one epoch; the last incomplete batch is dropped.

    Raises:
        UserError: fewer rows than one batch on every process.
    """
    order = np.random.default_rng([seed, 4, epoch]).permutation(rows)
    steps = rows // (batch_size * world)
    if steps == 0:
        raise UserError(
            f"the training split has {rows} readings, fewer than one batch of {batch_size} on each of {world} "
            "process(es); lower --batch_size"
        )
    return order[: steps * batch_size * world].reshape(steps, world, batch_size)[:, rank].tolist()


def training_batches(
    readings: Readings, collator: ReadingCollator, settings: TrainingSettings, first_step: int, rank: int, world: int
) -> Iterator[BatchFeature]:
    """Batches without end, from step `first_step` on: what an uninterrupted run would have seen there."""
    while True:
        per_epoch = len(epoch_batches(len(readings), settings.batch_size, settings.seed, 0, rank, world))
        epoch, position = divmod(first_step, per_epoch)
        batches = epoch_batches(len(readings), settings.batch_size, settings.seed, epoch, rank, world)[position:]
        collator.epoch = epoch
        yield from _loader(readings, collator, batches, settings.num_workers)
        first_step += len(batches)


def validation_batches(
    readings: Readings, collator: ReadingCollator, batch_size: int, num_workers: int
) -> DataLoader[Any]:
    """The validation split in its own order."""
    indices = [
        list(range(start, min(start + batch_size, len(readings)))) for start in range(0, len(readings), batch_size)
    ]
    return _loader(readings, collator, indices, num_workers)


def _loader(
    readings: Readings, collator: ReadingCollator, batches: list[list[int]], num_workers: int
) -> DataLoader[Any]:
    return DataLoader(
        readings,
        batch_sampler=batches,
        collate_fn=collator,
        num_workers=num_workers,
        # the loader draws a seed for its workers; the global state belongs to dropout
        generator=torch.Generator(),
    )
