"""The spread of AUROC over prompts, against scikit-learn one prompt at a time."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.prompt_sensitivity import prompt_sensitivity
from egma.evaluation.protocols.zero_shot import Labels, finding_labels
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.scores import class_scores
from tests.egma.evaluation.fakes import PROMPTS, corpus, encode, processor, random_model

ROWS = corpus(30)
NAMES = ["Atelectasis", "Consolidation"]


def labels_and_scores(prompts: int = 5) -> tuple[Labels, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return finding_labels(ROWS, NAMES), {name: random.normal(size=(30, prompts)) for name in NAMES}


def test_spread_over_single_prompts_is_that_of_every_one() -> None:
    labels, scores = labels_and_scores()
    found = prompt_sensitivity(labels, scores, PatientBootstrap(ROWS, 20), "max", seed=0)
    aurocs = [
        [roc_auc_score(labels.values[:, column], scores[name][:, place]) for place in range(5)]
        for column, name in enumerate(NAMES)
    ]
    for name, values in zip(NAMES, aurocs, strict=True):
        spread = found["single"][name]
        assert spread["mean"] == pytest.approx(np.mean(values)) and spread["deviation"] == pytest.approx(np.std(values))
        assert (spread["lowest"], spread["highest"]) == pytest.approx((min(values), max(values)))
    # every pair of choices, one for each class
    pairs = [(first + second) / 2 for first in aurocs[0] for second in aurocs[1]]
    mean = found["single"]["mean"]
    assert mean["mean"] == pytest.approx(np.mean(pairs)) and mean["deviation"] == pytest.approx(np.std(pairs))
    assert (mean["lowest"], mean["highest"]) == pytest.approx((min(pairs), max(pairs)))


def test_halves_are_drawn_by_name_and_seed_and_lie_within_what_all_halves_reach() -> None:
    labels, scores = labels_and_scores()
    bootstrap = PatientBootstrap(ROWS, 0)
    found = prompt_sensitivity(labels, scores, bootstrap, "mean", seed=0)["half"]
    for column, name in enumerate(NAMES):
        every = [
            roc_auc_score(labels.values[:, column], scores[name][:, places].mean(axis=1))
            for places in map(list, combinations(range(5), 3))
        ]
        assert min(every) - 1e-9 <= found[name]["lowest"] < found[name]["highest"] <= max(every) + 1e-9
    turned = Labels(labels.readings, NAMES[::-1], labels.values[:, ::-1])
    assert prompt_sensitivity(turned, scores, bootstrap, "mean", seed=0)["half"] == found
    assert prompt_sensitivity(labels, scores, bootstrap, "mean", seed=1)["half"] != found


def test_one_prompt_has_no_spread() -> None:
    labels, scores = labels_and_scores(prompts=1)
    found = prompt_sensitivity(labels, scores, PatientBootstrap(ROWS, 20), "max", seed=0)
    for kind in ("single", "half"):
        assert found[kind]["mean"]["deviation"] == pytest.approx(0)
        assert found[kind]["mean"]["lowest"] == pytest.approx(found["auroc"]["value"])


def test_whole_path_stands_beside_the_ensemble() -> None:
    model = random_model(ROWS)
    prompts = {name: PROMPTS[name][::-1] for name in NAMES}
    details = evaluate_model(
        model, processor, ROWS, ["zero_shot", "prompt_sensitivity"], prompts=prompts, bootstrap=20
    )["details"]
    found = details["prompt_sensitivity"]
    assert found["auroc"] == details["zero_shot"]["pooled"]["auroc"]
    images, texts = encode(model, ROWS)
    for column, name in enumerate(NAMES):
        values = [
            roc_auc_score(
                finding_labels(ROWS, NAMES).values[:, column],
                class_scores(images, texts, {name: [prompt]}, "max")["pooled"][images.places(ROWS), 0],
            )
            for prompt in PROMPTS[name]
        ]
        assert found["single"][name]["highest"] == pytest.approx(max(values))
