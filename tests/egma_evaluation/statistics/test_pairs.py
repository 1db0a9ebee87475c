"""Sign-flips against models whose ranks are literally exchanged, and Holm by its definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from egma_evaluation.statistics.pairs import FEW_DISAGREEING, Ranked, auroc_difference, disagreeing_patients, holm, sign_flip

RANDOM = np.random.default_rng(2)
PATIENTS = 7
SIGNS = np.array(list(itertools.product([False, True], repeat=PATIENTS)))


def two_models(classes: int = 1) -> tuple[list[Ranked], list[Ranked]]:
    """Rounded scores of 14 images of 7 patients."""
    unit = np.repeat(np.arange(PATIENTS), 2)
    labels = [RANDOM.permutation(np.arange(14) < 5) for _ in range(classes)]
    made = [[Ranked.of(RANDOM.normal(size=14).round(), label, unit) for label in labels] for _ in range(2)]
    return made[0], made[1]


@pytest.mark.parametrize("classes", [1, 3])
def test_signs_are_the_aurocs_after_the_exchange(classes: int) -> None:
    first, second = two_models(classes)
    added, weights = auroc_difference(first, second, PATIENTS)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    for flipped in SIGNS[::9]:
        exchanged = flipped[first[0].unit]
        literal = [
            roc_auc_score(one.positive, np.where(exchanged, other.ranks, one.ranks))
            - roc_auc_score(one.positive, np.where(exchanged, one.ranks, other.ranks))
            for one, other in zip(first, second, strict=True)
        ]
        assert np.where(flipped, -added, added).sum() == pytest.approx(np.mean(literal))


def test_p_value_by_loop_over_all_exchanges() -> None:
    added, weights = RANDOM.normal(size=PATIENTS) + 0.5, np.full(PATIENTS, 1 / PATIENTS)
    sums = np.array([np.where(flipped, -added, added).sum() for flipped in SIGNS])
    beyond = (abs(sums) > abs(added.sum()) + 1e-9).sum() + 0.5 * np.isclose(abs(sums), abs(added.sum())).sum()
    assert sign_flip(added, weights, SIGNS)[1] == pytest.approx((1 + beyond) / (1 + len(SIGNS)))


def test_interval_holds_what_the_flips_do_not_refuse() -> None:
    added = RANDOM.normal(0.05, 0.2, size=200) / 200
    weights, flipped = np.full(200, 1 / 200), RANDOM.random((4000, 200)) < 0.5
    (low, high), _ = sign_flip(added, weights, flipped)
    for end, inside in ((low, 1), (high, -1)):
        assert sign_flip(added - (end - 0.01 * inside) * weights, weights, flipped)[1] < 0.05
        assert sign_flip(added - (end + 0.01 * inside) * weights, weights, flipped)[1] > 0.05


def test_no_difference_is_no_evidence() -> None:
    first, _ = two_models()
    added, weights = auroc_difference(first, first, PATIENTS)
    assert sign_flip(added, weights, SIGNS) == ((0, 0), 1)


@pytest.mark.parametrize("disagreeing", range(1, 8))
def test_fewer_than_five_disagreeing_patients_refuse_nothing(disagreeing: int) -> None:
    """All for the same model, the clearest case there is."""
    added = (np.arange(PATIENTS) < disagreeing).astype(float)
    refused = sign_flip(added, np.full(PATIENTS, 1 / PATIENTS), SIGNS)[1] < 0.05
    assert disagreeing_patients(added) == disagreeing and refused == (disagreeing >= FEW_DISAGREEING)


def test_ranks_survive_json() -> None:
    first, _ = two_models()
    again = Ranked.from_json(first[0].to_json())
    assert again.ranks.tolist() == first[0].ranks.tolist() and again.positive.dtype == bool


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_refuses_what_its_steps_refuse(p_values: list[float], level: float) -> None:
    adjusted, refused = holm(p_values), set()
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        if p_values[place] * (len(p_values) - step) > level:
            break
        refused.add(place)
    assert {place for place, value in enumerate(adjusted) if value <= level} == refused
