"""What decides: AUPRC, sensitivity at a given specificity, calibration, and a threshold.

Probabilities and threshold are fitted on the validation split, class by class: Platt's scaling of the score, so a
temperature and an intercept, and the score from which on sensitivity + specificity is largest (Youden 1950). ECE has
bins of equal mass in the validation split (Nixon et al., "Measuring calibration in deep learning", 2019);
it has no interval, because it is above 0 by chance too: `calibrated_ece` is what it comes to, on so many images, where
every probability is right (normal approximation).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, ndtri
from sklearn.metrics import roc_curve

from egma.evaluation.protocols.zero_shot import Entries, Labels, entries, lacking
from egma.evaluation.statistics.bootstrap import Figure, PatientBootstrap, Statistic, patient, without_draws
from egma.evaluation.statistics.proportions import CONFIDENCE
from egma.tools.arrays import Array

SPECIFICITIES = {"sensitivity_at_90_specificity": 0.9, "sensitivity_at_95_specificity": 0.95}
FITTED = ("threshold_sensitivity", "threshold_specificity", "brier", "constant_brier", "ece", "calibrated_ece")
METRICS = ("auprc", "prevalence", *SPECIFICITIES, *FITTED)
BINS = 10
Held = tuple[Labels, Array] | str  # the validation split's labels and scores, or why it decides nothing


def decisions(
    test: Labels, scores: Array, held: Held, bootstrap: PatientBootstrap, untrained: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`figures`: each of METRICS, the mean and every class; `fits` of the classes.

    Args:
        scores: (n, C), a row a reading.
        untrained: classes without a score, with the reason.
    """
    classes, fits, figures = {}, {}, {}
    for column, name in enumerate(test.classes):
        of_test, of_held = entries(test, scores, column), held if isinstance(held, str) else entries(*held, column)
        reason = (untrained or {}).get(name) or lacking(of_test)
        unfit = reason or (of_held if isinstance(of_held, str) else lacking(of_held, " in the validation split"))
        classes[name] = dict.fromkeys(METRICS, Figure(None, reason=unfit))
        classes[name] |= {} if reason else _ranked(of_test, bootstrap)
        if unfit is None and not isinstance(of_held, str):
            fitted, fits[name] = _fitted(of_test, of_held, bootstrap)
            classes[name] |= fitted
    for metric in METRICS:
        found = {name: of[metric] for name, of in classes.items()}
        found = {"mean": bootstrap.mean(found, len(scores))} | found
        scaled = _on_logit if metric == "auprc" else replace
        figures[metric] = {name: scaled(figure).to_json() for name, figure in found.items()}
    return {"figures": without_draws(figures), "fits": without_draws(fits)}


