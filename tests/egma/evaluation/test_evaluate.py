"""The whole path with models whose figures are known, and the ways to ask for the impossible."""

import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dataset_scripts.schema import FEATURES, Reading, UserError, is_generated
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.reporting.report import PERCENT_LABELS, markdown_report, write_report
from tests.egma.evaluation.fakes import (
    CLASSES,
    PROMPTS,
    Lookup,
    constant_model,
    corpus,
    oracle,
    processor,
    random_model,
    reading,
)


def evaluate(model: Lookup, rows: Any, tasks: Any = None, **settings: Any) -> dict[str, Any]:
    return evaluate_model(model, processor, rows, tasks, **({"prompts": PROMPTS, "bootstrap": 50} | settings))


@pytest.mark.parametrize("score", ["pooled", "late_interaction"])
@pytest.mark.parametrize("order", list(itertools.permutations(CLASSES)))
def test_oracle_scores_one_in_every_class_order(order: tuple[str, ...], score: str) -> None:
    rows = corpus()
    prompts = {name: PROMPTS[name] for name in order}
    results = evaluate(oracle(rows, score), rows, prompts=prompts, classes=order)
    named = ("negation", "laterality", "linear_probe_auroc", "fine_tuning_auroc")
    keys = [key for key in PERCENT_LABELS if key not in named]
    assert {key: results[key] for key in keys} == dict.fromkeys(keys, 1.0)
    assert all(0 < results["intervals"][key][0] < results["intervals"][key][1] == 1 for key in keys)


def test_order_of_classes_prompts_rows_and_batches_changes_nothing() -> None:
    rows = corpus()
    first = evaluate(random_model(rows), rows, training_rows=rows)
    shuffled = random.Random(1).sample(rows, len(rows))
    prompts = {name: PROMPTS[name][::-1] for name in reversed(CLASSES)}
    assert evaluate(random_model(rows), shuffled, prompts=prompts, training_rows=shuffled, batch_size=7) == first


def test_constant_scores_earn_no_more_than_the_constant_predictor() -> None:
    rows = corpus()
    results = evaluate(constant_model(rows), rows)
    constant, chance = results["constant_predictor"], results["chance"]
    assert results["zero_shot_auroc"] == constant["zero_shot_auroc"] == 0.5
    assert results["zero_shot_accuracy"] == pytest.approx(constant["zero_shot_accuracy"])
    assert results["zero_shot_f1"] <= constant["zero_shot_f1"]
    for key in ("recall_at_1", "class_precision_at_1", "text_to_image_class_precision_at_1"):
        assert results[key] == pytest.approx(chance[key], rel=1e-11)
    assert results["details"]["retrieval"]["pooled"]["image_to_text"]["median_rank"]["value"] == (len(rows) + 1) / 2
    assert results["pointing_game"] == pytest.approx(chance["pointing_game"])


def test_random_model_is_at_chance() -> None:
    rows = corpus(200)
    results = evaluate(random_model(rows), rows, bootstrap=300)
    for key in ("zero_shot_auroc", "zero_shot_accuracy", "pointing_game"):
        low, high = results["intervals"][key]
        assert low <= results["chance"][key] <= high
        assert low < results[key] < high
    assert results["recall_at_1"] < 0.05
    methods = results["interval_methods"]
    assert methods["zero_shot_auroc"] == "clustered DeLong, logit" and methods["recall_at_1"] == "Wilson, design effect"
    assert methods["zero_shot_f1"] == "percentile bootstrap" and not any(results["few_patients"].values())


def test_dataset_and_list_of_rows_give_the_same() -> None:
    rows = corpus(9)
    table = Dataset.from_list([dict(row) for row in rows], features=FEATURES)
    assert evaluate(oracle(rows), table) == evaluate(oracle(rows), rows)


def test_seed_moves_the_interval_and_not_the_value() -> None:
    rows = corpus(60)
    first, second = (evaluate(random_model(rows), rows, seed=seed) for seed in (0, 1))
    assert first["zero_shot_auroc"] == second["zero_shot_auroc"]
    assert first["intervals"] != second["intervals"]
    assert evaluate(random_model(rows), rows, bootstrap=0)["intervals"]["zero_shot_auroc"] is None


def test_training_mode_is_left_as_it_was() -> None:
    rows = corpus(6)
    model = oracle(rows)
    model.train()
    evaluate(model, rows)
    assert model.training


def test_tasks_nobody_asked_for_give_their_reason() -> None:
    rows: list[Reading] = [row | {"boxes": []} for row in corpus(6)]
    results = evaluate(oracle(rows), rows)
    assert results["pointing_game"] is None
    assert "box" in results["details"]["pointing_game"]["reason"]
    with pytest.raises(UserError, match="pointing game: no reading marks"):
        evaluate(oracle(rows), rows, ["pointing_game"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["segmentation"]}, "unknown task 'segmentation'"),
        ({"classes": ["Scoliosis"]}, "'Scoliosis' is not in these readings"),
        ({"prompts": {}, "classes": ["Atelectasis"]}, "'Atelectasis' has no prompts"),
        ({"prompts": {"Atelectasis": []}, "classes": ["Atelectasis"]}, "'Atelectasis' has no prompts"),
        ({"prompts": {}, "tasks": ["zero_shot"]}, "no finding of these readings has prompts"),
        ({"batch_size": 0}, "batch size: expected at least 1"),
        ({"bootstrap": -1}, "bootstrap: expected 0 draws or more"),
        ({"prompts_per_class": 0}, "prompts per class: expected at least 1"),
    ],
)
def test_bad_input_is_one_clear_sentence(settings: dict[str, Any], message: str) -> None:
    rows = corpus(6)
    with pytest.raises(UserError, match=message):
        evaluate(oracle(rows), rows, **settings)


def test_a_class_without_positives_is_refused_by_name() -> None:
    rows = [reading(number, findings={"Atelectasis": 0, "Consolidation": number}) for number in range(2)]
    with pytest.raises(UserError, match="'Atelectasis' is present in none"):
        evaluate(oracle(corpus(2)), rows, classes=["Atelectasis"])


def test_report_is_valid_json_and_says_when_data_are_generated(tmp_path: Path) -> None:
    rows = corpus(12)
    results = evaluate(oracle(rows), rows, training_rows=rows) | {"model": {"name": "an oracle"}, "generated": True}
    write_report(results, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["zero_shot_auroc"] == 1.0
    assert written["prompts_per_class"] == {name: 2 for name in CLASSES}
    assert set(written["blind"]["pointing_game"]) == {"finding_prior", "other_image", "centre_gaussian"}
    table = (tmp_path / "results.md").read_text()
    assert table == markdown_report(results)
    assert "Generated data" in table
    assert re.search(r"\| Zero-shot AUROC \| 100\.0 \[\d\d\.\d, 100\.0\] \(few\) \| 50\.0 \| 50\.0 \|", table)
    share = written["image_dependent"]["pointing_game"]
    assert share["against"] == "finding_prior" and share["value"] == 0 and share["n"] == 12
    assert "| Pointing game, image-dependent share | 0.0 [0.0, 0.0], p = 1.000 (few), over finding prior |" in table
    assert "image-dependent share" in (tmp_path / "results.tex").read_text()


def test_generated_is_read_from_the_conversion_report(tmp_path: Path) -> None:
    assert not is_generated(tmp_path)
    (tmp_path / "conversion_report.json").write_text('{"generated": true}')
    assert is_generated(tmp_path)
