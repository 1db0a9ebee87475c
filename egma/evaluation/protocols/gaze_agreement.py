"""Agreement with radiologists' gaze: does the map of a sentence lie where its reader looked while saying it?

An entry is a timed sentence of a recorded reading, with the part of every fixation that falls into the sentence's
window (moved by the model's own lead). Its fixations are counted, and its heat map drawn by `gaze_egma`, on GAZE_CELLS
x GAZE_CELLS equal cells of the image, to which the model's cosines are brought too (bilinear on the padded square
frame, then cropped). NSS, both AUCs and CC take the cosines as they are; SIM and KL less their minimum, divided by
their sum. A sentence without a fixation of its own is left out: the whole recording, which training puts in its place,
is what it said at other times.

Sentences differ between readers, so the human ceiling compares whole recordings: the mean map of the other readers of
the same image with the fixations of one, next to the mean map of the model over that reading's sentences.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_scripts.schema import Reading, UserError, sentence_span
from egma.evaluation.metrics.maps import as_distributions
from egma.evaluation.metrics.saliency import auc_judd, cc, kl, nss, shuffled_auc, sim
from egma.evaluation.protocols.pointing import Target, target_maps
from egma.evaluation.statistics.bootstrap import Figure, PatientBootstrap
from egma.inference.embeddings import ImageBank, TextBank
from egma.inference.geometry import centred_gaussian, image_maps
from egma.tools.arrays import Array
from modeling_egma.gaze_egma import fixation_columns, gaze_matrices, sentence_windows

GAZE_CELLS = 64

Columns = dict[str, Array]
Values = dict[str, Array]


@dataclass(frozen=True)
class Recorded:
    """A reading with its fixations on the image, and its sentences that have some: texts and their parts of it."""

    reading: Reading
    recording: Columns
    texts: tuple[str, ...]
    parts: tuple[Columns, ...]


def recorded_readings(
    readings: Sequence[Reading], sigma: float, lead: float
) -> tuple[list[Recorded], dict[str, dict[str, int]]]:
    """The readings with a fixation on their image; what was left out, by kind and reason.

    Args:
        sigma: width of a fixation, a fraction of the longer side, where the corpus gives none.
        lead: seconds by which the eyes run ahead of speech.
    """
    left_out: dict[str, Counter[str]] = {"readings": Counter(), "sentences": Counter()}
    recorded = []
    for reading in readings:
        recording = recording_of(reading, sigma)
        if recording is None:
            left_out["readings"]["no_fixation_on_the_image" if reading["fixations"] else "no_recording"] += 1
            continue
        spoken = []
        windows = _windows(reading, lead)
        for sentence, window in zip(reading["sentences"], windows, strict=True):
            if not sentence["text"].strip():
                left_out["sentences"]["no_text"] += 1
            elif np.isnan(window).any():
                left_out["sentences"]["untimed"] += 1
            elif len((part := during(recording, window))["x"]) == 0:
                left_out["sentences"]["no_fixation"] += 1
            else:
                spoken.append((sentence["text"].strip(), part))
        recorded.append(Recorded(reading, recording, tuple(text for text, _ in spoken), tuple(p for _, p in spoken)))
    return recorded, {kind: dict(counts) for kind, counts in left_out.items() if counts}


def _windows(reading: Reading, lead: float) -> Array:
    """(m, 2) start and end in seconds of every sentence's window, NaN where it is untimed."""
    try:
        return sentence_windows([sentence_span(sentence) for sentence in reading["sentences"]], lead).numpy()
    except ValueError as error:
        raise UserError(f"reading '{reading['reading_id']}': {error}") from error


def recording_of(reading: Reading, sigma: float) -> Columns | None:
    """Fixations on the shown part of the image, columns (F,) of `gaze_egma.gaze_matrix` in image fractions, or None."""
    if not reading["fixations"] or not reading["fixations"]["x"]:
        return None
    try:
        checked = fixation_columns(reading["fixations"])
    except ValueError as error:
        raise UserError(f"reading '{reading['reading_id']}': {error}") from error
    columns = {name: values.numpy() for name, values in checked.items()}
    side = max(reading["width"], reading["height"])
    columns = {
        "sigma_x": np.full(len(columns["x"]), sigma * side / reading["width"]),
        "sigma_y": np.full(len(columns["x"]), sigma * side / reading["height"]),
    } | columns
    x, y = columns["x"], columns["y"]
    shown = [columns.get(name, edge) for name, edge in (("x_min", 0), ("x_max", 1), ("y_min", 0), ("y_max", 1))]
    left, right, top, bottom = (np.clip(edge, 0, 1) for edge in shown)
    kept = (x >= left) & (x <= right) & (y >= top) & (y <= bottom) & (columns["duration"] > 0)
    return {name: values[kept] for name, values in columns.items()} if kept.any() else None


