"""AUROC, accuracy and F1 against scikit-learn and plain loops; ties, uncertain and one-sided classes."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from egma_evaluation.bootstrap import PatientBootstrap
from egma_evaluation.zero_shot import (
    argmax_credit,
    class_scores,
    constant_predictor,
    finding_labels,
    macro_f1,
    uniform_guess,
    zero_shot,
)
from tests.egma_evaluation.fakes import PROMPTS, corpus, encode, oracle, random_model, reading

RANDOM = np.random.default_rng(0)


def test_macro_f1_is_scikit_learns() -> None:
    truth, predicted = RANDOM.integers(0, 3, 50), RANDOM.integers(-1, 4, 50)
    expected = f1_score(truth, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert macro_f1(truth, predicted, 4)(np.ones((1, 50)))[0] == pytest.approx(expected)


def test_ties_share_credit_and_predict_nothing() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    credit, predicted = argmax_credit(scores, np.array([0, 1, 2]))
    assert credit.tolist() == [0.5, 1.0, pytest.approx(1 / 3)]
    assert predicted.tolist() == [-1, 1, -1]


def test_baselines_are_those_of_the_literal_predictors() -> None:
    truth = np.repeat([0, 1, 2], [6, 3, 1])
    constant, chance = constant_predictor(truth, 3), uniform_guess(truth, 3)
    assert constant["accuracy"] == 0.6
    assert constant["macro_f1"] == pytest.approx(f1_score(truth, np.zeros(10, int), average="macro", zero_division=0))
    many = np.repeat(truth, 3000)
    guess = RANDOM.integers(0, 3, len(many))
    assert chance["accuracy"] == pytest.approx((guess == many).mean(), abs=0.01)
    assert chance["macro_f1"] == pytest.approx(f1_score(many, guess, average="macro"), abs=0.01)


def test_class_scores_by_loop() -> None:
    rows = corpus(5)
    model = random_model(rows)
    images, texts = encode(model, rows)
    for pooling, reduce in (("max", np.max), ("mean", np.mean)):
        scores = class_scores(images, texts, PROMPTS, pooling)  # type: ignore[arg-type]
        for place in range(5):
            for column, name in enumerate(sorted(PROMPTS)):
                sentences = texts.of(PROMPTS[name])
                pooled = reduce([float(images.pooled[place] @ sentence) for sentence in sentences])
                late = reduce([float((images.patches[place] @ sentence).max()) for sentence in sentences])
                assert scores["pooled"][place, column] == pytest.approx(pooled, abs=2e-6)
                assert scores["late_interaction"][place, column] == pytest.approx(late, abs=2e-6)


def test_uncertain_and_unlisted_findings_are_left_out() -> None:
    rows = [
        reading(0, findings={"Atelectasis": 1, "Consolidation": 0}),
        reading(1, findings={"Atelectasis": 0, "Consolidation": 1}),
        reading(2, findings={"Atelectasis": -1, "Consolidation": 1}),
        reading(3, findings={"Consolidation": 0}),
    ]
    labels = finding_labels(rows, ["Atelectasis", "Consolidation"])
    assert labels.listed(0).tolist() == [0, 1]
    assert labels.single().tolist() == [0, 1]


def test_one_sided_class_is_null_with_its_reason() -> None:
    rows = [
        row | {"findings": [f for f in row["findings"] if f["value"] or f["name"] != "Atelectasis"]} for row in corpus()
    ]
    model = oracle(corpus())
    images, texts = encode(model, rows)
    result = zero_shot(rows, images, texts, PROMPTS, PatientBootstrap(rows, 20))
    figure = result["pooled"]["auroc_per_class"]["Atelectasis"]
    assert figure["value"] is None and figure["reason"] == "no negative reading of this class"
    assert result["pooled"]["auroc"]["value"] == 1.0
