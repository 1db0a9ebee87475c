"""Corpora of the schema -> the batches of a run, the same for the same seed whatever the workers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BatchFeature

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import Split, UserError, is_generated, load_readings, sentence_span
from egma.inference.texts import distinct_texts
from egma.training.arguments import TrainingSettings
from egma.training.augmentation import Augmentation, text_number
from egma.training.sampling import EpochPlan, even_batches, gaze_subset
from egma.training.streaming import StreamedBatches

TRAINING_COLUMNS = ["image", "sentences", "fixations", "reading_id"]


class TrainingData:
    """Training and validation readings of one or several corpora, as one process of `world` sees them.

    Attributes:
        rows: training readings that a new model learns its vocabulary and grey values from.
        batches_per_epoch: batches of this process in an epoch.
        has_gaze: whether any training reading keeps gaze.
        truncated_sentences: of the training batches so far.
        generated: whether all corpora say of themselves that no patient is behind them.

    Raises:
        UserError: a corpus that cannot be read, weights that do not fit the corpora, too few readings for one batch.
    """

    def __init__(self, settings: TrainingSettings, rank: int, world: int) -> None:
        self.settings, self.rank, self.world = settings, rank, world
        self.folders = [Path(part.strip()) for part in str(settings.data).split(",")]
        self.weights = _weights(settings.data_weights, self.folders)
        self.generated = all(is_generated(folder) for folder in self.folders)
        validation = self._load("validation")
        self.validation = Readings(validation, min(1.0, math.ceil(settings.gaze_ratio)), settings.seed)
        ids = np.concatenate([np.asarray(rows["image_id"]) for rows in validation])
        self.validation_images = np.unique(ids, return_inverse=True)[1]
        self.truncated_sentences = 0
        self.source: _Indexed | StreamedBatches
        if settings.streaming:
            self.source = StreamedBatches(settings, self.folders, self.weights, rank, world)
        else:
            self.source = _Indexed(self._load("train"), self.weights, settings, rank, world)
        self.rows, self.has_gaze = self.source.rows, self.source.has_gaze
        self.batches_per_epoch = self.source.batches_per_epoch

    def batches(self, collator: "ReadingCollator", first_batch: int) -> Iterator[BatchFeature]:
        """This process's batches without end from its batch `first_batch` on: what an uninterrupted run would see."""
        for batch in self.source.batches(collator, first_batch):
            self.truncated_sentences += batch.pop("truncated_sentences")
            yield batch

    def validation_batches(self, collator: "ReadingCollator") -> Iterator[BatchFeature]:
        """This process's share of each validation batch; `weight` is the number of readings of all shares.

        Readings of one image are in different batches. Where there are fewer than processes, each has them all.
        """
        joint = even_batches(self.validation_images, self.settings.batch_size * self.world)
        shares = (
            np.array_split(batch, self.world)[self.rank] if len(batch) >= self.world else batch for batch in joint
        )
        own = [share.tolist() for share in shares]
        loader = make_loader(self.validation, collator, own, self.settings.num_workers)
        for whole, batch in zip(joint, loader, strict=True):
            yield BatchFeature({**batch, "weight": len(whole)})

    def fixed_cases(self, count: int) -> list[dict[str, Any]]:
        """The first validation readings with gaze, or without where none has, with a sentence each."""
        with_text = [place for place, n in enumerate(self.validation.sentence_counts) if n]
        looked_at = [place for place in with_text if self.validation.keeps_gaze[place]]
        return [self.validation[place] for place in (looked_at or with_text)[:count]]

    def describe(self) -> dict[str, Any]:
        """Counts and identities of the corpora, for `training_state.json`."""
        weights: Sequence[float | None] = self.weights or [None] * len(self.folders)
        return {
            folder.resolve().name: {
                "fingerprint": corpus_identity(folder),
                "generated": is_generated(folder),
                "weight": w,
                **{
                    f"{name}s": sorted({one for one in load_readings(folder, "train").unique(name) if one})
                    for name in ("source", "license")
                },
            }
            for folder, w in zip(self.folders, weights, strict=True)
        } | {"training": self.source.summary, "validation_readings": len(self.validation)}

    @property
    def summary(self) -> str:
        return f"{self.source.summary}; {len(self.validation)} for validation"

    def _load(self, split: Split) -> list[Dataset] | Any:
        return [load_readings(folder, split) for folder in self.folders]


