"""Corpora of the schema -> the batches of a run, the same for the same seed whatever the workers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import BatchFeature

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import Split, UserError, is_generated, load_readings, sentence_span
from egma.inference.texts import distinct_texts
from egma.tools.corpora import corpus_folder
from egma.training.arguments import TrainingSettings
from egma.training.augmentation import Augmentation, text_number
from egma.training.finishing import Finishing
from egma.training.prepared import PreparedFrames
from egma.training.readings import Readings, make_loader, worker_count
from egma.training.sampling import EpochPlan, Indices, even_batches
from egma.training.streaming import StreamedReadings
from modeling_egma.gaze_egma import fixation_table, window_table
from modeling_egma.image_processing_egma import VALUE_SETTINGS
from modeling_egma.pictures_egma import picture_list

CPU = torch.device("cpu")
LARGEST_SENT_BYTES = 2**18
MOST_TEXTS = 2**14  # whose tokens a worker keeps, a kilobyte or two each


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

    def __init__(self, settings: TrainingSettings, rank: int, world: int, device: torch.device = CPU) -> None:
        self.settings, self.rank, self.world, self.device = settings, rank, world, device
        self.workers = worker_count(settings, device)
        self.validation_loader: DataLoader[Any] | None = None
        self.kept: Tensor | None = None
        self.folders = [corpus_folder(part.strip()) for part in str(settings.data).split(",")]
        self.weights = _weights(settings.data_weights, self.folders)
        self.generated = all(is_generated(folder) for folder in self.folders)
        validation = self._load("validation")
        self.validation = Readings(validation, min(1.0, math.ceil(settings.gaze_ratio)), settings.seed)
        self.truncated_sentences = 0
        self.source: IndexedReadings | StreamedReadings
        if settings.streaming:
            self.source = StreamedReadings(settings, self.folders, self.weights, rank, world)
            self.workers = self.source.workers_of(self.workers)
        else:
            self.source = IndexedReadings(self._load("train"), self.weights, settings, rank, world)
        self.rows, self.has_gaze = self.source.rows, self.source.has_gaze
        self.batches_per_epoch = self.source.batches_per_epoch

    def prepare(self, image_processor: Any) -> None:
        """With `prepared`, read frames from now on, which are made where they are not there yet.

        Raises:
            UserError: other frames than these, or more than the device can keep.
        """
        settings = self.settings
        if settings.prepared is None:
            return
        for name, readings in (("train", self.source), ("validation", self.validation)):
            assert isinstance(readings, Readings)
            folder = Path(settings.prepared)
            readings.frames = PreparedFrames(folder, self.folders, readings, name, image_processor)
        if settings.keep_on_device:
            self.kept = self.source.frames.move_to(self.device)

    def batches(self, collator: "ReadingCollator", first_batch: int) -> Iterator[BatchFeature]:
        """This process's batches without end from its batch `first_batch` on: what an uninterrupted run would see."""
        places = ([(row, epoch) for row in rows.tolist()] for epoch, rows in self.source.batches(first_batch))
        for batch in make_loader(self.source, collator, places, self.workers, self.device):
            self.truncated_sentences += batch.pop("truncated_sentences")
            if self.kept is not None:
                batch["pixel_values"] = self.kept[batch.pop("frame_places").to(self.device, non_blocking=True)]
            yield batch

    def validation_batches(self, collator: "ReadingCollator") -> Iterator[BatchFeature]:
        """This process's share of each validation batch; `weight` is the number of readings of all shares.

        Readings of one image are in different batches. Where there are fewer than processes, each has them all.
        """
        joint = even_batches(self.validation.images, self.settings.batch_size * self.world)
        if self.validation_loader is None:
            shares = (
                np.array_split(batch, self.world)[self.rank] if len(batch) >= self.world else batch for batch in joint
            )
            places = [[(row, 0) for row in share.tolist()] for share in shares]
            self.validation_loader = make_loader(self.validation, collator, places, self.workers, self.device)
        for whole, batch in zip(joint, self.validation_loader, strict=True):
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
        return f"{self.source.summary}; {len(self.validation)} for validation; {self.workers} workers prepare batches"

    def _load(self, split: Split) -> list[Dataset] | Any:
        return [load_readings(folder, split) for folder in self.folders]


class IndexedReadings(Readings):
    """Training readings that can be reached by number, and the batches of one process."""

    def __init__(
        self, corpora: list[Dataset], weights: list[float] | None, settings: TrainingSettings, rank: int, world: int
    ) -> None:
        super().__init__(corpora, settings.gaze_ratio, settings.seed)
        self.rank, self.world = rank, world
        self.has_gaze = bool(self.keeps_gaze.any())
        self.plan = EpochPlan(self.images, self.sizes, weights, settings.batch_size * world, settings.seed)
        self.batches_per_epoch = len(self.plan.epoch(0))
        used = self.batches_per_epoch * settings.batch_size * world
        self.summary = (
            f"{len(self)} training readings of {self.images.max() + 1} images, {self.keeps_gaze.sum()} with gaze; "
            f"{used} of them in an epoch"
        )

    def batches(self, first: int) -> Iterator[tuple[int, Indices]]:
        """This process's batches of the run from its batch `first` on: the epoch and the rows."""
        return ((epoch, rows.reshape(self.world, -1)[self.rank]) for epoch, rows in self.plan.batches(first))


