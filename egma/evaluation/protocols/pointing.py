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
from numpy.typing import NDArray

from dataset_scripts.schema import PRESENT, Box, Reading, UserError
from egma.evaluation.protocols.blind_baselines import (
    BOX_CELLS,
    CENTRED,
    MeanMaps,
    defined_means,
    image_dependent,
)
from egma.evaluation.statistics.bootstrap import PatientBootstrap, patient
from egma.inference.embeddings import IMAGES_AT_ONCE, ImageBank, TextBank, rounded
from egma.inference.geometry import box_masks, centred_gaussian, frame_to_image, inside_any, patch_centres
from egma.tools.arrays import Array

AREA_CELLS = 100  # along either side, for the boxes' share of the image


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


def pointing_game(
    targets: Sequence[Target],
    images: ImageBank,
    texts: TextBank,
    boxes: MeanMaps,
    bootstrap: PatientBootstrap,
) -> dict[str, Any]:
    """Share of hits over all targets and per finding, with the same for chance and the blind baselines.

    Baselines: `finding_prior`, the peak of the finding's map in `boxes`, `mean_boxes` of the training readings;
    `other_image`, the model's own map of the same finding in another patient; `centre_gaussian`, the image's centre.
    """
    maps, partner = target_maps(targets, images, texts), other_patient(targets)
    findings = [target.finding for target in targets]
    gaussian = MeanMaps(centred_gaussian(BOX_CELLS), CENTRED)
    blind = {
        name: blind_credit(prior, targets) for name, prior in (("finding_prior", boxes), ("centre_gaussian", gaussian))
    }
    blind["other_image"] = other_credit(maps, targets, partner)
    shares = np.array([covered_share(target.boxes) for target in targets])
    credits = {"pointing_game": peak_credit(maps, targets), "chance": shares, **blind}
    readings = [target.reading for target in targets]
    names = np.array(findings)
    figures = {
        name: _figures(credits, np.flatnonzero(names == name), readings, bootstrap) for name in sorted(set(findings))
    }
    columns = {name: {"pointing_game": credit} for name, credit in blind.items()}
    return _figures(credits, np.arange(len(targets)), readings, bootstrap) | {
        "image_dependent": image_dependent(credits, columns, ["pointing_game"], readings, bootstrap),
        "box_source": boxes.source,
        "without_training_boxes": boxes.fallbacks(findings),
        "without_another_patient": int((partner < 0).sum()),
        "per_finding": figures,
    }


def other_patient(targets: Sequence[Target]) -> NDArray[np.int64]:
    """(targets,) place of a target of the same finding in another patient, -1 where there is none.

    It depends on the targets alone: half the list of the finding away, then on to the first one of another patient.
    """
    people = [patient(target.reading) for target in targets]
    of_finding: dict[str, list[int]] = {}
    for place in sorted(range(len(targets)), key=lambda place: _order(targets[place])):
        of_finding.setdefault(targets[place].finding, []).append(place)
    partner = np.full(len(targets), -1)
    for places in of_finding.values():
        for rank, place in enumerate(places):
            at = rank + len(places) // 2
            others = (places[(at + step) % len(places)] for step in range(len(places)))
            partner[place] = next((other for other in others if people[other] != people[place]), -1)
    return partner


def _order(target: Target) -> tuple[str, str, tuple[str, ...]]:
    return target.reading["image_id"], target.reading["reading_id"], target.texts


def blind_credit(prior: MeanMaps, targets: Sequence[Target]) -> Array:
    """(targets,) share of the tied peaks of each finding's map that lie in the target's boxes."""
    centres = patch_centres(BOX_CELLS)
    peaks = {}
    for name in {target.finding for target in targets}:
        of_finding = prior.of(name, BOX_CELLS).ravel()
        peaks[name] = centres[of_finding == of_finding.max()]
    return np.array([inside_any(peaks[target.finding], target.boxes).mean() for target in targets])


def other_credit(maps: Array, targets: Sequence[Target], partner: NDArray[np.int64]) -> Array:
    """(targets,) `peak_credit` of the partner's map, NaN where there is none."""
    credit, has = np.full(len(targets), np.nan), np.flatnonzero(partner >= 0)
    frames = [targets[place].reading for place in partner[has].tolist()]
    credit[has] = peak_credit(maps[partner[has]], [targets[place] for place in has.tolist()], frames)
    return credit


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


def peak_credit(maps: Array, targets: Sequence[Target], frames: Sequence[Reading] | None = None) -> Array:
    """(targets,) share of the tied peaks of each map (targets, G, G) that lie in the target's boxes.

    Args:
        frames: whose images the maps are of; None: the targets' own.
    """
    centres = patch_centres(maps.shape[-1])
    credit = np.empty(len(targets))
    for place, target in enumerate(targets):
        image = target.reading if frames is None else frames[place]
        peaks = centres[maps[place].ravel() == maps[place].max()]
        credit[place] = inside_any(frame_to_image(peaks, image["width"], image["height"]), target.boxes).mean()
    return credit


def covered_share(boxes: list[Box]) -> float:
    """The boxes' share of the image, overlaps counted once: what a point drawn anywhere in the image earns."""
    return float(box_masks([boxes], AREA_CELLS).mean())


def _figures(
    credits: Mapping[str, Array], places: NDArray[np.int64], readings: Sequence[Reading], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    of_places = [readings[place] for place in places.tolist()]
    return {
        name: defined_means({name: credit[places]}, of_places, bootstrap, (name,))[name]
        for name, credit in credits.items()
    }
