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

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_scripts.schema import Reading, UserError, sentence_span
from egma.evaluation.metrics.maps import as_distributions
from egma.evaluation.metrics.saliency import both_aucs, cc, kl, nss, sim
from egma.evaluation.protocols.blind_baselines import (
    CENTRED,
    MeanMaps,
    image_dependent,
    plain_text,
    spoken_findings,
)
from egma.evaluation.protocols.pointing import Target, target_maps
from egma.evaluation.statistics.bootstrap import Figure, PatientBootstrap
from egma.inference.embeddings import IMAGES_AT_ONCE, ImageBank, TextBank, batches
from egma.inference.geometry import centred_gaussian, image_maps
from egma.tools.arrays import Array
from modeling_egma.gaze_egma import cell_integrals, fixation_columns, sentence_windows

GAZE_CELLS = 64
BLIND = ("mean_gaze", "text_gaze", "location_prior")  # made of the training split alone

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
    shape = len(recordings), GAZE_CELLS, GAZE_CELLS
    place = np.repeat(np.arange(len(recordings)), [len(recording["x"]) for recording in recordings])
    row, column = (
        np.minimum(_of_all(recordings, axis) * GAZE_CELLS, GAZE_CELLS - 1).astype(int) for axis in ("y", "x")
    )
    cells = np.bincount(np.ravel_multi_index((place, row, column), shape), minlength=math.prod(shape))
    return cells.reshape(shape).astype(np.float64)


def drawn(recordings: Sequence[Columns]) -> Array:
    """(n, cells, cells) heat maps of whole recordings on the image, each with sum 1.

    As `gaze_egma.gaze_matrix` of an untimed sentence, to its float32; a Gaussian is a product of one along each axis.
    """
    down, across = (_along(recordings, axis) for axis in ("y", "x"))
    down *= _of_all(recordings, "duration")[:, None]
    ends = np.cumsum([len(recording["x"]) for recording in recordings])[:-1]
    parts = zip(np.split(down, ends), np.split(across, ends), strict=True)
    heat = np.stack([rows.T @ columns for rows, columns in parts])
    heat = (heat / heat.max(axis=(1, 2), keepdims=True)).astype(np.float32).astype(np.float64)
    return np.asarray(heat / heat.sum(axis=(1, 2), keepdims=True))


def _along(recordings: Sequence[Columns], axis: str) -> Array:
    """(fixations, cells) of all recordings: how much of each fixation lies in every cell along an axis."""
    centre, sigma = (torch.from_numpy(_of_all(recordings, name)) for name in (axis, f"sigma_{axis}"))
    ends = {f"{axis}_min": 0.0, f"{axis}_max": 1.0}
    low, high = (torch.from_numpy(_of_all(recordings, name, edge)) for name, edge in ends.items())
    return cell_integrals(centre, sigma, low, high, GAZE_CELLS).numpy()


def _of_all(recordings: Sequence[Columns], name: str, otherwise: float = 0.0) -> Array:
    """A column of all recordings, one after the other."""
    return np.concatenate(
        [recording[name] if name in recording else np.full(len(recording["x"]), otherwise) for recording in recordings]
    )


@dataclass(frozen=True)
class Truth:
    """Gaze of n sentences or recordings: heat maps, counts of fixations, and those on other images, where there are."""

    maps: Array
    fixations: Array
    elsewhere: Array | None


def agreement(maps: Array, truth: Truth) -> Values:
    """Every metric of maps (n, cells, cells) of any sign, or of one (1, cells, cells) for all n, each (n,)."""
    densities, elsewhere = as_distributions(maps), truth.fixations if truth.elsewhere is None else truth.elsewhere
    judd, shuffled = both_aucs(maps, truth.fixations, elsewhere)
    values = {
        "nss": nss(maps, truth.fixations),
        "auc_judd": judd,
        "cc": cc(maps, truth.maps),
        "sim": sim(densities, truth.maps),
        "kl": kl(densities, truth.maps),
    }
    if truth.elsewhere is not None:
        values["shuffled_auc"] = shuffled
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


class Truths:
    """Gaze of n sentences or recordings of `readings`, whose fixations are `parts`; heat maps (n, cells, cells)."""

    def __init__(self, readings: Sequence[Reading], parts: Sequence[Columns], elsewhere: FixationsElsewhere) -> None:
        self.readings, self.parts, self.elsewhere = readings, parts, elsewhere
        self.maps = np.concatenate([drawn(tile).astype(np.float32) for tile in batches(parts, IMAGES_AT_ONCE)])

    def agreement(self, maps: Array, places: NDArray[np.int64]) -> Values:
        """`agreement` of maps (m, cells, cells), or of one (1, cells, cells), with the gaze at m places."""
        elsewhere = [self.elsewhere.of(self.readings[place]) for place in places.tolist()]
        others = None if elsewhere[0] is None else np.stack([counts for counts in elsewhere if counts is not None])
        fixations = counted([self.parts[place] for place in places.tolist()])
        return agreement(maps, Truth(self.maps[places].astype(np.float64), fixations, others))

    def by_tile(self, maps: Callable[[NDArray[np.int64]], Array]) -> Values:
        """`agreement` of the maps (m, cells, cells) that belong to m places, with all n, some places at a time."""
        tiles = map(np.array, batches(range(len(self.parts)), IMAGES_AT_ONCE))
        found = [self.agreement(maps(tile), tile) for tile in tiles]
        return {metric: np.concatenate([part[metric] for part in found]) for metric in found[0]}


