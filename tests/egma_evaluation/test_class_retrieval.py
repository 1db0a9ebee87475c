"""Precision at k by class: literal repetition as the reference of the weighted form; speed is for the benchmarks."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataset_scripts.schema import UserError
from egma_evaluation.bootstrap import PatientBootstrap
from egma_evaluation.class_retrieval import class_retrieval, weighted_precision
from egma_evaluation.metrics.ranking import precision_at_k
from tests.egma_evaluation.fakes import CLASSES, PROMPTS, corpus, encode, oracle, reading


def naive(score: np.ndarray, relevant: np.ndarray, weights: np.ndarray, k: int) -> float:
    """Every candidate as often as it was drawn, all its copies tied; places that nobody takes stay empty."""
    times = weights.astype(int)
    scores = np.concatenate([np.repeat(score, times), np.full(k, -1.0)])
    hits = np.concatenate([np.repeat(relevant, times), np.zeros(k, dtype=bool)])
    return float(precision_at_k(scores[None], hits[None], k)[0])


@given(
    hnp.arrays(float, (3, 7), elements=st.integers(0, 4).map(float)),
    hnp.arrays(bool, (3, 7)),
    hnp.arrays(float, (2, 7), elements=st.integers(0, 3).map(float)),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_weighted_precision_by_loop(
    score: np.ndarray, relevant: np.ndarray, weights: np.ndarray, k: int, first_groups: int
) -> None:
    with patch("egma_evaluation.class_retrieval.FIRST_GROUPS", first_groups):
        found = weighted_precision(score, relevant, k)(weights)
    for draw in range(2):
        expected = np.mean([naive(score[q], relevant[q], weights[draw], k) for q in range(3)])
        assert found[draw] == pytest.approx(expected)
    once = weighted_precision(score, relevant, k)(np.ones((1, 7)))[0]
    assert once == pytest.approx(precision_at_k(score, relevant, k).mean())


def test_figures_of_an_oracle_and_what_chance_is() -> None:
    rows = corpus(30)
    images, texts = encode(oracle(rows), rows)
    result = class_retrieval(rows, images, texts, PROMPTS, PatientBootstrap(rows, 20))
    assert (result["images"], result["sentences"]) == (30, 6)
    for score in ("pooled", "late_interaction"):
        assert result[score]["image_to_text"]["precision_at_1"]["value"] == 1
        # two of a class among the five first
        assert result[score]["image_to_text"]["precision_at_5"]["value"] == pytest.approx(0.4)
        assert result[score]["text_to_image"]["precision_at_10"]["value"] == 1
        assert "precision_at_10" not in result[score]["image_to_text"]
    assert result["chance"] == {"image_to_text": pytest.approx(1 / 3), "text_to_image": pytest.approx(1 / 3)}


def test_images_of_several_classes_are_no_candidates() -> None:
    both = reading(99, findings=dict.fromkeys(CLASSES, 1))
    rows = corpus(6)
    images, texts = encode(oracle(rows), rows)
    assert class_retrieval(rows, images, texts, PROMPTS, PatientBootstrap(rows, 0))["images"] == 6
    with pytest.raises(UserError, match="images that show exactly one"):
        class_retrieval([both], images, texts, PROMPTS, PatientBootstrap([both], 0))


def test_an_oracle_of_equal_images_finds_no_more_than_all() -> None:
    relevant = np.repeat(np.eye(2, dtype=bool), 9, axis=1)
    scores = relevant.astype(float)
    for k in (1, 5, 9):
        assert weighted_precision(scores, relevant, k)(np.ones((1, 18))).tolist() == [1]
    draws = np.random.default_rng(0).multinomial(18, np.full(18, 1 / 18), size=50).astype(float)
    assert weighted_precision(scores, relevant, 5)(draws).max() <= 1
    assert weighted_precision(np.ones((2, 18)), relevant, 10)(np.ones((1, 18)))[0] == pytest.approx(0.5)


def test_all_found_and_nothing_found_are_not_certain() -> None:
    rows = corpus(30)
    images, texts = encode(oracle(rows), rows)
    figure = class_retrieval(rows, images, texts, PROMPTS, PatientBootstrap(rows, 50))["pooled"]["text_to_image"]
    low, high = figure["precision_at_1"]["interval"]
    assert high == 1 and 0.1 < low < 0.5  # three images hold the first places of the six sentences
    assert figure["precision_at_1"]["method"] == "Wilson, design effect"
    assert figure["precision_at_10"]["interval"][0] > low
