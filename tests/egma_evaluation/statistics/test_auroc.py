"""Clustered DeLong against loops over pairs and patients; both intervals, the ends, and several classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logit
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from egma_evaluation.statistics.auroc import (
    DELONG,
    NEWCOMBE,
    auroc_interval,
    hanley_mcneil,
    obuchowski,
    placements,
    scarcer_patients,
)

RANDOM = np.random.default_rng(4)


def data(patients: int = 40, images: int = 2, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rounded scores, so with ties; some patients have positive and negative images."""
    unit = np.repeat(np.arange(patients), images)
    positive = RANDOM.random(len(unit)) < 0.4
    return (RANDOM.normal(size=len(unit)) + shift * positive).round(1), positive, unit


def psi(above: float, below: float) -> float:
    return 1.0 if above > below else 0.5 if above == below else 0.0


def naive_variance(scores: np.ndarray, positive: np.ndarray, unit: np.ndarray) -> float:
    """Obuchowski 1997, formula by formula."""
    x, y = scores[positive], scores[~positive]
    auroc = np.mean([psi(a, b) for a in x for b in y])
    total = {"10": [], "01": [], "11": []}
    patients = sorted(set(unit.tolist()))
    for one in patients:
        own_x, own_y = scores[positive & (unit == one)], scores[~positive & (unit == one)]
        v10 = sum(np.mean([psi(a, b) for b in y]) for a in own_x) - len(own_x) * auroc
        v01 = sum(np.mean([psi(a, b) for a in x]) for b in own_y) - len(own_y) * auroc
        if len(own_x):
            total["10"].append(v10**2)
        if len(own_y):
            total["01"].append(v01**2)
        total["11"].append(v10 * v01)
    i10, i01, count = len(total["10"]), len(total["01"]), len(patients)
    s10, s01 = i10 / ((i10 - 1) * len(x)) * sum(total["10"]), i01 / ((i01 - 1) * len(y)) * sum(total["01"])
    return s10 / len(x) + s01 / len(y) + 2 * count / (count - 1) * sum(total["11"]) / len(x) / len(y)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_variance_is_obuchowskis(images: int) -> None:
    scores, positive, unit = data(25, images)
    found = placements(scores, positive, unit, 25)
    assert found.auroc == pytest.approx(roc_auc_score(positive, scores))
    assert obuchowski([found])[0] == pytest.approx(naive_variance(scores, positive, unit))


def test_the_same_class_twice_is_the_class() -> None:
    one = placements(*data(), 40)
    assert obuchowski([one, one])[0] == pytest.approx(obuchowski([one])[0])
    assert scarcer_patients([one, one]) == pytest.approx(scarcer_patients([one]))


def test_variance_of_a_mean_is_that_of_resampled_patients() -> None:
    patients, unit = 400, np.arange(400)
    positive = [RANDOM.random(patients) < share for share in (0.2, 0.4)]
    shared = RANDOM.normal(size=patients)
    scores = [shared + RANDOM.normal(size=patients) + label for label in positive]
    classes = [placements(score, label, unit, patients) for score, label in zip(scores, positive, strict=True)]
    drawn = []
    for _ in range(600):
        chosen = RANDOM.integers(0, patients, patients)
        drawn.append(np.mean([roc_auc_score(p[chosen], s[chosen]) for s, p in zip(scores, positive, strict=True)]))
    assert obuchowski(classes)[0] == pytest.approx(np.var(drawn), rel=0.2)


def test_logit_interval_where_errors_were_seen() -> None:
    scores, positive, unit = data(60)
    found = placements(scores, positive, unit, 60)
    variance, freedom = obuchowski([found])
    (low, high), method = auroc_interval([found])
    half = student.ppf(0.975, freedom) * np.sqrt(variance) / (found.auroc * (1 - found.auroc))
    assert method == DELONG and logit([low, high]) == pytest.approx(logit(found.auroc) + np.array([-half, half]))


def test_score_interval_where_few_errors_were_seen() -> None:
    unit = np.arange(60)
    positive = unit < 12
    scores = np.where(positive, 2.0, 0.0) + unit / 100
    scores[0] = 0.3
    found = placements(scores, positive, unit, 60)
    (low, high), method = auroc_interval([found])
    assert method == NEWCOMBE and 0.5 < low < found.auroc < high < 1
    reached = [(end - found.auroc) ** 2 / hanley_mcneil(end, 12, 48) for end in (low, high)]
    assert reached[0] == pytest.approx(reached[1], rel=1e-6) and reached[0] >= 1.96**2


@pytest.mark.parametrize("images", [1, 2])
def test_perfect_and_worst_separation_are_not_certain(images: int) -> None:
    ends = {}
    for sick in (2, 10, 100):
        patients = 2 * sick
        positive, unit = np.repeat(np.arange(patients) < sick, images), np.repeat(np.arange(patients), images)
        (low, high), method = auroc_interval([placements(positive.astype(float), positive, unit, patients)])
        worst, _ = auroc_interval([placements(-positive.astype(float), positive, unit, patients)])
        assert method == NEWCOMBE and high == 1 and worst == pytest.approx((0, 1 - low), abs=1e-6)
        ends[sick] = low
    assert ends[2] < 0.55 and 0.7 < ends[10] < 0.9 and 0.97 < ends[100] < 0.99


def test_two_images_of_a_patient_that_agree_are_one() -> None:
    positive, unit = np.arange(40) < 10, np.arange(40)
    alone, _ = auroc_interval([placements(positive.astype(float), positive, unit, 40)])
    doubled, twice = np.repeat(positive, 2), np.repeat(unit, 2)
    assert auroc_interval([placements(doubled.astype(float), doubled, twice, 40)])[0] == pytest.approx(alone, abs=0.02)


@given(arrays(float, 24, elements=st.integers(0, 6).map(float)), arrays(bool, 24), st.integers(1, 3))
def test_the_figure_lies_inside_of_a_proper_interval(scores: np.ndarray, positive: np.ndarray, images: int) -> None:
    unit = np.arange(24) // images
    if len(set(unit[positive])) < 2 or len(set(unit[~positive])) < 2:
        return
    (low, high), _ = auroc_interval([placements(scores, positive, unit, 24)])
    assert 0 <= low <= roc_auc_score(positive, scores) <= high <= 1 and high - low > 0.02


def test_what_has_no_auroc_is_refused_and_one_patient_has_no_interval() -> None:
    unit = np.arange(4)
    for scores, positive in (([0, 1, 2, np.nan], [1, 0, 1, 0]), ([0, 1, 2, 3], [1, 1, 1, 1])):
        with pytest.raises(ValueError, match="finite scores of positives and of negatives"):
            placements(np.array(scores, dtype=float), np.array(positive, dtype=bool), unit, 4)
    assert auroc_interval([placements(np.arange(4.0), unit == 3, unit, 4)]) is None
