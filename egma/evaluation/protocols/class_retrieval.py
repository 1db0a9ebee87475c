"""Retrieval by class (CheXpert 8x200): the sentences of an image's class, and the images of a sentence's class.

The candidates are the prompts of all classes and the images that show exactly one of them, none uncertain. P@k is the
expected share of the first k that are of the query's class, over random orders within a tie (`metrics.ranking`). The
patients are the queries of image-to-text (Wilson) and the candidates of text-to-image (bootstrap).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.schema import PRESENT, Reading, UserError
from egma.evaluation.metrics.ranking import exact, held_share, precision_at_k
from egma.evaluation.protocols.zero_shot import finding_labels
from egma.evaluation.statistics.bootstrap import PatientBootstrap, Statistic
from egma.inference.embeddings import ImageBank, TextBank
from egma.inference.scores import sentence_scores
from egma.tools.arrays import Array

CUTOFFS = (1, 5, 10)
FIRST_GROUPS = 32  # of equal scores that are looked at before the rest of a list


def class_retrieval(
    readings: Sequence[Reading],
    images: ImageBank,
    texts: TextBank,
    prompts: Mapping[str, Sequence[str]],
    bootstrap: PatientBootstrap,
    training: Sequence[Reading] = (),
) -> dict[str, Any]:
    """P@1, 5, 10 both ways for both scores, chance, and `text_prior`: the same ranking of the sentences for all images.

    Args:
        training: readings whose most frequent class comes first in the text prior.

    Raises:
        UserError: fewer than two classes, or no image of exactly one of them.
    """
    classes = sorted(prompts)
    distinct = list({reading["image_id"]: reading for reading in reversed(readings)}.values())[::-1]
    labels = finding_labels(distinct, classes)
    single = labels.single()
    if len(classes) < 2 or len(single) == 0:
        raise UserError("class retrieval: needs two classes with prompts and images that show exactly one of them")
    shown, sentences = labels.select(single), [prompt for name in classes for prompt in sorted(prompts[name])]
    image_class = (labels.values[single] == PRESENT).argmax(axis=1)
    sentence_class = np.repeat(np.arange(len(classes)), [len(prompts[name]) for name in classes])
    relevant = image_class[:, None] == sentence_class
    # a sentence of a class that no image shows has nothing to find
    asked = relevant.any(axis=0)
    places = images.places(shown)
    scores = {kind: score[places] for kind, score in sentence_scores(images, texts, sentences).items()}
    return {
        "classes": classes,
        "images": len(shown),
        "sentences": len(sentences),
        **{
            kind: {
                "image_to_text": _image_to_text(score, relevant, shown, bootstrap),
                "text_to_image": _text_to_image(score.T[asked], relevant.T[asked], shown, bootstrap),
            }
            for kind, score in scores.items()
        },
        "text_prior": _image_to_text(
            np.broadcast_to(text_prior(training, classes, sentence_class), relevant.shape), relevant, shown, bootstrap
        ),
        "chance": {
            "image_to_text": float(relevant.mean()),
            "text_to_image": float(relevant[:, asked].mean()),
        },
    }


def text_prior(training: Sequence[Reading], classes: Sequence[str], sentence_class: NDArray[np.int64]) -> Array:
    """(sentences,) a score blind to the image: sentences of the class that most training readings show alone first."""
    labels = finding_labels(training, classes)
    alone = (labels.values[labels.single()] == PRESENT).argmax(axis=1) if training else np.empty(0, dtype=np.int64)
    counts = np.bincount(alone, minlength=len(classes))
    scores = np.empty(len(sentence_class))
    # no ties: within a class the order earns nothing, between classes it is the names'
    scores[np.argsort(-counts[sentence_class], kind="stable")] = -np.arange(len(sentence_class))
    return scores


def _cutoffs(candidates: int) -> list[int]:
    return [k for k in CUTOFFS if k <= candidates]


def _image_to_text(
    scores: Array, relevant: NDArray[np.bool_], readings: Sequence[Reading], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    return {
        f"precision_at_{k}": bootstrap.proportion(precision_at_k(scores, relevant, k), readings, trials=k).to_json()
        for k in _cutoffs(scores.shape[1])
    }


def _text_to_image(
    scores: Array, relevant: NDArray[np.bool_], readings: Sequence[Reading], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    figures = {}
    for k in _cutoffs(scores.shape[1]):
        statistic, first = weighted_precision(scores, relevant, k), -np.sort(-scores, axis=1)[:, k - 1, None]
        shown = np.asarray((scores >= first).sum(axis=0) > 0, dtype=bool)
        figures[f"precision_at_{k}"] = bootstrap.figure(statistic, readings, rests_on=shown).to_json()
    return figures


def weighted_precision(scores: Array, relevant: NDArray[np.bool_], k: int) -> Statistic:
    """Mean over queries of `precision_at_k` when candidate c counts weights[c] times.

    Args:
        scores, relevant: (q, c)
    """
    queries = []
    for score, wanted in zip(scores, relevant, strict=True):
        order = np.argsort(-score, kind="stable")
        queries.append((order, np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0), wanted[order]))

    def statistic(weights: Array) -> Array:
        held = [_held(weights, order, starts, wanted, k) for order, starts, wanted in queries]
        return exact(np.sum(held, axis=0) / (k * len(queries)))

    return statistic


def _held(
    weights: Array, order: NDArray[np.int64], starts: NDArray[np.int64], wanted: NDArray[np.bool_], k: int
) -> Array:
    """(draws,) of the first k places, those that relevant candidates hold.

    Args:
        order: candidates, best first; `wanted` (c,) in that order; `starts` of the groups of equal scores.
    """
    depth = FIRST_GROUPS
    while True:
        # what comes after k filled places holds none, so the rest of a long list is not looked at
        end = starts[depth] if depth < len(starts) else len(order)
        ordered = weights[:, order[:end]]
        if depth >= len(starts) or (ordered.sum(axis=1) >= k).all():
            break
        depth *= 2
    groups = starts[:depth]
    counts, wanted_counts = ordered, ordered * wanted[:end]
    if len(groups) < end:
        counts, wanted_counts = (np.add.reduceat(part, groups, axis=1) for part in (counts, wanted_counts))
    before = np.cumsum(counts, axis=1) - counts
    return np.asarray((wanted_counts * held_share(before, counts, k)).sum(axis=1))
