"""Draws are of patients, and the vectorised interval is that of a plain loop."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import f1_score

from dataset_scripts.schema import Reading
from egma.evaluation.protocols.zero_shot import macro_f1
from egma.evaluation.statistics.bootstrap import (
    Difference,
    PatientBootstrap,
    Statistic,
    mean_of,
    median_of,
    paired_difference,
)
from tests.egma.evaluation.fakes import reading

RANDOM = np.random.default_rng(1)


def paired(bootstrap: PatientBootstrap, first: Statistic, second: Statistic, rows: Sequence[Reading]) -> Difference:
    figures = [bootstrap.figure(statistic, rows) for statistic in (first, second)]
    return paired_difference(figures[0].to_json(), figures[1].to_json())


def test_readings_of_one_patient_are_drawn_together() -> None:
    rows = [reading(number, subject_id=f"patient {number // 3}") for number in range(9)]
    weights = PatientBootstrap(rows, 200).weights(rows)
    assert (weights[:, 0::3] == weights[:, 1::3]).all() and (weights[:, 0::3] == weights[:, 2::3]).all()
    assert (weights[:, ::3].sum(axis=1) == 3).all()


def test_images_of_unknown_patients_are_drawn_alone() -> None:
    rows = [reading(number, subject_id=None) for number in range(4)]
    assert len(PatientBootstrap(rows, 1).unit) == 4


def test_f1_interval_is_that_of_a_loop_over_resamples() -> None:
    rows = [reading(number % 30, subject_id=f"patient {number % 15}") for number in range(40)]
    truth, predicted = RANDOM.integers(0, 3, 40), RANDOM.integers(0, 3, 40)
    bootstrap = PatientBootstrap(rows, 250, seed=3)
    figure = bootstrap.figure(macro_f1(truth, predicted, 3), rows)
    values = []
    for counts in bootstrap.counts:
        chosen = [
            place
            for place, row in enumerate(rows)
            for _ in range(int(counts[bootstrap.unit[f"patient {row['subject_id']}"]]))
        ]
        seen = np.unique(truth[chosen])
        values.append(f1_score(truth[chosen], predicted[chosen], labels=seen, average="macro", zero_division=0))
    assert figure.interval == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_none_of_220_is_not_none_for_certain() -> None:
    rows = [reading(number % 200, subject_id=f"patient {number}") for number in range(220)]
    figure = PatientBootstrap(rows, 50).proportion(np.zeros(220), rows).to_json()
    assert figure["value"] == figure["interval"][0] == 0 and 0.016 < figure["interval"][1] < 0.018
    assert figure["method"] == "Wilson, design effect" and figure["patients"] == 220 and not figure["few_patients"]
    assert "method" not in PatientBootstrap(rows, 0).proportion(np.zeros(220), rows).to_json()


def test_figures_of_fewer_than_ten_patients_are_marked() -> None:
    rows = [reading(number, subject_id=f"patient {number // 2}") for number in range(60)]
    scores = RANDOM.random(60)
    bootstrap = PatientBootstrap(rows, 20)
    for sick, marked in ((9, True), (10, False)):
        positive = np.arange(60) < 2 * sick
        assert bootstrap.mean_auroc([(scores, positive, rows)], 60).to_json()["few_patients"] is marked
        assert bootstrap.mean_auroc([(scores, ~positive, rows)], 60).to_json()["few_patients"] is marked
        assert bootstrap.proportion(scores[: 2 * sick], rows[: 2 * sick]).to_json()["few_patients"] is marked


def test_models_are_compared_by_sign_flips_where_patients_add_up() -> None:
    rows = [reading(number, subject_id=f"patient {number // 2}") for number in range(120)]
    bootstrap, positive = PatientBootstrap(rows, 999), RANDOM.random(120) < 0.3
    good, bad = positive + RANDOM.normal(size=120), RANDOM.normal(size=120)
    aurocs = [bootstrap.mean_auroc([(score, positive, rows)], 120, paired=True).to_json() for score in (good, bad)]
    shares = [bootstrap.proportion(score, rows).to_json() for score in (good > 0.2, bad > 0.2)]
    for first, second in (aurocs, shares):
        found = bootstrap.difference(first, second)
        assert found.value == pytest.approx(first["value"] - second["value"])
        assert found.method == "sign-flips over patients" and found.interval[0] < found.value < found.interval[1]
        reverse = bootstrap.difference(second, first)
        assert reverse.p_value == found.p_value
        assert reverse.interval == pytest.approx([-end for end in found.interval[::-1]])
        assert bootstrap.difference(first, first).p_value == 1
    assert bootstrap.difference(*aurocs).p_value < 0.01
    medians = [bootstrap.figure(median_of(score), rows).to_json() for score in (good, bad)]
    assert bootstrap.difference(*medians).method == "percentile bootstrap"


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


def test_median_by_loop_over_resamples() -> None:
    rows = [reading(number, subject_id=f"patient {number % 4}") for number in range(9)]
    bootstrap, values = PatientBootstrap(rows, 40), RANDOM.integers(0, 6, 9).astype(float)
    weights = bootstrap.weights(rows)
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    assert median_of(values)(weights).tolist() == expected


def test_means_at_once_are_the_figures_one_by_one() -> None:
    rows = [reading(number % 30, subject_id=f"patient {number % 15}") for number in range(40)]
    bootstrap = PatientBootstrap(rows, 200)
    values = {"first": RANDOM.random(40), "second": RANDOM.random(40)}
    for name, figure in bootstrap.means(values, rows).items():
        alone = bootstrap.figure(mean_of(values[name]), rows)
        assert figure.value == pytest.approx(alone.value) and figure.interval == pytest.approx(alone.interval)
        assert figure.n == 40


def test_means_of_nothing_and_of_what_is_undefined() -> None:
    bootstrap = PatientBootstrap([reading(0), reading(1)], 10)
    assert bootstrap.means({"a": np.array([])}, [])["a"].to_json()["reason"] == "nothing to average"
    with pytest.raises(ValueError, match="finite"):
        bootstrap.means({"a": np.array([1.0, np.nan])}, [reading(0), reading(1)])
    assert bootstrap.means({"a": np.array([3.0])}, [reading(1)])["a"].interval is None


def test_paired_difference_by_loop() -> None:
    rows = [reading(number % 200, subject_id=f"patient {number % 50}") for number in range(120)]
    first, second = RANDOM.random(120), RANDOM.random(120)
    bootstrap = PatientBootstrap(rows, 300)
    result = paired(bootstrap, mean_of(first), mean_of(second), rows)
    drawn = [(row * (first - second)).sum() / row.sum() for row in bootstrap.weights(rows)]
    observed = (first - second).mean()
    far = sum(abs(value - observed) >= abs(observed) for value in drawn)
    assert result.value == pytest.approx(observed) and result.n == 120
    assert result.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert result.p_value == pytest.approx((far + 1) / 301)


def test_paired_difference_sees_a_small_steady_gain_and_no_gain_at_all() -> None:
    rows = [reading(number) for number in range(100)]
    bootstrap, noise = PatientBootstrap(rows, 999), RANDOM.random(100)
    better = paired(bootstrap, mean_of(noise + 0.01), mean_of(noise), rows)
    assert better.value == pytest.approx(0.01) and better.p_value == pytest.approx(1 / 1000)
    same = paired(bootstrap, mean_of(noise), mean_of(noise), rows)
    assert (same.value, same.p_value) == (0, 1)
    reverse = paired(bootstrap, mean_of(noise), mean_of(noise + 0.01), rows)
    assert reverse.value == -better.value and reverse.p_value == better.p_value
    assert paired(bootstrap, mean_of(noise[:1]), mean_of(noise[:1]), rows[:1]).p_value is None


def test_p_value_is_uniform_without_a_difference() -> None:
    """Of 200 pairs of equal models some 5 % may be called different at 5 %."""
    rows = [reading(number) for number in range(60)]
    bootstrap = PatientBootstrap(rows, 400)
    p_values = [
        paired(bootstrap, mean_of(RANDOM.normal(size=60)), mean_of(RANDOM.normal(size=60)), rows).p_value
        for _ in range(200)
    ]
    assert 0.01 <= np.mean([p is not None and p < 0.05 for p in p_values]) <= 0.11
