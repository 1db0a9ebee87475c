"""Ranks and recall against plain loops, duplicates, and the tiling of the late interaction."""

import itertools

import numpy as np
import pytest
import torch

from egma_evaluation import retrieval as module
from egma_evaluation.bootstrap import PatientBootstrap
from egma_evaluation.metrics.ranking import held_share
from egma_evaluation.retrieval import distinct_pairs, places_of_truth, report_scores, retrieval
from tests.egma_evaluation.fakes import all_texts, constant_model, corpus, encode, oracle, random_model, reading


def test_rank_and_recall_are_the_means_over_every_order_of_ties() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (5, 5)).astype(float)
    before, tied = places_of_truth(scores)
    for row in range(5):
        orders = [sorted(order, key=lambda c, r=row: -scores[r, c]) for order in itertools.permutations(range(5))]
        ranks = np.array([order.index(row) + 1 for order in orders])
        assert before[row] + (tied[row] + 1) / 2 == pytest.approx(ranks.mean())
        for k in (1, 2, 5):
            assert held_share(before, tied, k)[row] == pytest.approx((ranks <= k).mean())


@pytest.mark.parametrize("pairs", [2, 7, 19])
def test_a_constant_score_is_exactly_at_chance(pairs: int) -> None:
    rows = corpus(pairs)
    images, texts = encode(constant_model(rows), rows)
    result = retrieval(rows, images, texts, PatientBootstrap(rows, 20))
    for way in ("image_to_text", "text_to_image"):
        found = {name: figure["value"] for name, figure in result["late_interaction"][way].items()}
        assert found == pytest.approx(result["chance"], rel=1e-11)


def test_duplicate_images_and_texts_are_removed() -> None:
    rows = [
        reading(0, sentences=["The lungs are clear."], reading_id="b"),
        reading(0, sentences=["There is edema."], reading_id="a"),
        reading(1, sentences=["there is  EDEMA."], reading_id="c"),
        reading(2, sentences=["There is", "edema."], reading_id="d"),
        reading(3, sentences=[" "], reading_id="e"),
        reading(4, sentences=["There is atelectasis."], reading_id="f"),
    ]
    assert [row["reading_id"] for row in distinct_pairs(rows)] == ["a", "f"]


def test_one_text_for_all_cannot_be_retrieved() -> None:
    rows = [reading(number, sentences=["The lungs are clear."]) for number in range(4)]
    model = random_model(rows)
    images, texts = encode(model, rows)
    with pytest.raises(module.UserError, match="needs two images with different texts, got 1"):
        retrieval(rows, images, texts, PatientBootstrap(rows, 0))


def test_report_scores_by_loop_however_they_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [reading(k, sentences=[f"Sentence {k} {j}." for j in range(1 + k % 3)]) for k in range(7)]
    model = random_model(rows)
    images, texts = encode(model, rows)
    whole = report_scores(rows, images, texts)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 7 * 3 * 16 * 2)
    tiled = report_scores(rows, images, texts)
    for k in range(7):
        for r, row in enumerate(rows):
            sentences = texts.of(all_texts([row]))
            cosines = images.patches[k] @ sentences.T
            late = (cosines.amax(1).mean() + cosines.amax(0).mean()) / 2
            mean = sentences.mean(0)
            assert whole["late_interaction"][k, r] == pytest.approx(float(late), abs=2e-6)
            assert whole["pooled"][k, r] == pytest.approx(float(images.pooled[k] @ mean / mean.norm()), abs=2e-6)
    np.testing.assert_allclose(tiled["late_interaction"], whole["late_interaction"], atol=2e-6)


def test_recall_and_its_chance() -> None:
    rows = corpus(12)
    model = oracle(rows)
    model.patches = model.patches[torch.tensor([1, 0, *range(2, 12)])]
    images, texts = encode(model, rows)
    result = retrieval(rows, images, texts, PatientBootstrap(rows, 50))
    for direction in ("image_to_text", "text_to_image"):
        assert result["pooled"][direction]["recall_at_1"]["value"] == pytest.approx(10 / 12)
        assert result["pooled"][direction]["median_rank"]["value"] == 1
    assert result["chance"]["recall_at_5"] == pytest.approx(5 / 12)
