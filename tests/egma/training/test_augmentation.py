"""Gaze follows the picture: a dot drawn where the reader looked stays where the heat map has its peak."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from egma.training.data import ReadingCollator
from egma.training.step import to_device

from .test_data import settings

MOVES: dict[str, dict[str, Any]] = {
    "rotation": {"rotation_degrees": 30},
    "scale": {"scale_fraction": 0.3},
    "shift": {"shift_fraction": 0.15},
    "flip": {"flip_probability": 1},
    "crop": {"crop_fraction": 0.3},
    "all": {
        "rotation_degrees": 20,
        "scale_fraction": 0.1,
        "shift_fraction": 0.05,
        "flip_probability": 0.5,
        "crop_fraction": 0.1,
    },
}
SIDE = 224


def reading(name: str, x: float, y: float) -> dict[str, Any]:
    pixels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    column, row = int(x * SIDE), int(y * SIDE)
    pixels[row - 6 : row + 7, column - 6 : column + 7] = 255
    return {
        "image": Image.fromarray(pixels),
        "sentences": [{"text": "opacity", "start_seconds": 0.0, "end_seconds": 1.0}],
        "fixations": {"x": [x], "y": [y], "start": [0.0], "duration": [1.0]},
        "reading_id": name,
        "epoch": 0,
    }


def collate(processor: Any, rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Model inputs, augmented where settings are given."""
    collator = ReadingCollator(processor, settings("unused", **changes) if changes else None)
    return to_device(collator(rows), torch.device("cpu"))


def centre_of(weights: torch.Tensor) -> torch.Tensor:
    """Mean place of the weights, (x, y) in fractions."""
    weights = weights / weights.sum()
    places = (torch.arange(len(weights)) + 0.5) / len(weights)
    return torch.stack([(weights.sum(0) * places).sum(), (weights.sum(1) * places).sum()])


@pytest.mark.parametrize("move", MOVES)
def test_gaze_follows(processor: Any, move: str) -> None:
    rows = [reading(f"{move} {k}", 0.35 + 0.03 * k, 0.6 - 0.02 * k) for k in range(8)]
    batch = collate(processor, rows, **MOVES[move])
    still = collate(processor, rows)
    moved = 0
    for place in range(len(rows)):
        pixels, unmoved = (one["pixel_values"][place].mean(dim=0) for one in (batch, still))
        dot = centre_of((pixels - pixels.min()).clamp(min=0) ** 2)
        grid = batch["gaze_heatmaps"].shape[-1]
        cell = (dot * grid).long()
        heat = batch["gaze_heatmaps"][place]
        peak = torch.tensor(divmod(int(heat.argmax()), grid)).flip(0)
        assert (cell - peak).abs().max() <= 1
        assert torch.linalg.norm(centre_of(heat**4) - dot) < 0.6 / grid
        moved += bool(torch.linalg.norm(centre_of((unmoved - unmoved.min()) ** 2) - dot) > 0.005)
    assert moved >= 4


def test_a_flip_mirrors_both(processor: Any) -> None:
    rows = [reading("a", 0.3, 0.5)]
    still = collate(processor, rows)
    flipped = collate(processor, rows, flip_probability=1)
    assert torch.allclose(flipped["pixel_values"], still["pixel_values"].flip(-1), atol=1e-4)
    assert torch.allclose(flipped["gaze_heatmaps"], still["gaze_heatmaps"].flip(-1), atol=1e-5)


def test_draws_depend_on_reading_and_epoch_and_not_on_their_neighbours(processor: Any) -> None:
    changes = {"rotation_degrees": 20, "contrast": 0.3, "brightness": 0.2}
    a, b = reading("a", 0.4, 0.4), reading("b", 0.4, 0.4)
    alone, together = (collate(processor, rows, **changes)["pixel_values"] for rows in ([a], [b, a]))
    assert torch.equal(alone[0], together[1])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(collate(processor, [a | {"epoch": 1}], **changes)["pixel_values"], alone)


def test_brightness_and_contrast_stay_within_their_bounds(processor: Any) -> None:
    row = reading("a", 0.4, 0.4)
    still = collate(processor, [row])["pixel_values"]
    deviation = torch.tensor(processor.image_processor.image_std)[:, None, None]
    for name in "abcdef":
        bright = collate(processor, [row | {"reading_id": name}], brightness=0.1)
        change = (bright["pixel_values"] - still) * deviation
        assert change.std() < 1e-5 and 0 < change.abs().max() <= 0.1 + 1e-5
        contrast = collate(processor, [row | {"reading_id": name}], contrast=0.1)
        factor = contrast["pixel_values"].std() / still.std()
        assert 0.9 <= factor <= 1.1 and factor != 1
        assert contrast["pixel_values"].mean() == pytest.approx(float(still.mean()), abs=1e-4)
