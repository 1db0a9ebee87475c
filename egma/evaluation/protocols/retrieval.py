"""Retrieval on the data's own pairs: which report belongs to this image, and which image to this report.

A text is a whole report, all sentences of a reading. An image counts once (its first reading), and so does a text:
with a duplicate in the candidates no model could know which of the two is meant. Recall and rank are expectations over
random orders within a tie: a constant score is exactly at chance.

A ranking that is blind to the image, such as one by how typical a report is, is the same for every image: it puts k of
the n reports into the first k places of all of them, and so earns recall k / n, exactly chance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dataset_scripts.schema import Reading, UserError
from egma.evaluation.metrics.ranking import held_share
from egma.evaluation.statistics.bootstrap import PatientBootstrap, median_of
from egma.inference.embeddings import ImageBank, TextBank, rounded
from egma.tools.arrays import Array
from modeling_egma.matching_egma import pooled_cosines

CUTOFFS = (1, 5, 10)
SCORES_AT_ONCE = 2**24  # patch-sentence cosines held at a time: 64 MiB in float32


def report_sentences(reading: Reading) -> list[str]:
    """The sentences that say something."""
    return [sentence["text"].strip() for sentence in reading["sentences"] if sentence["text"].strip()]


def distinct_pairs(readings: Sequence[Reading]) -> list[Reading]:
    """One reading of every image and of every text, the first by reading id; case and blanks make no other text."""
    ordered = sorted(readings, key=lambda reading: (reading["reading_id"], reading["image_id"]))
    by_image: dict[str, Reading] = {}
    for reading in ordered:
        if report_sentences(reading):
            by_image.setdefault(reading["image_id"], reading)
    by_text: dict[str, Reading] = {}
    for reading in by_image.values():
        by_text.setdefault(" ".join(" ".join(report_sentences(reading)).casefold().split()), reading)
    return list(by_text.values())


def retrieval(
    readings: Sequence[Reading], images: ImageBank, texts: TextBank, bootstrap: PatientBootstrap
) -> dict[str, Any]:
    """Recall at 1, 5, 10 and median rank, both ways, for both scores; the interval resamples the queries alone."""
    pairs = distinct_pairs(readings)
    if len(pairs) < 2:
        raise UserError(f"retrieval: needs two images with different texts, got {len(pairs)}")
    return {
        "candidates": len(pairs),
        "readings_without_text": sum(not report_sentences(reading) for reading in readings),
        "readings_removed_as_duplicates": sum(bool(report_sentences(reading)) for reading in readings) - len(pairs),
        **{
            kind: {
                "image_to_text": _figures(scores, pairs, bootstrap),
                "text_to_image": _figures(scores.T, pairs, bootstrap),
            }
            for kind, scores in report_scores(pairs, images, texts).items()
        },
        "chance": {f"recall_at_{k}": min(1.0, k / len(pairs)) for k in CUTOFFS} | {"median_rank": (len(pairs) + 1) / 2},
    }


def report_scores(pairs: Sequence[Reading], images: ImageBank, texts: TextBank) -> dict[str, Array]:
    """(n, n) of each score, rows images, columns reports.

    `pooled` is the cosine of the image and the mean of the sentences; `late_interaction` is (zI + zT) / 2, in which
    every patch finds its best sentence and every sentence its best patch; `cabs`, of a model that has it, the mean over
    sentences; only `pooled` without patches.
    """
    places = images.places(pairs)
    patches = None if images.patches is None else images.patches[places]
    reports = [texts.of(report_sentences(reading)) for reading in pairs]
    return embedding_scores(images.pooled[places], patches, reports, images.pooling_scale)


def embedding_scores(
    pooled: Tensor, patches: Tensor | None, reports: Sequence[Tensor], pooling_scale: float | None = None
) -> dict[str, Array]:
    """(n, R) of each score of `report_scores`, for n images, (n, D) and (n, P, D), and R reports (m_k, D)."""
    means = normalize(torch.stack([report.mean(dim=0) for report in reports]), dim=-1)
    scores = {"pooled": rounded(pooled @ means.T)}
    if patches is not None:
        scores["late_interaction"] = rounded(_late_interaction(patches, reports))
        if pooling_scale is not None:
            cosines = pooled_cosines(patches, torch.cat([*reports]), pooling_scale)
            parts = cosines.split([len(report) for report in reports], dim=1)
            scores["cabs"] = rounded(torch.stack([part.mean(dim=1) for part in parts], dim=1))
    return scores


def places_of_truth(scores: Array) -> tuple[Array, Array]:
    """(n,) candidates before the diagonal in each row, and (n,) those tied with it, itself counted."""
    own = np.diagonal(scores)[:, None]
    return (scores > own).sum(axis=1).astype(np.float64), (scores == own).sum(axis=1).astype(np.float64)


def _late_interaction(patches: Tensor, reports: Sequence[Tensor]) -> Tensor:
    """patches (n, P, D), reports R times (m_k, D) -> (n, R).

    As `losses_egma.late_interaction_logits`, without a gradient: a sentence that many reports have is compared once.
    """
    place: dict[bytes, int] = {}
    own = [[place.setdefault(row.tobytes(), len(place)) for row in report.numpy()] for report in reports]
    distinct = torch.from_numpy(np.stack([np.frombuffer(key, dtype=np.float32) for key in place]))
    same_length: dict[int, list[int]] = {}
    for number, report in enumerate(own):
        same_length.setdefault(len(report), []).append(number)
    rows = []
    for tile in patches.split(max(1, SCORES_AT_ONCE // (max(len(distinct), len(reports)) * patches.shape[1]))):
        cosines = (distinct @ tile.flatten(0, 1).T).unflatten(1, tile.shape[:2])
        best_patch, found = cosines.amax(dim=2), torch.empty(len(reports), len(tile))
        for length, numbers in same_length.items():
            sentences = torch.tensor([own[number] for number in numbers])
            best_sentence = cosines[sentences[:, 0]]
            for column in range(1, length):
                torch.maximum(best_sentence, cosines[sentences[:, column]], out=best_sentence)
            found[numbers] = (best_sentence.mean(dim=2) + best_patch[sentences].mean(dim=1)) / 2
        rows.append(found.T)
    return torch.cat(rows)


def _figures(scores: Array, pairs: Sequence[Reading], bootstrap: PatientBootstrap) -> dict[str, Any]:
    before, tied = places_of_truth(scores)
    recalls = {f"recall_at_{k}": bootstrap.proportion(held_share(before, tied, k), pairs).to_json() for k in CUTOFFS}
    expected_ranks = before + (tied + 1) / 2
    return recalls | {"median_rank": bootstrap.figure(median_of(expected_ranks), pairs).to_json()}
