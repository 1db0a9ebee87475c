"""What workers leave and the device finishes is what the processor makes, reading by reading."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_scripts.schema import sentence_span
from egma.inference.texts import distinct_texts
from egma.training.augmentation import Augmentation
from egma.training.cached import compared, split
from egma.training.data import ReadingCollator
from egma.training.step import to_device

from .test_augmentation import MOVES
from .test_data import settings

CPU = torch.device("cpu")
TOLERANCE = 1e-6


def row(number: int, size: tuple[int, int], sentences: int, gaze: str | None, colour: bool = False) -> dict[str, Any]:
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, size=(size[1], size[0], 3) if colour else (size[1], size[0]), dtype=np.uint8)
    fixations = None
    if gaze is not None:
        fixations = {name: random.uniform(0.1, 0.9, size=5).tolist() for name in ("x", "y")}
        fixations |= {"start": [0.0, 0.5, 1.0, 2.5, 3.0], "duration": [0.4] * 5}
    if gaze == "whole":
        fixations |= {name: [0.03] * 5 for name in ("sigma_x", "sigma_y")}
        fixations |= {"x_min": [0.2] * 5, "y_min": [0.0] * 5, "x_max": [1.0] * 5, "y_max": [0.8] * 5}
    times = [(0.0, 1.2), (None, None), (2.0, 3.5)]
    return {
        "image": Image.fromarray(pixels),
        "sentences": [
            {"text": "no effusion", "start_seconds": start, "end_seconds": end} for start, end in times[:sentences]
        ],
        "fixations": fixations,
        "reading_id": f"reading {number}",
        "epoch": 2,
    }


GREY = [
    row(0, (80, 60), 3, "whole"),
    row(1, (50, 50), 2, None),
    row(2, (40, 90), 0, "plain"),
    row(3, (120, 31), 1, "plain"),
]
ROWS = {
    "grey": GREY,
    "colours": [row(5, (60, 80), 2, "plain", colour=True), *GREY],
    "no sentence": [row(6, (60, 80), 0, "plain")],
    "no gaze": [row(7, (60, 80), 2, None)],
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("move", ["none", *MOVES])
def test_a_finished_batch_is_the_processors(processor: Any, record_difference, kind: str, move: str) -> None:
    rows = ROWS[kind]
    processor.gaze_kwargs["lead"] = 0.3
    moving = settings("unused", **MOVES.get(move, {}))
    left = ReadingCollator(processor, moving)(rows)
    assert left["pixel_values"].dtype == torch.uint8
    assert left["pixel_values"].shape[1:] == (3 if kind == "colours" else 1, 112, 112)
    made = to_device(left, CPU)
    affines = Augmentation(moving).frame_affines(rows)
    expected = processor(
        images=[one["image"] for one in rows],
        text=[[sentence["text"] for sentence in one["sentences"]] for one in rows] if kind != "no sentence" else [[]],
        gaze=[one["fixations"] for one in rows],
        spans=[[sentence_span(sentence) for sentence in one["sentences"]] for one in rows],
        frame_affines=affines,
    )
    expected = {**expected, **distinct_texts(expected)}
    assert expected.keys() <= made.keys() and made["text_lengths"] == expected.pop("text_lengths")
    for name, value in expected.items():
        assert made[name].dtype == value.dtype and made[name].shape == value.shape
        difference = float((made[name].double() - value.double()).abs().max()) if value.numel() else 0.0
        record_difference(f"finished batch to the processor's, {name}", difference)
        assert difference <= TOLERANCE, name


def test_a_grey_picture_is_resized_as_its_colours_would_be(processor: Any, record_difference) -> None:
    """Against PIL and float64 alone."""
    picture = GREY[0]["image"]
    square = Image.new("RGB", (80, 80))
    square.paste(picture.convert("RGB"), (0, 10))
    pixels = np.asarray(square.resize((112, 112), Image.Resampling.BILINEAR)).astype(np.float64) / 255
    images = processor.image_processor
    expected = (pixels - np.array(images.image_mean)) / np.array(images.image_std)
    found = processor(images=[picture])["pixel_values"][0].double().numpy()
    difference = np.abs(found - np.moveaxis(expected, -1, 0)).max()
    record_difference("pixel values to PIL and float64", float(difference))
    assert difference <= TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_of_a_batch_are_finished_alike(processor: Any, size: int) -> None:
    moving = settings("unused", rotation_degrees=20, brightness=0.1, contrast=0.2)
    left = ReadingCollator(processor, moving)(ROWS["colours"])
    whole = to_device(left, CPU)
    frames = [to_device(part, CPU)["pixel_values"] for part in split(left, size)]
    assert torch.allclose(torch.cat(frames), whole["pixel_values"], atol=TOLERANCE)
    rest = compared(left, CPU)
    for name in ("gaze_heatmaps", "gaze_mask", "sentence_to_image", "sentence_index"):
        assert torch.equal(rest[name], whole[name])
    assert not {"pixel_values", "input_ids", "fixations"} & rest.keys()


def test_nothing_that_is_finished_is_finished_again(processor: Any) -> None:
    made = to_device(ReadingCollator(processor)(GREY), CPU)
    again = to_device(made, CPU)
    assert again.keys() == made.keys() and torch.equal(again["pixel_values"], made["pixel_values"])
    assert "finish" not in made and "fixations" not in made


def test_a_bad_recording_is_named(processor: Any) -> None:
    bad = GREY[3] | {"fixations": GREY[3]["fixations"] | {"x": [0.5, float("nan"), 0.5, 0.5, 0.5]}}
    with pytest.raises(ValueError, match="gaze of image 1: fixation 1 has x = nan, expected a finite number"):
        ReadingCollator(processor)([GREY[0], bad])
