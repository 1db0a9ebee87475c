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
* `pointing_game`: the best patch, as in `pointing`; for the baselines' maps the best cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dataset_scripts.schema import Reading, UserError
from egma.evaluation.metrics.localisation import THRESHOLDS, miou, pointing_credit, signed_cnr
from egma.evaluation.metrics.maps import min_max
from egma.evaluation.protocols.blind_baselines import MeanMaps, defined_means, image_dependent, plain_text
from egma.evaluation.protocols.pointing import Target, finding_targets, other_patient, peak_credit, target_maps
from egma.evaluation.protocols.variants import PROJECT, Variant
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import IMAGES_AT_ONCE, ImageBank, TextBank
from egma.inference.geometry import box_masks, image_maps
from egma.tools.arrays import Array

Masks = NDArray[np.bool_]

GROUNDING_CELLS = 128
HITS: tuple[str, ...] = ("pointing_game",)  # the metrics that are shares of hits
BLIND = ("centre_map", "location_prior", "mean_gaze", "text_gaze", "other_image")


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


@dataclass(frozen=True)
class GroundingCorpus:
    """What grounding takes from a corpus and no model changes: targets with their masks, and the baselines' values."""

    targets: list[Target]
    masks: Masks
    values: dict[str, dict[str, Array]]
    about: dict[str, Any]


def grounding_corpus(targets: Sequence[Target], boxes: MeanMaps, gaze: MeanMaps) -> GroundingCorpus:
    """The targets whose boxes mark a part of their image, and what the baselines earn on them.

    Args:
        boxes: `mean_boxes` of the training readings.
        gaze: `mean_gaze` of them and of the targets' texts.

    Raises:
        UserError: there is no such target.
    """
    kept, masks, left_out = usable_targets(targets)
    if not kept:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(f"grounding: no phrase or finding has boxes that mark a part of its image ({counts or 'none'})")
    findings = [target.finding for target in kept]
    # of several prompts the first that training has gaze of
    texts = [next((text for text in map(plain_text, target.texts) if text in gaze.by_name), "") for target in kept]
    same, share = [""] * len(kept), masks.mean(axis=(1, 2))
    priors = {
        "centre_map": (boxes, same),
        "location_prior": (boxes, findings),
        "mean_gaze": (gaze, same),
        "text_gaze": (gaze, texts),
    }
    values = {
        name: dict(maps.values(names, GROUNDING_CELLS, lambda own, places: _one_map_values(own, masks[places])))
        for name, (maps, names) in priors.items()
    }
    about = {
        "cells": GROUNDING_CELLS,
        "thresholds": THRESHOLDS,
        "targets": len(kept),
        "left_out": left_out,
        "centre_source": boxes.source,
        "gaze_source": gaze.source,
        "without_training_boxes": boxes.fallbacks(findings),
        "targets_without_training_gaze": sum(gaze.fallbacks(texts).values()),
    }
    return GroundingCorpus(
        kept, masks, values | {"whole_image": {"miou_min_max": share, "pointing_game": share}}, about
    )


def grounding(
    corpus: GroundingCorpus, images: ImageBank, texts: TextBank, bootstrap: PatientBootstrap, variant: Variant = PROJECT
) -> dict[str, Any]:
    """Figures over all targets and per label, and the baselines on the same targets.

    Blind baselines: `centre_map`, the mean of the training boxes; `location_prior`, that of the target's finding;
    `mean_gaze` and `text_gaze`, as in gaze agreement; `other_image`, the model's map of the same finding in another
    patient. `image_dependent` is what the model earns beyond them; `whole_image` is everything marked.
    """
    targets, masks = corpus.targets, corpus.masks
    readings = [target.reading for target in targets]
    maps, partner = target_maps(targets, images, texts), other_patient(targets)
    maps = gaussian_filter(maps, variant.smoothing_patches, axes=(1, 2))
    model = _map_values(maps, readings, targets, masks)
    other = {metric: np.full(len(targets), np.nan) for metric in model}
    if len(has := np.flatnonzero(partner >= 0)):
        frames = [readings[place] for place in partner[has].tolist()]
        found = _map_values(maps[partner[has]], frames, [targets[place] for place in has.tolist()], masks[has])
        for metric, column in found.items():
            other[metric][has] = column
    values = {"model": model, **corpus.values, "other_image": other}
    blind, hits = {name: values[name] for name in BLIND}, HITS
    if variant.is_mean_of_categories:
        labels, hits = np.array([target.finding for target in targets]), ()
        values = {name: {metric: by_category(of[metric], labels) for metric in of} for name, of in values.items()}
    return {
        **corpus.about,
        "without_another_patient": len(targets) - len(has),
        **{name: defined_means(columns, readings, bootstrap, hits) for name, columns in values.items()},
        "image_dependent": image_dependent(model, blind, tuple(model), readings, bootstrap),
        "per_label": _per_label(model, targets, bootstrap),
    }


def by_category(values: Array, labels: NDArray[np.str_]) -> Array:
    """(n,) whose mean is the mean over the labels of the mean of their values; NaN stays and counts nowhere."""
    _, place = np.unique(labels, return_inverse=True)
    counts = np.bincount(place[np.isfinite(values)], minlength=place.max() + 1)
    return np.asarray(values * counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1)[place]))


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


def _map_values(maps: Array, frames: Sequence[Reading], targets: Sequence[Target], masks: Masks) -> dict[str, Array]:
    """Every metric of the model's maps (n, G, G) of the images of `frames`, each (n,)."""
    parts = []
    for at in range(0, len(targets), IMAGES_AT_ONCE):
        tile = slice(at, at + IMAGES_AT_ONCE)
        on_image = image_maps(maps[tile], frames[tile], GROUNDING_CELLS)
        signed = signed_cnr(on_image, masks[tile])
        parts.append((signed, miou(on_image, masks[tile]), miou(min_max(on_image), masks[tile])))
    signed, by_cosine, scaled = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {
        "cnr": np.abs(signed),
        "signed_cnr": signed,
        "miou_cosine": by_cosine,
        "miou_min_max": scaled,
        "pointing_game": peak_credit(maps, targets, frames),
    }


def _one_map_values(own: Array, masks: Masks) -> dict[str, Array]:
    """The metrics of one map (cells, cells), which holds no cosines, for masks (m, cells, cells)."""
    signed = signed_cnr(own[None], masks)
    return {
        "cnr": np.abs(signed),
        "signed_cnr": signed,
        "miou_min_max": miou(min_max(own[None]), masks),
        "pointing_game": pointing_credit(own[None], masks),
    }


def _per_label(values: Mapping[str, Array], targets: Sequence[Target], bootstrap: PatientBootstrap) -> dict[str, Any]:
    labels = np.array([target.finding for target in targets])
    figures = {}
    for name in sorted(set(labels.tolist())):
        places = np.flatnonzero(labels == name)
        columns = {metric: column[places] for metric, column in values.items()}
        means = bootstrap.means(columns, [targets[place].reading for place in places.tolist()], HITS)
        figures[name] = {metric: figure.to_json() for metric, figure in means.items()}
    return figures
