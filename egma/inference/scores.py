"""Scores of images with sentences and with classes, from their embeddings."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from egma.inference.embeddings import IMAGES_AT_ONCE, ImageBank, TextBank, rounded
from egma.tools.arrays import Array
from modeling_egma.matching_egma import pooled_cosines

Pooling = Literal["max", "mean"]


def class_scores(
    images: ImageBank, texts: TextBank, prompts: Mapping[str, Sequence[str]], pooling: Pooling
) -> dict[str, Array]:
    """(I, C) of each score, classes in the order of their names."""
    classes = sorted(prompts)
    scores_of_prompts = sentence_scores(images, texts, [prompt for name in classes for prompt in prompts[name]])
    ends = np.cumsum([len(prompts[name]) for name in classes])[:-1]
    reduce = np.max if pooling == "max" else np.mean
    return {
        kind: np.stack([reduce(part, axis=1) for part in np.split(scores, ends, axis=1)], axis=1)
        for kind, scores in scores_of_prompts.items()
    }


def sentence_scores(images: ImageBank, texts: TextBank, sentences: Sequence[str]) -> dict[str, Array]:
    """(I, N) cosines of each kind of score; `pooled` alone without patch embeddings, `cabs` where there is a scale."""
    embeddings = texts.of(sentences)
    scores = {"pooled": rounded(images.pooled @ embeddings.T)}
    if images.patches is not None:
        tiles = images.patches.split(IMAGES_AT_ONCE)
        scores["late_interaction"] = np.concatenate([rounded((tile @ embeddings.T).amax(dim=1)) for tile in tiles])
        if images.pooling_scale is not None:
            scores["cabs"] = rounded(pooled_cosines(images.patches, embeddings, images.pooling_scale))
    return scores