def during(recording: Columns, window: Array) -> Columns:
    """The fixations that overlap a window (start and end in seconds), each as long as its overlap."""
    start, end = window
    begins = np.maximum(recording["start"], start)
    overlap = np.minimum(recording["start"] + recording["duration"], end) - begins
    part = {name: values[overlap > 0] for name, values in recording.items()}
    return part | {"start": begins[overlap > 0], "duration": overlap[overlap > 0]}


def counted(recordings: Sequence[Columns]) -> Array:
    """(n, cells, cells) number of fixations in every cell of the image."""
    counts = np.zeros((len(recordings), GAZE_CELLS, GAZE_CELLS))
    for place, recording in enumerate(recordings):
        column, row = (np.minimum(recording[axis] * GAZE_CELLS, GAZE_CELLS - 1).astype(int) for axis in ("x", "y"))
        np.add.at(counts[place], (row, column), 1)
    return counts


def drawn(recordings: Sequence[Columns]) -> Array:
    """(n, cells, cells) heat maps of whole recordings on the image, each with sum 1."""
    maps = np.concatenate([part.numpy() for part in gaze_matrices(recordings, [[None]] * len(recordings), GAZE_CELLS)])
    return np.asarray(maps / maps.sum(axis=(1, 2), keepdims=True, dtype=np.float64), dtype=np.float64)


def gaze_agreement(
    readings: Sequence[Reading],
    images: ImageBank,
    texts: TextBank,
    training: Sequence[Reading],
    sigma: float,
    lead: float,
    bootstrap: PatientBootstrap,
) -> dict[str, Any]:
    """Figures over all sentences with gaze, and the baselines on the same sentences.

    Baselines: `centre_bias`, the mean heat map of the recordings of `training` (a centred Gaussian where it has none);
    `uniform`, the same everywhere; `whole_recording`, all that this reader looked at in this image, which no model is
    given. `readers` holds the human ceiling.

    Args:
        sigma, lead: see `recorded_readings`.

    Raises:
        UserError: no sentence has gaze of its own.
    """
    recorded, left_out = recorded_readings(readings, sigma, lead)
    spoken = [item for item in recorded if item.texts]
    if not spoken:
        raise UserError(f"gaze agreement: no sentence has a fixation while it is said (left out: {left_out or 'none'})")
    centre, centre_source = centre_bias(training, sigma)
    elsewhere = FixationsElsewhere(recorded)
    uniform = np.ones_like(centre)
    parts: dict[str, list[Values]] = defaultdict(list)
    for item, maps in zip(spoken, model_maps(spoken, images, texts), strict=True):
        truth = Truth(drawn(item.parts), counted(item.parts), elsewhere.of(item.reading))
        whole = drawn([item.recording])[0]
        for name, prediction in (("centre_bias", centre), ("whole_recording", whole), ("uniform", uniform)):
            parts[name].append(agreement(np.broadcast_to(prediction, maps.shape), truth))
        parts["model"].append(agreement(maps, truth))
    sources = [item.reading for item in spoken for _ in item.texts]
    return {
        "cells": GAZE_CELLS,
        "sigma": sigma,
        "lead_seconds": lead,
        "readings": len(spoken),
        "sentences": len(sources),
        "left_out": left_out,
        "centre_source": centre_source,
        **{name: _figures(values, sources, bootstrap) for name, values in parts.items()},
        "readers": _readers(recorded, images, texts, elsewhere, bootstrap),
    }


@dataclass(frozen=True)
class Truth:
    """Gaze of n sentences or recordings: heat maps, counts of fixations, and those on other images, where there are."""

    maps: Array
    fixations: Array
    elsewhere: Array | None


