"""Pointing game: does the map of a finding's prompts peak inside the radiologist's boxes of that finding?

An entry is a reading and a finding that it calls present and marks with a box or more. The map is the maximum over the
finding's prompts of the cosine of patch and sentence; the centre of its best patch is taken back from the padded
square frame to the image. Tied patches share the credit, and a peak in the padding is a miss (Zhang et al., "Top-down
Neural Attention by Excitation Backprop", 2016, without their 15 pixels of tolerance).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch

from dataset_scripts.schema import PRESENT, Box, Reading, UserError
from egma_evaluation.bootstrap import Array, PatientBootstrap
from egma_evaluation.embeddings import IMAGES_AT_ONCE, ImageBank, TextBank, rounded
from egma_evaluation.geometry import frame_to_image, inside_any, patch_centres

AREA_POINTS = patch_centres(100)  # sample points for the boxes' share of the image


@dataclass(frozen=True)
class Target:
    """What is looked for in one reading, by which texts, and where it is."""

    reading: Reading
    finding: str
    texts: tuple[str, ...]
    boxes: list[Box]


def pointing_targets(readings: Sequence[Reading], prompts: Mapping[str, Sequence[str]]) -> list[Target]:
    """The findings with prompts that a reading calls present and marks.

    Raises:
        UserError: there is none.
    """
    targets = [target for reading in readings for target in finding_targets(reading, prompts)]
    if not targets:
        raise UserError("pointing game: no reading marks a present finding that has prompts with a box of its name")
    return targets


def finding_targets(reading: Reading, prompts: Mapping[str, Sequence[str]]) -> list[Target]:
    """`pointing_targets` of one reading, of which there may be none."""
    present = {item["name"] for item in reading["findings"] if item["value"] == PRESENT}
    targets = []
    for name in sorted(present & set(prompts)):
        boxes = [box for box in reading["boxes"] if box["label"] == name]
        if boxes:
            targets.append(Target(reading, name, tuple(prompts[name]), boxes))
    return targets


def finding_boxes(reading: Reading) -> list[Box]:
    """The boxes that mark a finding which the reading lists, and not anatomy; all of them, where it lists none."""
    listed = {finding["name"] for finding in reading["findings"]}
    return [box for box in reading["boxes"] if not listed or box["label"] in listed]


def mean_box_centre(readings: Sequence[Reading]) -> Array | None:
    """(1, 2) mean centre of the boxes of all findings, image fractions; None where there is none."""
    centres = [
        ((box["x_min"] + box["x_max"]) / 2, (box["y_min"] + box["y_max"]) / 2)
        for reading in readings
        for box in finding_boxes(reading)
    ]
    return np.mean(centres, axis=0, keepdims=True) if centres else None


def pointing_game(
    targets: Sequence[Target],
    images: ImageBank,
    texts: TextBank,
    centre: Array | None,
    bootstrap: PatientBootstrap,
) -> dict[str, Any]:
    """Share of hits over all targets and per finding, with the same for both baselines.

    Args:
        centre: (1, 2) `mean_box_centre` of the training readings, or None where there are none.
    """
    credits = {
        "pointing_game": peak_credit(target_maps(targets, images, texts), targets),
        "chance": np.array([covered_share(target.boxes) for target in targets]),
    }
    if centre is not None:
        credits["box_centre"] = np.array([inside_any(centre, target.boxes)[0] for target in targets])
    names = np.array([target.finding for target in targets])
    every = np.ones(len(targets), dtype=bool)
    chosen = {"all": every} | {name: names == name for name in sorted(set(names.tolist()))}
    figures = {
        name: {kind: _figure(credit, mask, targets, bootstrap) for kind, credit in credits.items()}
        for name, mask in chosen.items()
    }
    return figures.pop("all") | {
        "training_box_centre": None if centre is None else centre[0].tolist(),
        "per_finding": figures,
    }


def target_maps(targets: Sequence[Target], images: ImageBank, texts: TextBank) -> Array:
    """(targets, G, G) on the model's frame: best cosine of each patch with the target's texts.

    Raises:
        UserError: the model has no patch embeddings.
    """
    every = images.mapped_patches()
    grid = isqrt(every.shape[1])
    if grid * grid != every.shape[1]:
        raise ValueError(f"expected a square grid of patches, got {every.shape[1]} patches")
    maps = np.empty((len(targets), grid * grid))
    members: dict[tuple[str, ...], list[int]] = {}
    for place, target in enumerate(targets):
        members.setdefault(target.texts, []).append(place)
    for sentences, places in members.items():
        embeddings = texts.of(sentences)
        for tile in torch.tensor(places).split(IMAGES_AT_ONCE):
            patches = every[images.places(targets[place].reading for place in tile.tolist())]
            maps[tile] = rounded((patches @ embeddings.T).amax(dim=-1))
    return maps.reshape(-1, grid, grid)


def peak_credit(maps: Array, targets: Sequence[Target]) -> Array:
    """(targets,) share of the tied peaks of each map (targets, G, G) that lie in the target's boxes."""
    centres = patch_centres(maps.shape[-1])
    credit = np.empty(len(targets))
    for place, target in enumerate(targets):
        peaks = centres[maps[place].ravel() == maps[place].max()]
        on_image = frame_to_image(peaks, target.reading["width"], target.reading["height"])
        credit[place] = inside_any(on_image, target.boxes).mean()
    return credit


def covered_share(boxes: list[Box]) -> float:
    """The boxes' share of the image, overlaps counted once: what a point drawn anywhere in the image earns."""
    return float(inside_any(AREA_POINTS, boxes).mean())


def _figure(
    credit: Array, mask: np.ndarray[Any, np.dtype[np.bool_]], targets: Sequence[Target], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    readings = [target.reading for target, kept in zip(targets, mask, strict=True) if kept]
    return bootstrap.proportion(credit[mask], readings).to_json()
