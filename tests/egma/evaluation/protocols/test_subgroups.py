"""Figures by group, held against the same figures of a part of the rows, and what cannot be grouped."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import roc_auc_score

from dataset_scripts.schema import FEATURES, NEW_COLUMNS, Reading, UserError
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.pointing import peak_credit, pointing_targets, target_maps
from egma.evaluation.protocols.retrieval import distinct_pairs, report_scores
from egma.evaluation.protocols.subgroups import GROUPS, age_band
from egma.evaluation.reporting.report import latex_report, markdown_report
from egma.inference.scores import class_scores
from tests.egma.evaluation.fakes import CLASSES, PROMPTS, corpus, encode, processor, random_model

SEXES, AGES = ("F", "M", None), (0.5, 20.0, 39.9, 80.0, None)


def rows() -> list[Reading]:
    return [
        row | {"sex": SEXES[number % 7 % 3], "age_years": AGES[number % 5], "subject_id": f"p{number // 2}"}
        for number, row in enumerate(corpus(90))
    ]


def evaluate(data: Any, **settings: Any) -> dict[str, Any]:
    model = random_model(rows())
    return evaluate_model(model, processor, data, **({"prompts": PROMPTS, "bootstrap": 50} | settings))


@pytest.mark.parametrize(
    ("years", "band"),
    [(None, None), (0.5, "0-20"), (20, "20-40"), (59.9, "40-60"), (60, "60-80"), (80, "80+"), (119, "80+")],
)
def test_a_band_begins_with_its_first_age_and_ends_before_the_next(years: float | None, band: str | None) -> None:
    assert age_band(years) == band


def test_figures_of_a_group_are_those_of_its_entries() -> None:
    readings = rows()
    results = evaluate(readings, groups=["sex", "age"])
    groups = results["details"]["subgroups"]["groups"]
    images, texts = encode(random_model(readings), readings)
    scores = class_scores(images, texts, PROMPTS, "max")["pooled"][images.places(readings)]
    targets = pointing_targets(readings, PROMPTS)
    hits = peak_credit(target_maps(targets, images, texts), targets)
    pairs = distinct_pairs(readings)
    ranks = report_scores(pairs, images, texts)["pooled"]
    found = np.array([(row > own).sum() == 0 for row, own in zip(ranks, ranks.diagonal(), strict=True)], dtype=float)
    for value in ("F", "M", "unknown"):
        of, sex = groups["sex"][value], None if value == "unknown" else value
        members = [place for place, reading in enumerate(readings) if reading["sex"] == sex]
        assert of["readings"] == len(members) == of["zero_shot"]["n"]
        assert of["patients"] == len({readings[place]["subject_id"] for place in members})
        aurocs = []
        for column, name in enumerate(sorted(CLASSES)):
            truth = [item["value"] for at in members for item in readings[at]["findings"] if item["name"] == name]
            aurocs.append(roc_auc_score(truth, scores[members, column]))
        assert of["zero_shot"]["value"] == pytest.approx(np.mean(aurocs)) and of["zero_shot"]["classes"] == 3
        own = [place for place, target in enumerate(targets) if target.reading["sex"] == sex]
        assert of["pointing_game"]["value"] == pytest.approx(hits[own].mean())
        queries = [place for place, pair in enumerate(pairs) if pair["sex"] == sex]
        assert of["retrieval"]["value"] == pytest.approx(found[queries].mean()) and of["retrieval"]["n"] == len(queries)
        low, high = of["zero_shot"]["interval"]
        assert low < of["zero_shot"]["value"] < high
    assert set(groups["age"]) == {"0-20", "20-40", "80+", "unknown"}
    assert sum(of["readings"] for of in groups["age"].values()) == len(readings)


def test_the_headline_is_the_same_with_and_without_groups() -> None:
    with_groups, without = evaluate(rows(), groups=["sex"]), evaluate(rows())
    assert with_groups["details"].pop("subgroups") and with_groups == without


def test_tables_show_counts_intervals_and_marks() -> None:
    few = [row | {"sex": "F" if number < 8 else "M"} for number, row in enumerate(rows())]
    results = evaluate(few, groups=["sex"])
    text = markdown_report(results)
    (line,) = (line for line in text.splitlines() if line.startswith("| sex: F"))
    assert "(few)" in line and "n = 8" in line and "| 8 | 4 |" in line and "[" in line
    assert "## By group" in text and "sex: F" in latex_report(results)


def test_only_the_tasks_that_were_named() -> None:
    groups = evaluate(rows(), tasks=["pointing_game"], groups=["sex"])["details"]["subgroups"]["groups"]
    assert set(groups["sex"]["F"]) == {"readings", "patients", "pointing_game"}
    with pytest.raises(UserError, match="subgroups: one of zero_shot, pointing_game, retrieval is needed"):
        evaluate(rows(), tasks=["class_retrieval"], groups=["sex"])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["colour"], "unknown group 'colour'; expected sex, age, view, reader, source"),
        (["sex", "reader"], "group 'reader': no reading here says it; they can be told by sex, age, source"),
    ],
)
def test_what_cannot_be_grouped_is_one_sentence(groups: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(rows(), groups=groups)


def test_rows_from_before_can_be_evaluated_and_not_grouped_by_sex() -> None:
    old = [{name: value for name, value in row.items() if name not in NEW_COLUMNS} for row in corpus(9)]
    features = FEATURES.copy()
    for name in NEW_COLUMNS:
        del features[name]
    for data in (old, Dataset.from_list(old, features=features)):
        assert evaluate(data)["zero_shot_auroc"] is not None
        with pytest.raises(UserError, match="they can be told by source"):
            evaluate(data, groups=["sex"])
    assert set(GROUPS) == {"sex", "age", "view", "reader", "source"}
