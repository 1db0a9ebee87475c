"""Zero-shot classification of findings by prompts.

The score of a class is the maximum (or the mean) over its prompts of the image-sentence score, computed both ways
that the model offers: `pooled`, the cosine of image and sentence, and `late_interaction`, the best cosine of a patch
and the sentence. The model's positive scale changes no rank and is left out.

AUROC is one finding against the rest on the raw score, over the readings that list the finding as present or absent.
Accuracy and macro-F1 take the argmax, over the readings with exactly one of the classes present and none uncertain.
A tie for the argmax shares its credit in the accuracy, and counts as no prediction in the F1: a score that is the same
for all classes earns at most what the best constant predictor earns. A score that is blind to the image is the same for
all images: its AUROC is 0.5, and the constant predictor is the best of its kind in accuracy and F1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, Reading, UserError
from egma.evaluation.protocols.variants import PROJECT, Variant
from egma.evaluation.statistics.bootstrap import Figure, PatientBootstrap, Statistic, mean_of_defined
from egma.inference.embeddings import ImageBank, TextBank
from egma.inference.prompts import Prompts
from egma.inference.scores import Pooling
from egma.tools.arrays import Array

NO_PREDICTION = -1
Entries = tuple[Array, NDArray[np.bool_], list[Reading]]  # scores (n,), which are positive, readings


@dataclass(frozen=True)
class Labels:
    """`values` (n, C): 1, 0, -1 of each class in each reading, NaN where it is not listed."""

    readings: Sequence[Reading]
    classes: Sequence[str]
    values: Array

    def listed(self, column: int) -> NDArray[np.int64]:
        """Places of the readings that say present or absent."""
        return np.flatnonzero(np.isin(self.values[:, column], (PRESENT, ABSENT)))

    def single(self) -> NDArray[np.int64]:
        """Places of the readings with exactly one class present and none uncertain."""
        present, uncertain = self.values == PRESENT, self.values == UNCERTAIN
        return np.flatnonzero((present.sum(axis=1) == 1) & ~uncertain.any(axis=1))

    def select(self, places: NDArray[np.int64]) -> list[Reading]:
        return [self.readings[place] for place in places]


def finding_labels(readings: Sequence[Reading], classes: Sequence[str]) -> Labels:
    """Look the classes up in each reading's findings, by name."""
    found = [{finding["name"]: finding["value"] for finding in reading["findings"]} for reading in readings]
    values = [[row.get(name, np.nan) for name in classes] for row in found]
    return Labels(readings, classes, np.array(values, dtype=np.float64))


def zero_shot_classes(readings: Sequence[Reading], prompts: Mapping[str, Sequence[str]]) -> list[str]:
    """The findings that have prompts and are both present and absent somewhere in the readings."""
    seen: dict[str, set[int]] = {}
    for finding in (finding for reading in readings for finding in reading["findings"]):
        seen.setdefault(finding["name"], set()).add(finding["value"])
    classes = sorted(name for name in seen if name in prompts and {PRESENT, ABSENT} <= seen[name])
    if not classes:
        raise UserError("zero-shot: no finding of these readings has prompts and is both present and absent in them")
    return classes


def zero_shot(
    readings: Sequence[Reading],
    images: ImageBank,
    texts: TextBank,
    prompts: Prompts,
    bootstrap: PatientBootstrap,
    pooling: Pooling = "max",
    variant: Variant = PROJECT,
) -> dict[str, Any]:
    """Figures of both scores, and what a constant predictor and chance earn.

    Args:
        prompts: of the classes that are evaluated; their order does not matter.
    """
    labels = finding_labels(readings, sorted(prompts))
    single = labels.single()
    truth = (labels.values[single] == PRESENT).argmax(axis=1)
    scores = variant.class_scores(images, texts, prompts, pooling)
    places, every = images.places(readings), variant.is_f1_of_predicted
    return {
        "classes": labels.classes,
        "pooling": pooling,
        "uncertain_excluded": dict(zip(labels.classes, (labels.values == UNCERTAIN).sum(axis=0).tolist(), strict=True)),
        "single_finding_readings": len(single),
        **{
            kind: auroc_figures(labels, score, bootstrap)
            | _argmax_figures(labels.select(single), score[single], truth, bootstrap, every)
            for kind, score in ((kind, score[places]) for kind, score in scores.items())
        },
        "constant_predictor": constant_predictor(truth, len(labels.classes)),
        "chance": uniform_guess(truth, len(labels.classes), every),
    }


