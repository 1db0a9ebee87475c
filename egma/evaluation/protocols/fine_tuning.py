"""The linear probe's protocol with the encoder unfrozen: `EgmaForImageClassification`, trained anew for every share."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from dataset_scripts.schema import ABSENT, PRESENT, UserError
from egma.evaluation.protocols.linear_probe import SplitLabels, by_fraction, mean_auroc, trainable_classes
from egma.evaluation.protocols.zero_shot import Labels
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import Images, Processor, Readings, finite
from egma.tools.arrays import Array
from egma.tools.running_statistics import split_statistics
from modeling_egma import EgmaConfig, EgmaForImageClassification, EgmaModel

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.05
MAX_EPOCHS = 20
PATIENCE_EPOCHS = 3


def fine_tuning(
    model: Any,
    processor: Processor,
    labels: SplitLabels,
    rows: tuple[Readings, Readings, Readings],
    bootstrap: PatientBootstrap,
    batch_size: int,
    seed: int,
    kept_in: Path | None = None,
) -> dict[str, Any]:
    """Encoder and head on each share of the training patients; the epoch is chosen on the validation split.

    Args:
        labels: of training, validation and test readings.
        rows: the same splits with their images.
        kept_in: folder for the classifier of all training patients, with the processor; None: it is not kept.

    Raises:
        UserError: the model is no EGMA model.
    """
    if not isinstance(model, EgmaModel):
        raise UserError("fine-tuning takes EGMA models; for others there is linear_probe")
    training, validation, _ = labels
    pixels = [Images(processor, of_split) for of_split in rows]

    def fit(places: NDArray[np.int64]) -> tuple[Array, Array, dict[str, Any], dict[str, str]]:
        torch.manual_seed(seed)
        _, untrained = trainable_classes(training.classes, training.values[places])
        classifier = _classifier(model, len(training.classes))
        held, _ = split_statistics(classifier)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        best, best_epoch, kept = -np.inf, 0, classifier.state_dict()
        for epoch in tqdm(range(1, MAX_EPOCHS + 1), desc="epochs", disable=None):
            _train_epoch(classifier, optimizer, pixels[0], training, places, batch_size, [seed, 7, epoch], held)
            quality = mean_auroc(validation, _scores(classifier, pixels[1], validation, batch_size))
            if quality > best:
                best, best_epoch, kept = quality, epoch, copy.deepcopy(classifier.state_dict())
            if epoch - best_epoch >= PATIENCE_EPOCHS:
                break
        classifier.load_state_dict(kept)
        if kept_in is not None and len(places) == len(training.readings):
            classifier.config.id2label = dict(enumerate(training.classes))
            classifier.config.label2id = {name: place for place, name in enumerate(training.classes)}
            for part in (classifier, cast(Any, processor)):
                part.save_pretrained(kept_in)
        chosen = {"epoch": best_epoch, "validation_auroc": best}
        of_held, scores = (_scores(classifier, pixels[place], labels[place], batch_size) for place in (1, 2))
        return of_held, scores, chosen, untrained

    return by_fraction(labels, fit, bootstrap, seed)


def _classifier(model: EgmaModel, classes: int) -> EgmaForImageClassification:
    config = cast(EgmaConfig, copy.deepcopy(model.config))
    config.num_labels, config.problem_type = classes, "multi_label_classification"
    classifier = EgmaForImageClassification(config)
    classifier.vision_model.load_state_dict(model.vision_model.state_dict())
    nn.Module.to(classifier, model.device)
    return classifier


def _batches(labels: Labels, places: NDArray[np.int64], size: int) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
    for at in range(0, len(places), size):
        part = places[at : at + size]
        yield [labels.readings[place]["image_id"] for place in part.tolist()], part


def _train_epoch(
    classifier: EgmaForImageClassification,
    optimizer: torch.optim.Optimizer,
    images: Images,
    labels: Labels,
    places: NDArray[np.int64],
    batch_size: int,
    seed: list[int],
    held: list[nn.Module],
) -> None:
    classifier.train()
    for layer in held:
        layer.eval()
    shuffled = np.random.default_rng(seed).permutation(places)
    for ids, part in _batches(labels, shuffled, batch_size):
        values = torch.from_numpy(labels.values[part])
        listed = torch.from_numpy(np.isin(labels.values[part], (PRESENT, ABSENT)))
        if not bool(listed.any()):
            continue
        logits = classifier(images.pixels(ids).to(classifier.device)).logits.float().cpu()
        loss = binary_cross_entropy_with_logits(logits[listed], values[listed].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _scores(classifier: EgmaForImageClassification, images: Images, labels: Labels, batch_size: int) -> Array:
    classifier.eval()
    every = np.arange(len(labels.readings))
    parts = [
        finite("image", ids, classifier(images.pixels(ids).to(classifier.device)).logits.double().cpu())
        for ids, _ in _batches(labels, every, batch_size)
    ]
    return torch.cat(parts).numpy()
