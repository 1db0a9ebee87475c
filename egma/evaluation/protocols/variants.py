"""Published protocols: the files of `papers`, of which those with a `variant` score otherwise than the project does."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from sklearn.preprocessing import scale

from egma.inference.embeddings import ImageBank, TextBank
from egma.inference.prompts import Prompts
from egma.inference.scores import Pooling, class_scores
from egma.tools.arrays import Array


class Variant(NamedTuple):
    """What is scored otherwise.

    `positive` makes a class's one prompt of its name, `negative` the one that it is held against; `is_standardised`: a
    class's scores less their mean over all images, by their standard deviation (of n, not n - 1), 0 where all are
    equal; `is_f1_of_predicted`: macro-F1 counts classes that are only predicted; the last two are of grounding.
    """

    positive: str | None = None
    negative: str | None = None
    is_standardised: bool = False
    is_f1_of_predicted: bool = False
    smoothing_patches: float = 0.0
    is_mean_of_categories: bool = False

    def class_scores(self, images: ImageBank, texts: TextBank, prompts: Prompts, pooling: Pooling) -> dict[str, Array]:
        """As `scores.class_scores`; of a pair of prompts the softmax of the cosines."""
        scores = class_scores(images, texts, prompts, pooling)
        if self.negative is not None:
            against = class_scores(images, texts, filled(self.negative, prompts), pooling)
            scores = {kind: 1 / (1 + np.exp(against[kind] - score)) for kind, score in scores.items()}
        return {kind: scale(score).round(9) for kind, score in scores.items()} if self.is_standardised else scores


def filled(template: str | None, names: Iterable[str]) -> Prompts:
    """The one prompt of each class by a template with `{}` for its name; none without a template."""
    return {} if template is None else {name: [template.format(name)] for name in names}


_FILES = sorted(Path(__file__).parent.glob("papers/*.yaml"))
PAPERS: dict[str, Any] = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in _FILES}
VARIANTS = {name: Variant(**paper["variant"]) for name, paper in PAPERS.items() if "variant" in paper}
PROJECT = Variant()