class WorkersBatch(BatchFeature):
    """A batch whose small tensors a worker sends as they are: a piece of shared memory for each costs more."""

    def __reduce__(self) -> tuple[Any, ...]:
        tensors = {name: value for name, value in self.items() if isinstance(value, Tensor)}
        small = {name: value.numpy() for name, value in tensors.items() if value.nbytes < LARGEST_SENT_BYTES}
        return _received, (small, {name: value for name, value in self.items() if name not in small})


def _received(small: Mapping[str, Any], others: Mapping[str, Any]) -> BatchFeature:
    return BatchFeature({**others, **{name: torch.from_numpy(value) for name, value in small.items()}})


class ReadingCollator:
    """Rows -> what `step.to_device` finishes to model inputs (`distinct_texts`), and `reading_ids`; augments when
    `settings` are given.

    With `positives: text_match` also `report_ids` (B,) and `sentence_ids` (N,), equal for equal texts.
    """

    def __init__(self, processor: Any, settings: TrainingSettings | None = None) -> None:
        self.processor = processor
        self.settings = settings
        self.known: dict[str, tuple[dict[str, Tensor], bool]] = {}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        texts = [[sentence["text"] for sentence in row["sentences"]] for row in rows]
        spans = [[sentence_span(sentence) for sentence in row["sentences"]] for row in rows]
        batch = self._tokens(texts) | self._frames(rows)
        batch["fixations"] = fixation_table([row["fixations"] for row in rows])
        batch["windows"] = window_table(spans, self.processor.gaze_kwargs["lead"])
        batch["reading_ids"] = [row["reading_id"] for row in rows]
        values = {name: getattr(self.processor.image_processor, name) for name in VALUE_SETTINGS}
        batch["finish"] = Finishing(values, self.processor.grid_size, self.processor.gaze_kwargs["sigma"])
        if self.settings is not None:
            augmentation = Augmentation(self.settings)
            moves = {"frame_affines": augmentation.frame_affines(rows), "greys": augmentation.greys(rows)}
            batch |= {name: value for name, value in moves.items() if value is not None}
            if self.settings.positives == "text_match":
                batch |= text_ids(texts)
        return WorkersBatch(batch)

    def _tokens(self, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
        places: dict[str, int] = {}
        index = [places.setdefault(text, len(places)) for report in texts for text in report]
        self._remember(list(places))
        rows, cut = [self.known[text][0] for text in places], [self.known[text][1] for text in places]
        tokenizer = self.processor.tokenizer
        filler = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        padded = {
            name: pad_sequence([row[name] for row in rows], True, filler.get(name, 0), tokenizer.padding_side)
            for name in (rows[0] if rows else ())
        }
        batch = distinct_texts(padded or self.processor(text=[]))
        batch["sentence_index"] = batch["sentence_index"][index]
        counts = torch.tensor([len(report) for report in texts])
        batch["sentence_to_image"] = torch.repeat_interleave(torch.arange(len(texts)), counts)
        return batch | {"truncated_sentences": sum(cut[place] for place in index)}

    def _remember(self, texts: list[str]) -> None:
        """Tokenise what is new: reports repeat their sentences."""
        new = [text for text in texts if text not in self.known]
        if len(self.known) + len(new) > MOST_TEXTS:
            self.known, new = {}, texts
        tokens, cut = self.processor.token_lists(new) if new else ({}, [])
        for place, text in enumerate(new):
            self.known[text] = {name: torch.tensor(lists[place]) for name, lists in tokens.items()}, cut[place]

    def _frames(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """uint8 frames, or their places where the device has them, and how the images lie in them."""
        if "image" in rows[0]:
            pictures = picture_list([row["image"] for row in rows])
            frames = {"pixel_values": self.processor.image_processor.frames(pictures)}
            sizes = [picture.size for picture in pictures]
        else:
            name = "frame_places" if "frame_places" in rows[0] else "pixel_values"
            frames, sizes = (
                {name: torch.from_numpy(np.stack([row[name] for row in rows]))},
                [row["size"] for row in rows],
            )
        return frames | {"geometry": self.processor.geometry(sizes)}


def text_ids(reports: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """Numbers of reports and of their sentences; case and spaces make no difference."""
    plain = [[" ".join(text.lower().split()) for text in report] for report in reports]
    return {
        "report_ids": torch.tensor([text_number("\n".join(report)) for report in plain]),
        "sentence_ids": torch.tensor([text_number(text) for report in plain for text in report], dtype=torch.long),
    }


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
