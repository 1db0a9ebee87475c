"""Tables, and the model card's entries: what goes in comes out."""

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given
from hypothesis import strategies as st

from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.reporting.model_index import METRIC_TYPES, eval_results
from egma.evaluation.reporting.report import HEADLINE_LABELS, headline_rows, latex_report, markdown_report
from egma.evaluation.reporting.tables import latex_table, markdown_table
from tests.egma.evaluation.fakes import PROMPTS, corpus, oracle, processor, random_model


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    rows = corpus(30)
    others = {"other_model": (random_model(rows), processor)}
    made = evaluate_model(
        oracle(rows), processor, rows, training_rows=rows, prompts=PROMPTS, bootstrap=20, others=others
    )
    return made | {"model": {"name": "a_model"}, "generated": True}


@given(st.lists(st.text(max_size=8), min_size=2, max_size=3))
def test_latex_is_balanced_and_escaped(cells: list[str]) -> None:
    table = latex_table(cells, [cells], "100 % of a_b & c")
    plain = re.sub(r"\\[\\{}&%$#_]", "", table)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert r"100 \% of a\_b \& c" in table
    body = table.split(r"\toprule")[1].split(r"\bottomrule")[0]
    # as many separators in every row as there are columns less one
    rows = [re.sub(r"\\&", "", row) for row in body.split(" \\\\\n") if row.strip("\n ") and "midrule" not in row]
    assert all(row.count(" & ") >= len(cells) - 1 for row in rows)


def test_markdown_keeps_its_columns() -> None:
    table = markdown_table(["a|b", "c"], [["1", "2"]])
    assert table == "| a\\|b | c |\n|---|---|\n| 1 | 2 |"


def test_card_entries_are_the_results_figures_after_a_round_trip(results: dict[str, Any]) -> None:
    entries = eval_results(results)
    data = ModelCardData(model_name="a_model", eval_results=entries)
    back = ModelCard(f"---\n{data.to_yaml()}\n---\n# a model").data.eval_results
    by_label = {label: key for key, label in HEADLINE_LABELS.items()}
    found = {by_label[entry.metric_name]: entry.metric_value for entry in back}
    assert found == {key: results[key] for key in HEADLINE_LABELS if results[key] is not None}
    assert all("generated data" in entry.dataset_name for entry in back)
    assert all(entry.metric_args["n"] > 0 and entry.metric_args["seed"] == 0 for entry in back)
    assert METRIC_TYPES.keys() == HEADLINE_LABELS.keys()


def test_other_models_and_differences_stand_in_every_table(results: dict[str, Any]) -> None:
    header, rows = headline_rows(results)
    assert header[:4] == ["figure", "model", "other_model", "model - other_model"]
    auroc = next(row for row in rows if row[0] == "Zero-shot AUROC")
    assert re.fullmatch(r"100\.0 \[\d\d\.\d, 100\.0\] \(few\)", auroc[1])
    assert re.search(r"\], p = 0\.\d{3}, by Holm \d\.\d{3}( \(few\))?$", auroc[3])
    text = markdown_report(results, ["figures/roc.png"])
    assert "Generated data" in text and "![roc](figures/roc.png)" in text and "## Retrieval by class" in text
    latex = latex_report(results)
    assert r"other\_model" in latex and "Generated data" in latex
