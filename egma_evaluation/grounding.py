"""Phrase grounding: does the map of a sentence lie on the boxes that mark what it says?

An entry is a phrase or a finding with the boxes of one reading. A reading that is nothing but one untimed sentence and
its boxes, with one label and no other finding (MS-CXR), asks for that sentence; any other reading asks for the prompts
of every finding that it calls present and marks, as the pointing game does. The map is the best cosine of each patch
with the texts, brought to GROUNDING_CELLS x GROUNDING_CELLS equal cells of the image (bilinear on the padded square
frame, then cropped).

* `cnr`, `signed_cnr`: of the cosines as they are.
* `miou_cosine`: thresholds on the cosines as they are, as published; cosines below 0 are below every threshold.
* `miou_min_max`: the same with every map scaled to [0, 1] by its own minimum and maximum, so that the calibration of
  the cosines does not count and maps that are no cosines can be compared.
* `pointing_game`: the best patch, as in `pointing`; for the centre map the best cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dataset_scripts.schema import Reading, UserError
from egma_evaluation.bootstrap import Array, PatientBootstrap
from egma_evaluation.embeddings import IMAGES_AT_ONCE, ImageBank, TextBank
from egma_evaluation.geometry import MAP_DECIMALS, box_masks, centred_gaussian, image_maps
from egma_evaluation.metrics.localisation import THRESHOLDS, miou, pointing_credit, signed_cnr
from egma_evaluation.metrics.maps import min_max
from egma_evaluation.pointing import Target, finding_boxes, finding_targets, peak_credit, target_maps

Masks = NDArray[np.bool_]

GROUNDING_CELLS = 128
HITS = ("pointing_game",)  # the metrics that are shares of hits
SMOOTHING = 1 / 64  # of the mean of the training boxes, a fraction of the image's sides


def phrase_target(reading: Reading) -> Target | None:
    """The one phrase of a reading that is nothing but a phrase and its boxes; None for any other reading."""
    labels = {box["label"] for box in reading["boxes"]}
    findings = {finding["name"] for finding in reading["findings"]}
    if len(reading["sentences"]) != 1 or reading["fixations"] or len(labels) != 1 or not findings <= labels:
        return None
    sentence = reading["sentences"][0]
    text = sentence["text"].strip()
    if not text or sentence["start_seconds"] is not None:
        return None
    return Target(reading, labels.pop(), (text,), reading["boxes"])


def grounding_targets(readings: Sequence[Reading], prompts: Mapping[str, Sequence[str]]) -> list[Target]:
    """Phrases with boxes, and findings with prompts and boxes."""
    targets: list[Target] = []
    for reading in readings:
        phrase = phrase_target(reading)
        targets += finding_targets(reading, prompts) if phrase is None else [phrase]
    return targets


def grounding(
    targets: Sequence[Target],
    images: ImageBank,
    texts: TextBank,
    training: Sequence[Reading],
    bootstrap: PatientBootstrap,
) -> dict[str, Any]:
    """Figures over all targets and per label, and the baselines on the same targets.

    Baselines: `centre_map`, the mean of the boxes of `training` (a centred Gaussian where it has none);
    `other_image`, the model's map of a target of another image, which is what its maps earn by chance;
    `whole_image`, everything marked.

    Raises:
        UserError: no target whose boxes mark a part of its image.
    """
    kept, masks, left_out = usable_targets(targets)
    if not kept:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(f"grounding: no phrase or finding has boxes that mark a part of its image ({counts or 'none'})")
    maps = target_maps(kept, images, texts)
    centre, centre_source = centre_map(training)
    share = masks.mean(axis=(1, 2))
    values = {
        "model": _map_values(maps, kept, masks),
        "centre_map": _centre_values(centre, masks),
        "whole_image": {"miou_min_max": share, "pointing_game": share},
    }
    partner = other_image(kept)
    if partner is not None:
        values["other_image"] = _map_values(maps[partner], kept, masks)
    readings = [target.reading for target in kept]
    return {
        "cells": GROUNDING_CELLS,
        "thresholds": THRESHOLDS,
        "targets": len(kept),
        "left_out": left_out,
        "centre_source": centre_source,
        **{
            name: {metric: figure.to_json() for metric, figure in bootstrap.means(columns, readings, HITS).items()}
            for name, columns in values.items()
        },
        "per_label": _per_label(values["model"], kept, bootstrap),
    }


def usable_targets(targets: Sequence[Target]) -> tuple[list[Target], Masks, dict[str, int]]:
    """The targets that mark some cells and not all, their masks, and how many others there are, by reason."""
    masks = box_masks([target.boxes for target in targets], GROUNDING_CELLS)
    some, every = masks.any(axis=(1, 2)), masks.all(axis=(1, 2))
    left_out = {"outside_image_or_smaller_than_a_cell": int((~some).sum()), "whole_image": int(every.sum())}
    kept = np.flatnonzero(some & ~every)
    return (
        [targets[place] for place in kept.tolist()],
        masks[kept],
        {name: count for name, count in left_out.items() if count},
    )


def centre_map(training: Sequence[Reading]) -> tuple[Array, str]:
    """(cells, cells) where the boxes of the training readings' findings lie, and what it was made of.

    Slightly smoothed: where there are few boxes, a step would have an infinite contrast.
    """
    boxes = [found for reading in training if (found := finding_boxes(reading))]
    if not boxes:
        return centred_gaussian(GROUNDING_CELLS), "centred Gaussian"
    mean = np.zeros((GROUNDING_CELLS, GROUNDING_CELLS))
    for of_one in boxes:
        mean += box_masks([of_one], GROUNDING_CELLS)[0] / len(boxes)
    smooth = gaussian_filter(mean, sigma=SMOOTHING * GROUNDING_CELLS, mode="nearest").round(MAP_DECIMALS)
    return smooth, f"mean of the boxes of {len(boxes)} training readings"


def other_image(targets: Sequence[Target]) -> list[int] | None:
    """For every target the place of one of another image; None where there is a single image.

    It depends on the targets alone: half the list away, then on to the first one of another image.
    """
    names = [target.reading["image_id"] for target in targets]
    if len(set(names)) < 2:
        return None
    order = sorted(range(len(targets)), key=lambda place: (names[place], targets[place].finding, targets[place].texts))
    partner = [0] * len(targets)
    for rank, place in enumerate(order):
        at = rank + len(order) // 2
        while names[order[at % len(order)]] == names[place]:
            at += 1
        partner[place] = order[at % len(order)]
    return partner


def _map_values(maps: Array, targets: Sequence[Target], masks: Masks) -> dict[str, Array]:
    """Every metric of the model's maps (n, G, G), each (n,)."""
    parts = []
    for at in range(0, len(targets), IMAGES_AT_ONCE):
        tile = slice(at, at + IMAGES_AT_ONCE)
        on_image = image_maps(maps[tile], [target.reading for target in targets[tile]], GROUNDING_CELLS)
        signed = signed_cnr(on_image, masks[tile])
        parts.append((signed, miou(on_image, masks[tile]), miou(min_max(on_image), masks[tile])))
    signed, by_cosine, scaled = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {
        "cnr": np.abs(signed),
        "signed_cnr": signed,
        "miou_cosine": by_cosine,
        "miou_min_max": scaled,
        "pointing_game": peak_credit(maps, targets),
    }


def _centre_values(centre: Array, masks: Masks) -> dict[str, Array]:
    """The metrics of one map (cells, cells) for all targets; it holds no cosines."""
    parts = []
    for at in range(0, len(masks), IMAGES_AT_ONCE):
        tile = masks[at : at + IMAGES_AT_ONCE]
        same = np.broadcast_to(centre, tile.shape)
        parts.append((signed_cnr(same, tile), miou(min_max(same), tile), pointing_credit(same, tile)))
    signed, scaled, pointing = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {"cnr": np.abs(signed), "signed_cnr": signed, "miou_min_max": scaled, "pointing_game": pointing}


def _per_label(values: Mapping[str, Array], targets: Sequence[Target], bootstrap: PatientBootstrap) -> dict[str, Any]:
    labels = np.array([target.finding for target in targets])
    figures = {}
    for name in sorted(set(labels.tolist())):
        places = np.flatnonzero(labels == name)
        columns = {metric: column[places] for metric, column in values.items()}
        means = bootstrap.means(columns, [targets[place].reading for place in places.tolist()], HITS)
        figures[name] = {metric: figure.to_json() for metric, figure in means.items()}
    return figures
