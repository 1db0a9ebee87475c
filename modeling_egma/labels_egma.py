"""What stands beside the inputs of a batch, its labels and gaze, held against them."""

import torch
from torch import Tensor

from .losses_egma import grid_of

IGNORED_LABEL = -100  # of the cross-entropy


def classification_labels(labels: Tensor, logits: Tensor, problem_type: str | None) -> tuple[Tensor, str]:
    """The labels as the loss takes them, and the kind of problem that they state where none is given.

    Args:
        labels: (B,) class indices, or (B, L) 0/1; with one label also (B,) 0/1.
        logits: (B, L).
        problem_type: as transformers has it; None: what the shape of the labels says.

    Raises:
        ValueError: labels of another shape or range.

    >>> classification_labels(torch.tensor([2, 0]), torch.zeros(2, 3), None)
    (tensor([2, 0]), 'single_label_classification')
    """
    count = logits.shape[-1]
    several = labels.ndim == 2 or count == 1
    kind = problem_type or ("multi_label_classification" if several else "single_label_classification")
    if kind == "single_label_classification":
        integers = not (labels.is_floating_point() or labels.is_complex())
        if labels.shape != logits.shape[:1] or not integers or not _within(labels[labels != IGNORED_LABEL], count - 1):
            raise ValueError(
                f"labels of {labels.dtype} and shape {tuple(labels.shape)}, expected a whole number from 0 to "
                f"{count - 1} for each of {len(logits)} images, or 0 and 1 in the shape {tuple(logits.shape)}"
            )
        return labels.long(), kind
    if count == 1 and labels.ndim == 1:
        labels = labels[:, None]
    is_regression = kind == "regression"
    if labels.shape != logits.shape or not (is_regression or _within(labels, 1)):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, expected {tuple(logits.shape)}: "
            + ("a number" if is_regression else "0 or 1, nothing below or above,")
            + " for each image and label"
        )
    return labels.to(logits.dtype), kind


def _within(labels: Tensor, largest: int) -> bool:
    return bool(((labels >= 0) & (labels <= largest)).all())


def checked_rows(sentence_to_image: Tensor | None, patches: Tensor, sentences: Tensor) -> Tensor:
    """(N,) the image row of every sentence; None: one sentence an image."""
    images, count = len(patches), len(sentences)
    if sentence_to_image is None:
        if count != images:
            raise ValueError(
                f"the loss of flat prompts takes one sentence an image, got {count} sentences and {images} images; "
                "pass sentence_to_image"
            )
        return torch.arange(images, device=patches.device)
    if sentence_to_image.shape != (count,):
        raise ValueError(f"sentence_to_image has shape {tuple(sentence_to_image.shape)}, expected ({count},)")
    if count and not 0 <= int(sentence_to_image.min()) <= int(sentence_to_image.max()) < images:
        raise ValueError(f"sentence_to_image refers to images outside 0 ... {images - 1}")
    return sentence_to_image


def check_gaze(heatmaps: Tensor | None, mask: Tensor | None, patches: Tensor, sentences: Tensor) -> None:
    """Raise ValueError for gaze that is not of these patches and sentences."""
    if heatmaps is None and mask is None:
        return
    if heatmaps is None or mask is None:
        raise ValueError("gaze_heatmaps and gaze_mask go together: pass both, or neither when no image has gaze")
    grid = grid_of(patches)
    if heatmaps.shape != (len(sentences), grid, grid):
        raise ValueError(
            f"gaze_heatmaps has shape {tuple(heatmaps.shape)}, expected {(len(sentences), grid, grid)}: one map a "
            "sentence on the model's patch grid"
        )
    if mask.shape != (len(patches),):
        raise ValueError(f"gaze_mask has shape {tuple(mask.shape)}, expected ({len(patches)},)")
