"""Batches: who keeps gaze, in which order rows come, and that gaze follows augmentation."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.schema import UserError, load_readings
from egma_training.arguments import TrainingSettings
from egma_training.data import ReadingCollator, Readings
from egma_training.sampling import gaze_subset


@given(st.integers(0, 50), st.integers(0, 9))
def test_gaze_subset_keeps_the_share_and_grows(rows: int, seed: int) -> None:
    has_gaze = np.random.default_rng(seed).random(rows) < 0.7
    kept = [gaze_subset(has_gaze, ratio, seed) for ratio in (0, 0.1, 0.5, 1)]
    assert [int(k.sum()) for k in kept] == [round(r * int(has_gaze.sum())) for r in (0, 0.1, 0.5, 1)]
    for fewer, more in itertools.pairwise(kept):
        assert not (fewer & ~more).any()
    assert not (kept[-1] & ~has_gaze).any()


@given(st.integers(8, 200), st.integers(1, 8), st.integers(1, 1), st.integers(0, 5))
def test_an_epoch_has_every_row_at_most_once_over_all_processes(rows: int, batch: int, world: int, epoch: int) -> None:
    world = 2 if rows >= 2 * batch else world
    batches = [epoch_batches(rows, batch, 1, epoch, rank, world) for rank in range(world)]
    seen = [index for process in batches for one in process for index in one]
    assert len(seen) == len(set(seen)) == rows // (batch * world) * batch * world
    assert all(len(one) == batch for process in batches for one in process)


def test_epochs_differ_and_repeat_by_seed() -> None:
    first = epoch_batches(40, 8, 1, 0, 0, 1)
    assert first == epoch_batches(40, 8, 1, 0, 0, 1)
    assert first != epoch_batches(40, 8, 1, 1, 0, 1)
    assert first != epoch_batches(40, 8, 2, 0, 0, 1)


def test_too_few_rows_for_a_batch_are_named() -> None:
    with pytest.raises(UserError, match="has 7 readings, fewer than one batch of 4 on each of 2"):
        epoch_batches(7, 4, 0, 0, 0, 2)


def settings(data: Path, **changes: object) -> TrainingSettings:
    return TrainingSettings(data=str(data), output_dir="unused", model="unused", batch_size=4, **changes)


def test_batches_from_the_middle_are_those_of_the_whole_run(phantom_data: Path, processor: object) -> None:
    moving = settings(phantom_data, rotation_degrees=10, brightness=0.2)
    readings = Readings(load_readings(phantom_data, "train"), 1.0, 0)

    def batches(first: int, count: int) -> list[torch.Tensor]:
        stream = training_batches(readings, ReadingCollator(processor, 16, moving), moving, first, 0, 1)
        return [next(stream)["pixel_values"] for _ in range(count)]

    per_epoch = len(readings) // 4
    whole = batches(0, per_epoch + 3)
    for first in (2, per_epoch - 1, per_epoch + 1):
        assert torch.equal(batches(first, 1)[0], whole[first])


def test_gaze_moves_with_the_augmented_image(phantom_data: Path, processor: object) -> None:
    readings = Readings(load_readings(phantom_data, "train"), 1.0, 0)
    rows = [readings[index] for index in range(6)]
    still = ReadingCollator(processor, 16)(rows)
    flipped = ReadingCollator(processor, 16, settings(phantom_data, flip_probability=1))(rows)
    assert torch.allclose(flipped["pixel_values"], still["pixel_values"].flip(-1), atol=1e-4)
    assert torch.allclose(flipped["gaze_heatmaps"], still["gaze_heatmaps"].flip(-1), atol=1e-5)
    assert still["gaze_mask"].any()


def test_validation_is_not_augmented(phantom_data: Path, processor: object) -> None:
    readings = Readings(load_readings(phantom_data, "validation"), 1.0, 0)
    collator = ReadingCollator(processor, 16)
    assert torch.equal(collator([readings[0]])["pixel_values"], collator([readings[0]])["pixel_values"])
