"""Precision and recall at k against every order of the tied candidates; what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egma_evaluation.metrics.ranking import held_share, precision_at_k, recall_at_k

CANDIDATES = 5
scores = arrays(float, (2, CANDIDATES), elements=st.integers(0, 2).map(float))
relevance = arrays(bool, (2, CANDIDATES)).filter(lambda part: part.any(axis=1).all())


def mean_hits(score: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Relevant candidates among the first k, the mean over every random order before a stable sort."""
    orders = [sorted(order, key=lambda c: -score[c]) for order in itertools.permutations(range(len(score)))]
    return float(np.mean([relevant[order[:k]].sum() for order in orders]))


@settings(max_examples=40)
@given(scores, relevance, st.integers(1, CANDIDATES))
def test_expectation_over_every_random_order(score: np.ndarray, relevant: np.ndarray, k: int) -> None:
    for row in range(2):
        hits = mean_hits(score[row], relevant[row], k)
        assert precision_at_k(score, relevant, k)[row] == pytest.approx(hits / k)
        assert recall_at_k(score, relevant, k)[row] == pytest.approx(hits / relevant[row].sum())


@given(
    arrays(float, (3, 12), elements=st.integers(0, 4).map(float)),
    arrays(bool, (3, 12)).filter(lambda part: part.any(axis=1).all()),
    st.integers(1, 12),
)
def test_nothing_exceeds_all_and_a_constant_is_at_chance(score: np.ndarray, relevant: np.ndarray, k: int) -> None:
    for metric in (precision_at_k, recall_at_k):
        assert (metric(score, relevant, k) <= 1).all() and (metric(score, relevant, k) >= 0).all()
    constant = np.zeros_like(score)
    np.testing.assert_allclose(precision_at_k(constant, relevant, k), relevant.mean(axis=1), rtol=1e-11)
    np.testing.assert_allclose(recall_at_k(constant, relevant, k), k / 12, rtol=1e-11)
    oracle = precision_at_k(relevant.astype(float), relevant, k)
    assert oracle == pytest.approx(np.minimum(relevant.sum(axis=1) / k, 1))
    assert (oracle[relevant.sum(axis=1) >= k] == 1).all()


@given(scores, relevance, st.integers(1, CANDIDATES), st.permutations(range(CANDIDATES)))
def test_order_of_candidates_changes_nothing(score: np.ndarray, relevant: np.ndarray, k: int, order: list[int]) -> None:
    shuffled = precision_at_k(score[:, order], relevant[:, order], k)
    assert shuffled == pytest.approx(precision_at_k(score, relevant, k))


def test_by_hand() -> None:
    score = np.array([[0.9, 0.5, 0.5, 0.1]])
    relevant = np.array([[1, 0, 1, 0]])
    assert precision_at_k(score, relevant, 1) == 1 and precision_at_k(score, relevant, 2) == 0.75
    assert recall_at_k(score, relevant, 2) == 0.75 and recall_at_k(score, relevant, 3) == 1
    assert held_share([0, 2, 3], [5, 2, 1], 3).tolist() == [0.6, 0.5, 0]


def test_constant_score_is_chance_in_8x200_and_two_classes() -> None:
    relevant = np.zeros((1, 40))
    relevant[:, :5] = 1
    assert (
        precision_at_k(np.ones((1, 40)), relevant, 10) == 0.125 and recall_at_k(np.ones((1, 40)), relevant, 10) == 0.25
    )
    two = np.repeat([[1, 0]], 8, axis=1)
    assert precision_at_k(np.ones((1, 16)), two, 10) == 0.5


def test_nine_equal_images_of_a_class_are_not_180_percent() -> None:
    relevant = np.repeat([[1, 0]], 9, axis=1)
    assert precision_at_k(relevant.astype(float), relevant, 5) == 1


def test_oracle_of_the_8x200_protocol_is_capped() -> None:
    relevant = np.zeros((1, 40))
    relevant[:, :5] = 1
    score = relevant + np.linspace(0, 0.1, 40)
    assert [float(precision_at_k(score, relevant, k)[0]) for k in (1, 5, 10)] == [1, 1, 0.5]


@pytest.mark.parametrize(
    ("score", "relevant", "k", "message"),
    [
        ([[1.0, 2.0]], [[0, 0]], 1, "query 0 has no relevant candidate"),
        ([[1.0, 2.0]], [[0, 1]], 3, "k is 3, expected 1 ... 2"),
        ([[1.0, 2.0]], [[0, 1]], 0, "k is 0"),
        ([[1.0, np.nan]], [[0, 1]], 1, "not finite"),
        ([[1.0, 2.0]], [[0, 1, 1]], 1, r"relevant has shape \(1, 3\)"),
        ([[1.0, 2.0]], [[0, 2]], 1, "something else than 0 and 1"),
        ([[]], [[]], 1, "a candidate or more"),
    ],
)
def test_what_has_no_answer_is_refused(score: list, relevant: list, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall_at_k(np.array(score), np.array(relevant), k)