class Readings(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of corpora, one after the other, as a map-style dataset.

    Attributes:
        keeps_gaze: (rows,) bool, whose gaze is used.
        sentence_counts: (rows,)
    """

    def __init__(self, corpora: Sequence[Dataset], gaze_ratio: float, seed: int) -> None:
        columns = [rows.select_columns(TRAINING_COLUMNS) for rows in corpora]
        self.rows = datasets.concatenate_datasets(columns)
        self.keeps_gaze = gaze_subset(np.concatenate([_has_gaze(rows) for rows in corpora]), gaze_ratio, seed)
        self.sentence_counts = np.concatenate([_lengths(rows, "sentences") for rows in corpora])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return row | {"fixations": row["fixations"] if self.keeps_gaze[index] else None}


class _Indexed:
    """Training readings that can be reached by number."""

    def __init__(
        self,
        corpora: list[Dataset],
        weights: list[float] | None,
        settings: TrainingSettings,
        rank: int,
        world: int,
    ) -> None:
        self.settings, self.rank, self.world = settings, rank, world
        self.rows = datasets.concatenate_datasets(corpora)
        self.readings = Readings(corpora, settings.gaze_ratio, settings.seed)
        self.has_gaze = bool(self.readings.keeps_gaze.any())
        ids = np.concatenate([np.asarray(rows["image_id"]) for rows in corpora])
        _, images = np.unique(ids, return_inverse=True)
        sizes = [len(rows) for rows in corpora]
        self.plan = EpochPlan(images, sizes, weights, settings.batch_size * world, settings.seed)
        self.batches_per_epoch = len(self.plan.epoch(0))
        used = self.batches_per_epoch * settings.batch_size * world
        self.summary = (
            f"{len(ids)} training readings of {images.max() + 1} images, {self.readings.keeps_gaze.sum()} with gaze; "
            f"{used} of them in an epoch"
        )

    def batches(self, collator: "ReadingCollator", first_batch: int) -> Iterator[BatchFeature]:
        while True:
            collator.epoch, batches = self.plan.locate(first_batch)
            own = batches.reshape(len(batches), self.world, -1)[:, self.rank].tolist()
            yield from make_loader(self.readings, collator, own, self.settings.num_workers)
            first_batch += len(batches)


class ReadingCollator:
    """Rows -> model inputs (`distinct_texts`) and `reading_ids`; augments when `settings` are given.

    With `positives: text_match` also `report_ids` (B,) and `sentence_ids` (N,), equal for equal texts.
    """

    def __init__(self, processor: Any, settings: TrainingSettings | None = None) -> None:
        self.processor = processor
        self.settings = settings
        self.epoch = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        augmentation = None if self.settings is None else Augmentation(self.settings, self.epoch)
        texts = [[sentence["text"] for sentence in row["sentences"]] for row in rows]
        before = self.processor.truncated_sentences
        batch = self.processor(
            images=[row["image"] for row in rows],
            text=texts,
            gaze=[row["fixations"] for row in rows],
            spans=[[sentence_span(sentence) for sentence in row["sentences"]] for row in rows],
            frame_affines=None if augmentation is None else augmentation.frame_affines(rows),
        )
        if augmentation is not None:
            deviation = float(np.mean(self.processor.image_processor.image_std))
            batch["pixel_values"] = augmentation.grey_values(batch["pixel_values"], rows, deviation)
        batch["reading_ids"] = [row["reading_id"] for row in rows]
        # counted here, as a worker's processor is a copy
        batch["truncated_sentences"] = self.processor.truncated_sentences - before
        if self.settings is not None and self.settings.positives == "text_match":
            batch |= text_ids(texts)
        return BatchFeature({**batch, **distinct_texts(batch)})


def text_ids(reports: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """Numbers of reports and of their sentences; case and spaces make no difference."""
    plain = [[" ".join(text.lower().split()) for text in report] for report in reports]
    return {
        "report_ids": torch.tensor([text_number("\n".join(report)) for report in plain]),
        "sentence_ids": torch.tensor([text_number(text) for report in plain for text in report], dtype=torch.long),
    }


def make_loader(readings: Any, collator: Any, batches: Iterable[list[int]], num_workers: int) -> DataLoader[Any]:
    return DataLoader(
        readings,
        batch_sampler=list(batches),
        collate_fn=collator,
        num_workers=num_workers,
        # the loader draws a seed for its workers; the global state belongs to dropout
        generator=torch.Generator(),
    )


def _weights(given: str | None, folders: list[Path]) -> list[float] | None:
    if given is None:
        return None
    try:
        weights = [float(part) for part in given.split(",")]
    except ValueError:
        raise UserError(f"data_weights is '{given}', expected numbers as 2,1") from None
    if len(weights) != len(folders) or not all(0 < weight < math.inf for weight in weights):
        raise UserError(f"data_weights is '{given}', expected a number above 0 for each of {len(folders)} corpora")
    return weights


def _has_gaze(rows: Dataset) -> NDArray[np.bool_]:
    fixations = rows.select_columns(["fixations"]).with_format("arrow")[:]["fixations"].combine_chunks()
    counts = fixations.field("x").value_lengths().to_numpy(zero_copy_only=False)
    return np.asarray(np.nan_to_num(counts) > 0)


def _lengths(rows: Dataset, column: str) -> NDArray[np.int64]:
    values = rows.select_columns([column]).with_format("arrow")[:][column].combine_chunks()
    return np.nan_to_num(values.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