@dataclass(frozen=True)
class GazeCorpus:
    """All that gaze agreement takes from a corpus and that no model changes: made once, compared with every model.

    `spoken` are the readings that have sentences with gaze of their own, `sentences` their gaze, `values` the baselines
    on them; `shared` are those of images that several people read, `recordings` their gaze and `ceiling` the others'.
    """

    spoken: list[Recorded]
    sentences: Truths
    values: dict[str, Values]
    shared: list[Recorded]
    recordings: Truths | None
    ceiling: Values
    about: dict[str, Any]


def gaze_corpus(
    readings: Sequence[Reading],
    training: Sequence[Reading],
    boxes: MeanMaps,
    gaze: MeanMaps,
    sigma: float,
    lead: float,
) -> GazeCorpus:
    """The gaze of `readings` and what the baselines earn on it.

    Args:
        boxes, gaze: `mean_boxes` and `mean_gaze` of `training`.
        sigma, lead: see `recorded_readings`.

    Raises:
        UserError: no sentence has gaze of its own.
    """
    recorded, left_out = recorded_readings(readings, sigma, lead)
    spoken = [item for item in recorded if item.texts]
    if not spoken:
        raise UserError(f"gaze agreement: no sentence has a fixation while it is said (left out: {left_out or 'none'})")
    elsewhere = FixationsElsewhere(recorded)
    sources = [item.reading for item in spoken for _ in item.texts]
    sentences = Truths(sources, [part for item in spoken for part in item.parts], elsewhere)
    texts = [plain_text(text) for item in spoken for text in item.texts]
    said = spoken_findings(training, boxes.by_name)
    findings = [said.get(text, "") for text in texts]
    shared, recordings, ceiling = _several_readers(recorded, elsewhere)
    about = {
        "cells": GAZE_CELLS,
        "sigma": sigma,
        "lead_seconds": lead,
        "readings": len(spoken),
        "sentences": len(texts),
        "left_out": left_out,
        "gaze_source": gaze.source,
        "box_source": boxes.source,
        "sentences_without_training_gaze": sum(gaze.fallbacks(texts).values()),
        "sentences_without_training_boxes": sum(boxes.fallbacks(findings).values()),
    }
    values = _baselines(spoken, sentences, {"text_gaze": (gaze, texts), "location_prior": (boxes, findings)})
    return GazeCorpus(spoken, sentences, values, shared, recordings, ceiling, about)


def _baselines(
    spoken: Sequence[Recorded], sentences: Truths, priors: Mapping[str, tuple[MeanMaps, Sequence[str]]]
) -> dict[str, Values]:
    """`mean_gaze` of the training split, the mean maps by name, `whole_recording` and `uniform`."""
    everything = {"mean_gaze": priors["text_gaze"][0].mean, "uniform": np.ones((GAZE_CELLS, GAZE_CELLS))}
    same = [""] * len(sentences.parts)
    by_name = {name: (MeanMaps(one, name), same) for name, one in everything.items()} | dict(priors)
    tiles = map(drawn, batches([item.recording for item in spoken], IMAGES_AT_ONCE))
    whole = {str(place): heat for place, heat in enumerate(heat for tile in tiles for heat in tile)}
    names = [str(place) for place, item in enumerate(spoken) for _ in item.texts]
    by_name["whole_recording"] = MeanMaps(everything["uniform"], "", whole), names
    return {
        name: dict(maps.values(keys, GAZE_CELLS, lambda own, places: sentences.agreement(own[None], places)))
        for name, (maps, keys) in by_name.items()
    }


def gaze_agreement(gaze: GazeCorpus, images: ImageBank, texts: TextBank, bootstrap: PatientBootstrap) -> dict[str, Any]:
    """Figures over all sentences with gaze, and the baselines on the same sentences.

    Blind baselines: `mean_gaze`, the mean heat map of the training recordings; `text_gaze`, that of the same text (of
    all recordings where training does not have it); `location_prior`, the mean boxes of the finding that the text
    speaks of (`spoken_findings`, of all boxes where it speaks of none). `image_dependent` is what the model earns
    beyond them. `uniform` is the same everywhere, `whole_recording` all that this reader looked at in this image, which
    no model is given. `readers` holds the human ceiling.
    """
    every = [(item, text) for item in gaze.spoken for text in item.texts]
    on_frame = target_maps([Target(item.reading, text, (text,), []) for item, text in every], images, texts)
    sources = gaze.sentences.readings
    model = gaze.sentences.by_tile(lambda tile: _on_images(on_frame, sources, tile))
    blind = {name: gaze.values[name] for name in BLIND}
    return {
        **gaze.about,
        **{name: _figures(values, sources, bootstrap) for name, values in (gaze.values | {"model": model}).items()},
        "image_dependent": image_dependent(model, blind, ("nss", "cc"), sources, bootstrap),
        "readers": _readers(gaze, on_frame, bootstrap),
    }


