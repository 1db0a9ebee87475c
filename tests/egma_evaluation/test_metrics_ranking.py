"""Precision and recall at k against sorting in both directions; ties; what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egma_evaluation.metrics.ranking import mean_ranks, precision_at_k, recall_at_k

CANDIDATES = 6
scores = arrays(float, (3, CANDIDATES), elements=st.integers(0, 3).map(float))
relevance = arrays(bool, (3, CANDIDATES)).filter(lambda part: part.any(axis=1).all())


@given(scores, relevance, st.integers(1, CANDIDATES))
def test_by_loop(score: np.ndarray, relevant: np.ndarray, k: int) -> None:
    for row in range(3):
        ranks = [
            (1 + sum(other > own for other in score[row]) + sum(other >= own for other in score[row])) / 2
            for own in score[row]
        ]
        found = sum(rank <= k and hit for rank, hit in zip(ranks, relevant[row], strict=True))
        assert mean_ranks(score)[row].tolist() == ranks
        assert precision_at_k(score, relevant, k)[row] == pytest.approx(found / k)
        assert recall_at_k(score, relevant, k)[row] == pytest.approx(found / relevant[row].sum())


@given(scores, relevance, st.integers(1, CANDIDATES), st.permutations(range(CANDIDATES)))
def test_order_of_candidates_changes_nothing(score: np.ndarray, relevant: np.ndarray, k: int, order: list[int]) -> None:
    shuffled = precision_at_k(score[:, order], relevant[:, order], k)
    assert shuffled.tolist() == precision_at_k(score, relevant, k).tolist()


def test_by_hand() -> None:
    score = np.array([[0.9, 0.5, 0.5, 0.1]])
    relevant = np.array([[1, 0, 1, 0]])
    assert mean_ranks(score).tolist() == [[1, 2.5, 2.5, 4]]
    assert precision_at_k(score, relevant, 1) == 1 and precision_at_k(score, relevant, 2) == 0.5
    assert recall_at_k(score, relevant, 2) == 0.5 and recall_at_k(score, relevant, 3) == 1


def test_constant_score_is_no_luck() -> None:
    """Forty sentences of eight classes, as in CheXpert 8x200."""
    relevant = np.zeros((1, 40))
    relevant[:, :5] = 1
    assert precision_at_k(np.ones((1, 40)), relevant, 10) == recall_at_k(np.ones((1, 40)), relevant, 10) == 0


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