def operating_points(scores: Array, positive: NDArray[np.bool_]) -> Statistic:
    """Weights (draws, n) -> (draws, 3): average precision, and the sensitivity at each of SPECIFICITIES.

    The sensitivity lies on the ROC curve, straight between its points (Fawcett, "An introduction to ROC analysis",
    2006): a constant score earns 1 - specificity. NaN in a draw without both kinds.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    at = [1 - specificity + 1e-12 for specificity in SPECIFICITIES.values()]  # the upper end of a step

    def statistic(weights: Array) -> Array:
        kinds = [(weights * kind)[:, order].cumsum(axis=1)[:, ends] for kind in (positive, ~positive)]
        hits, alarms = (np.pad(counts, ((0, 0), (1, 0))) for counts in kinds)
        both = (hits[:, -1:] > 0) & (alarms[:, -1:] > 0)
        sensitivity, false = hits / np.where(both, hits[:, -1:], np.nan), alarms / np.maximum(alarms[:, -1:], 1)
        area = (np.diff(sensitivity, axis=1) * (hits / np.maximum(hits + alarms, 1))[:, 1:]).sum(axis=1)
        return np.column_stack([area, [np.interp(at, *curve) for curve in zip(false, sensitivity, strict=True)]])

    return statistic


def platt(scores: Array, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope (1 / temperature) and intercept of a positive's logit.

    Platt, "Probabilistic outputs for support vector machines" (1999), with his targets, by which a perfect separation
    has a finite slope. It is never below 0: a score that orders the wrong way says nothing.
    """
    target = np.where(positive, 1 - 1 / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    mean, spread = scores.mean(), scores.std() or 1.0

    def loss(fit: Array) -> float:
        logits = fit[0] * (scores - mean) / spread + fit[1]
        return float((np.logaddexp(0, logits) - target * logits).mean())

    slope, intercept = minimize(loss, (0.0, 0.0), bounds=((0, None), (None, None)), tol=1e-12).x
    return float(slope / spread), float(intercept - slope * mean / spread)


def _ranked(test: Entries, bootstrap: PatientBootstrap) -> dict[str, Figure]:
    scores, positive, readings = test
    names = dict.fromkeys(("auprc", *SPECIFICITIES), positive)
    found = bootstrap.figures(operating_points(scores, positive), readings, names)
    found["prevalence"] = bootstrap.proportion(positive, readings)
    return {name: replace(figure, patients=_scarcer(test)) for name, figure in found.items()}


def _fitted(test: Entries, held: Entries, bootstrap: PatientBootstrap) -> tuple[dict[str, Figure], dict[str, Any]]:
    (scores, positive, readings), (slope, intercept) = test, platt(*held[:2])
    false, true, thresholds = roc_curve(held[1], held[0])
    threshold = float(thresholds[1:][np.argmax((true - false)[1:])])  # the first says no to everything
    probabilities, of_held = (expit(slope * of + intercept) for of in (scores, held[0]))
    in_bin = np.searchsorted(np.quantile(of_held, np.arange(1, BINS) / BINS), probabilities) == np.arange(BINS)[:, None]
    gaps, variances = probabilities - positive, in_bin @ (probabilities * (1 - probabilities))

    def share(credit: NDArray[np.bool_], of: NDArray[np.bool_]) -> Figure:
        return bootstrap.proportion(credit[of], [readings[place] for place in np.flatnonzero(of)])

    means = {"brier": gaps**2, "constant_brier": (held[1].mean() - positive) ** 2}
    found = {
        "threshold_sensitivity": share(scores >= threshold, positive),
        "threshold_specificity": share(scores < threshold, ~positive),
        **bootstrap.means(means, readings),
        "ece": Figure(float(np.abs(in_bin @ gaps).sum() / len(scores)), n=len(scores)),
        "calibrated_ece": Figure(float(np.sqrt(2 / np.pi * variances).sum() / len(scores)), n=len(scores)),
    }
    few = min(_scarcer(test), _scarcer(held))
    bins = [[float(probabilities[of].mean()), share(positive, of).to_json()] for of in in_bin if of.any()]
    fit = {"slope": slope, "intercept": intercept, "threshold": threshold, "reliability": bins}
    return {name: replace(figure, patients=few) for name, figure in found.items()}, fit


def _on_logit(figure: Figure) -> Figure:
    """Interval by the draws' deviation on the logit scale (Boyd, Eng & Page, "Area under the precision-recall curve",
    2013), where they differ: percentiles hold too seldom."""
    if figure.draws is None or figure.value is None or not np.nanstd(figure.draws) > 0:
        return figure
    inside = np.clip([figure.value, *figure.draws], 0.5 / figure.n, 1 - 0.5 / figure.n)
    half = ndtri((1 + CONFIDENCE) / 2) * np.nanstd(logit(inside[1:]))
    low, high = expit(logit(inside[0]) + np.array([-half, half]))
    return replace(figure, interval=(float(low), float(high)), method="bootstrap, logit")


def _scarcer(of: Entries) -> int:
    """Patients with a positive reading or those with a negative one, whichever are fewer."""
    kinds = {(bool(value), patient(reading)) for value, reading in zip(of[1], of[2], strict=True)}
    positive = sum(kind for kind, _ in kinds)
    return min(positive, len(kinds) - positive)