def _on_images(maps: Array, readings: Sequence[Reading], places: NDArray[np.int64]) -> Array:
    return image_maps(maps[places], [readings[place] for place in places.tolist()], GAZE_CELLS)


def mean_gaze(training: Sequence[Reading], sigma: float, lead: float, texts: Container[str]) -> MeanMaps:
    """Mean heat map of the training recordings, and of the sentences of each of `texts` (`plain_text`)."""
    recorded, _ = recorded_readings(training, sigma, lead)
    parts = defaultdict(list)
    for item in recorded:
        for text, part in zip(map(plain_text, item.texts), item.parts, strict=True):
            if text in texts:
                parts[text].append(part)
    mean, source = _mean_recording([item.recording for item in recorded])
    return MeanMaps(mean, source, {text: mean_drawn(of_text) for text, of_text in parts.items()})


def centre_bias(training: Sequence[Reading], sigma: float) -> tuple[Array, str]:
    """(cells, cells) mean heat map of the training recordings, and what it was made of."""
    return _mean_recording([found for reading in training if (found := recording_of(reading, sigma)) is not None])


def _mean_recording(recordings: Sequence[Columns]) -> tuple[Array, str]:
    if not recordings:
        return centred_gaussian(GAZE_CELLS), CENTRED
    return mean_drawn(recordings), f"mean of {len(recordings)} training recordings"


def mean_drawn(recordings: Sequence[Columns]) -> Array:
    total = np.zeros((GAZE_CELLS, GAZE_CELLS))
    for tile in batches(recordings, IMAGES_AT_ONCE):
        total += drawn(tile).sum(axis=0)
    return total / len(recordings)


def _several_readers(
    recorded: Sequence[Recorded], elsewhere: FixationsElsewhere
) -> tuple[list[Recorded], Truths | None, Values]:
    """Readings of images that several people read, their recordings, and what the mean of the others' earns on them."""
    of_image = defaultdict(list)
    for item in recorded:
        of_image[item.reading["image_id"]].append(item)
    others = [(item, _other_readers(item, of_image[item.reading["image_id"]])) for item in recorded if item.texts]
    others = [(item, found) for item, found in others if found]
    if not others:
        return [], None, {}
    shared = [item for item, _ in others]
    recordings = Truths([item.reading for item in shared], [item.recording for item in shared], elsewhere)
    means = [drawn([other.recording for other in found]).mean(axis=0) for _, found in others]
    return shared, recordings, recordings.by_tile(lambda tile: np.stack([means[place] for place in tile.tolist()]))


def _readers(gaze: GazeCorpus, on_frame: Array, bootstrap: PatientBootstrap) -> dict[str, Any]:
    """Leave one reader out, on the whole recordings of images that several people read; the model beside them.

    Args:
        on_frame: the model's map of every sentence of `gaze.spoken`, (sentences, G, G).
    """
    if gaze.recordings is None:
        return {"reason": "no image was read by several people"}
    ends = np.cumsum([len(item.texts) for item in gaze.spoken])
    places = {id(item): np.arange(end - len(item.texts), end) for item, end in zip(gaze.spoken, ends, strict=True)}

    def mean_maps(tile: NDArray[np.int64]) -> Array:
        own = [places[id(gaze.shared[place])] for place in tile.tolist()]
        return np.stack([_on_images(on_frame, gaze.sentences.readings, sentences).mean(axis=0) for sentences in own])

    parts = {"other_readers": gaze.ceiling, "model": gaze.recordings.by_tile(mean_maps)}
    sources = gaze.recordings.readings
    figures = {name: _figures(values, sources, bootstrap) for name, values in parts.items()}
    return {"recordings": len(sources)} | figures


def _other_readers(item: Recorded, of_image: Sequence[Recorded]) -> list[Recorded]:
    """Recordings of the same image by somebody else; readers without a name are taken to differ."""
    reader = item.reading["reader_id"]
    return [
        other for other in of_image if other is not item and (reader is None or other.reading["reader_id"] != reader)
    ]


def _figures(values: Values, readings: Sequence[Reading], bootstrap: PatientBootstrap) -> dict[str, Any]:
    figures = bootstrap.means(values, readings)
    if "shuffled_auc" not in figures:
        figures["shuffled_auc"] = Figure(None, reason="needs fixations on a second image")
    return {metric: figure.to_json() for metric, figure in figures.items()}
