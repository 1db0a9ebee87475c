"""Augmentation of images, with the gaze following; each reading by (seed, epoch, reading) alone."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egma.training.arguments import TrainingSettings
from modeling_egma.gaze_egma import compose, frame_affine, frame_crop

MOVES = ("rotation_degrees", "scale_fraction", "shift_fraction", "flip_probability", "crop_fraction")


def text_number(text: str) -> int:
    """63 bits that are the same for the same text in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Augmentation:
    """What the settings say of augmentation; a row's `epoch` is part of its draws.

    `frame_affines` moves the frame (rotation, scale, shift, flip, then crop); `greys` changes brightness and contrast.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    def frame_affines(self, rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
        """(B, 2, 3) maps of frame fractions; None when nothing moves."""
        if not any(getattr(self.settings, name) for name in MOVES):
            return None
        return torch.stack([self._frame_affine(row) for row in rows])

    def greys(self, rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
        """(B, 2) what is added, as a fraction of full scale, and the factor of contrast; None when nothing changes."""
        settings = self.settings
        if not (settings.brightness or settings.contrast):
            return None
        draws = torch.tensor(np.stack([self._random(row, kind=2).uniform(-1, 1, size=2) for row in rows])).float()
        return draws * torch.tensor([settings.brightness, settings.contrast]) + torch.tensor([0.0, 1.0])

    def _frame_affine(self, row: Mapping[str, Any]) -> Tensor:
        settings = self.settings
        rotation, scale, shift_x, shift_y = self._random(row, kind=0).uniform(-1, 1, size=4)
        moved = frame_affine(
            rotation_degrees=settings.rotation_degrees * rotation,
            scale=1 + settings.scale_fraction * scale,
            shift=(settings.shift_fraction * shift_x, settings.shift_fraction * shift_y),
            flip=bool(self._random(row, kind=1).random() < settings.flip_probability),
        )
        if not settings.crop_fraction:
            return moved
        cut, left, top = self._random(row, kind=3).uniform(0, 1, size=3)
        side = 1 - settings.crop_fraction * cut
        x_min, y_min = left * (1 - side), top * (1 - side)
        return compose(frame_crop(x_min, y_min, x_min + side, y_min + side), moved)

    def _random(self, row: Mapping[str, Any], kind: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, 1, kind, row["epoch"], text_number(row["reading_id"])])


def change_greys(frames: Tensor, greys: Tensor) -> Tensor:
    """Brightness and contrast, about each picture's mean, of (B, C, H, W) from 0 to 255."""
    frames = frames.float()
    mean = frames.mean(dim=(1, 2, 3), keepdim=True)
    added, contrast = (one[:, None, None, None] for one in greys.unbind(1))
    return (frames - mean) * contrast + mean + 255 * added