def macro_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, every: bool = False) -> Statistic:
    """Mean F1 over the classes that occur (`every`: or are predicted) in a draw; NO_PREDICTION accuses no class."""
    is_true = truth[:, None] == np.arange(classes)
    is_predicted = predicted[:, None] == np.arange(classes)

    def statistic(weights: Array) -> Array:
        support, claimed = weights @ is_true, weights @ is_predicted
        with np.errstate(invalid="ignore"):
            f1 = 2 * (weights @ (is_true & is_predicted)) / (support + claimed)
        return mean_of_defined(np.where(support + every * claimed > 0, f1, np.nan))

    return statistic


def argmax_credit(scores: Array, truth: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """(n,) accuracy credit, 1/k where the truth is among k tied classes; (n,) the one best class or NO_PREDICTION."""
    best = scores == scores.max(axis=1, keepdims=True)
    credit = best[np.arange(len(truth)), truth] / best.sum(axis=1)
    return credit, np.where(best.sum(axis=1) == 1, best.argmax(axis=1), NO_PREDICTION)


def constant_predictor(truth: NDArray[np.int64], classes: int) -> dict[str, float | None]:
    """What always saying the most frequent class earns; no constant earns more in any of the three."""
    if len(truth) == 0:
        return {"auroc": 0.5, "accuracy": None, "macro_f1": None}
    always = np.full_like(truth, np.bincount(truth).argmax())
    f1 = macro_f1(truth, always, classes)(np.ones((1, len(truth))))
    return {"auroc": 0.5, "accuracy": float((truth == always).mean()), "macro_f1": float(f1[0])}


def uniform_guess(truth: NDArray[np.int64], classes: int, every: bool = False) -> dict[str, float | None]:
    """What a guess among the classes with equal odds earns: expected accuracy, and F1 of the expected counts."""
    if len(truth) == 0:
        return {"auroc": 0.5, "accuracy": None, "macro_f1": None}
    support = np.bincount(truth, minlength=classes)
    support = support[(support > 0) | every]
    f1 = 2 * support / classes / (support + len(truth) / classes)
    return {"auroc": 0.5, "accuracy": 1 / classes, "macro_f1": float(f1.mean())}


def auroc_figures(
    labels: Labels, scores: Array, bootstrap: PatientBootstrap, untrained: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`auroc`, the mean over the classes that have one, and `auroc_per_class`.

    Args:
        scores: (n, C), a row a reading.
        untrained: classes without a score, with the reason.
    """
    reasons = untrained or {}
    per_class = {
        name: Figure(None, reason=reasons[name])
        if name in reasons
        else _class_auroc(entries(labels, scores, column), bootstrap)
        for column, name in enumerate(labels.classes)
    }
    defined = [column for column, figure in enumerate(per_class.values()) if figure.value is not None]
    mean = Figure(None, reason="no class has both positive and negative readings")
    if defined:
        classes = [entries(labels, scores, column) for column in defined]
        mean = bootstrap.mean_auroc(classes, len(labels.readings), paired=True)
    return {
        "auroc": mean.to_json(),
        "auroc_per_class": {name: figure.to_json() for name, figure in per_class.items()},
    }


def entries(labels: Labels, scores: Array, column: int) -> Entries:
    """Of one class, those that list it."""
    listed = labels.listed(column)
    return scores[listed, column], labels.values[listed, column] == PRESENT, labels.select(listed)


def lacking(of: Entries, where: str = "") -> str | None:
    """Why a class has no figure."""
    kind = "positive" if not of[1].any() else "negative" if of[1].all() else None
    return kind and f"no {kind} reading of this class{where}"


def _class_auroc(of: Entries, bootstrap: PatientBootstrap) -> Figure:
    reason, count = lacking(of), len(of[1])
    return bootstrap.mean_auroc([of], count) if reason is None else Figure(None, n=count, reason=reason)


def _argmax_figures(
    readings: Sequence[Reading], scores: Array, truth: NDArray[np.int64], bootstrap: PatientBootstrap, every: bool
) -> dict[str, Any]:
    if scores.shape[1] < 2 or len(readings) == 0:
        reason = "needs two classes" if scores.shape[1] < 2 else "no reading has exactly one of the classes"
        return {name: Figure(None, reason=reason).to_json() for name in ("accuracy", "macro_f1")}
    credit, predicted = argmax_credit(scores, truth)
    statistic, deciding = macro_f1(truth, predicted, scores.shape[1], every), np.ones(len(truth), dtype=bool)
    return {
        "accuracy": bootstrap.proportion(credit, readings).to_json(),
        "macro_f1": bootstrap.figure(statistic, readings, rests_on=deciding).to_json(),
    }
