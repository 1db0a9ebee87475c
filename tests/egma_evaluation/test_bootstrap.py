"""Draws are of patients, and the vectorised interval is that of a plain loop."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from egma_evaluation.bootstrap import PatientBootstrap, mean_of, median_of
from egma_evaluation.zero_shot import weighted_auroc
from tests.egma_evaluation.fakes import reading

RANDOM = np.random.default_rng(1)


def test_readings_of_one_patient_are_drawn_together() -> None:
    rows = [reading(number, subject_id=f"patient {number // 3}") for number in range(9)]
    weights = PatientBootstrap(rows, 200).weights(rows)
    assert (weights[:, 0::3] == weights[:, 1::3]).all() and (weights[:, 0::3] == weights[:, 2::3]).all()
    assert (weights[:, ::3].sum(axis=1) == 3).all()


def test_images_of_unknown_patients_are_drawn_alone() -> None:
    rows = [reading(number, subject_id=None) for number in range(4)]
    assert len(PatientBootstrap(rows, 1).unit) == 4


def test_auroc_interval_is_that_of_a_loop_over_resamples() -> None:
    rows = [reading(number % 30, subject_id=f"patient {number % 15}") for number in range(40)]
    scores, positive = RANDOM.random(40), RANDOM.random(40) < 0.5
    bootstrap = PatientBootstrap(rows, 250, seed=3)
    figure = bootstrap.figure(lambda weights: weighted_auroc(scores, positive, weights), rows)
    values = []
    for counts in bootstrap.counts:
        chosen = [
            place
            for place, row in enumerate(rows)
            for _ in range(counts[bootstrap.unit[f"patient {row['subject_id']}"]])
        ]
        if 0 < positive[chosen].sum() < len(chosen):
            values.append(roc_auc_score(positive[chosen], scores[chosen]))
    assert figure.value == pytest.approx(roc_auc_score(positive, scores))
    assert figure.interval == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_interval_of_a_mean_has_the_textbook_width() -> None:
    rows = [reading(number % 250, image_id=str(number), subject_id=None) for number in range(400)]
    credit = (RANDOM.random(400) < 0.3).astype(float)
    figure = PatientBootstrap(rows, 2000).figure(mean_of(credit), rows)
    assert figure.interval is not None
    assert figure.interval[1] - figure.interval[0] == pytest.approx(2 * 1.96 * credit.std() / 20, rel=0.1)


def test_median_and_its_degenerate_cases() -> None:
    rows = [reading(0), reading(1), reading(2, subject_id="patient 001")]
    bootstrap = PatientBootstrap(rows, 10)
    assert bootstrap.figure(median_of(np.array([1.0, 2.0, 9.0])), rows).value == 2
    assert bootstrap.figure(median_of(np.array([1.0])), rows[:1]).interval is None
