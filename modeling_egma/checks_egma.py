"""What a batch holds beside images and text, held against them."""

import torch
from torch import Tensor

from .losses_egma import grid_of


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