def agreement(maps: Array, truth: Truth) -> Values:
    """Every metric of maps (n, cells, cells) of any sign, each (n,)."""
    densities = as_distributions(maps)
    values = {
        "nss": nss(maps, truth.fixations),
        "auc_judd": auc_judd(maps, truth.fixations),
        "cc": cc(maps, truth.maps),
        "sim": sim(densities, truth.maps),
        "kl": kl(densities, truth.maps),
    }
    if truth.elsewhere is not None:
        others = np.broadcast_to(truth.elsewhere, maps.shape)
        values["shuffled_auc"] = shuffled_auc(maps, truth.fixations, others)
    return values


class FixationsElsewhere:
    """Where people looked on the other images: fixations of all recordings less those of an image."""

    def __init__(self, recorded: Sequence[Recorded]) -> None:
        self.by_image: dict[str, Array] = {}
        for item in recorded:
            counts = counted([item.recording])[0]
            name = item.reading["image_id"]
            self.by_image[name] = self.by_image[name] + counts if name in self.by_image else counts
        self.total = np.sum(list(self.by_image.values()), axis=0)

    def of(self, reading: Reading) -> Array | None:
        """(cells, cells) counts; None where there is no other image."""
        return self.total - self.by_image[reading["image_id"]] if len(self.by_image) > 1 else None


def centre_bias(training: Sequence[Reading], sigma: float) -> tuple[Array, str]:
    """(cells, cells) mean heat map of the training recordings, and what it was made of."""
    recordings = [recording for reading in training if (recording := recording_of(reading, sigma)) is not None]
    if not recordings:
        return centred_gaussian(GAZE_CELLS), "centred Gaussian"
    mean = np.zeros((GAZE_CELLS, GAZE_CELLS))
    for recording in recordings:
        mean += drawn([recording])[0] / len(recordings)
    return mean, f"mean of {len(recordings)} training recordings"


def model_maps(recorded: Sequence[Recorded], images: ImageBank, texts: TextBank) -> Iterator[Array]:
    """The model's cosines of every sentence, (m, cells, cells) for each reading in turn."""
    targets = [Target(item.reading, text, (text,), []) for item in recorded for text in item.texts]
    on_frame = target_maps(targets, images, texts)
    ends = np.cumsum([len(item.texts) for item in recorded])
    for item, end in zip(recorded, ends.tolist(), strict=True):
        yield image_maps(on_frame[end - len(item.texts) : end], [item.reading] * len(item.texts), GAZE_CELLS)


def _readers(
    recorded: Sequence[Recorded],
    images: ImageBank,
    texts: TextBank,
    elsewhere: FixationsElsewhere,
    bootstrap: PatientBootstrap,
) -> dict[str, Any]:
    """Leave one reader out, on the whole recordings of images that several people read; the model beside them."""
    of_image = defaultdict(list)
    for item in recorded:
        of_image[item.reading["image_id"]].append(item)
    shared = [item for item in recorded if item.texts and _other_readers(item, of_image[item.reading["image_id"]])]
    if not shared:
        return {"reason": "no image was read by several people"}
    parts: dict[str, list[Values]] = defaultdict(list)
    for item, maps in zip(shared, model_maps(shared, images, texts), strict=True):
        recording = [item.recording]
        truth = Truth(drawn(recording), counted(recording), elsewhere.of(item.reading))
        others = _other_readers(item, of_image[item.reading["image_id"]])
        ceiling = drawn([other.recording for other in others]).mean(axis=0, keepdims=True)
        parts["other_readers"].append(agreement(ceiling, truth))
        parts["model"].append(agreement(maps.mean(axis=0, keepdims=True), truth))
    sources = [item.reading for item in shared]
    return {"recordings": len(shared)} | {name: _figures(values, sources, bootstrap) for name, values in parts.items()}


def _other_readers(item: Recorded, of_image: Sequence[Recorded]) -> list[Recorded]:
    """Recordings of the same image by somebody else; readers without a name are taken to differ."""
    reader = item.reading["reader_id"]
    return [
        other for other in of_image if other is not item and (reader is None or other.reading["reader_id"] != reader)
    ]


def _figures(parts: Sequence[Values], readings: Sequence[Reading], bootstrap: PatientBootstrap) -> dict[str, Any]:
    values = {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}
    figures = bootstrap.means(values, readings)
    if "shuffled_auc" not in figures:
        figures["shuffled_auc"] = Figure(None, reason="needs fixations on a second image")
    return {metric: figure.to_json() for metric, figure in figures.items()}
