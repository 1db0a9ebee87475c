"""A page and a paper from the same tables: LaTeX has every cell that Markdown has."""

import re
from typing import Any

import numpy as np
import pytest

from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.linear_probe import linear_probe, probe_labels
from egma.evaluation.reporting.report import latex_report, markdown_report, tables
from egma.evaluation.reporting.tables import LATEX_ESCAPES, Table
from egma.evaluation.statistics.bootstrap import PatientBootstrap, without_draws
from tests.egma.evaluation.fakes import PROMPTS, corpus, processor, random_model
from tests.egma.evaluation.protocols.test_gaze_agreement import spoken

PLAIN = {escaped: letter for letter, escaped in LATEX_ESCAPES.items()}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Of every task, with another model."""
    shown = [{"findings": row["findings"], "boxes": row["boxes"]} for row in corpus(12)]
    rows = [
        spoken(k, reading_id=f"{k} {name}", reader_id=name) | fields for k, fields in enumerate(shown) for name in "ab"
    ]
    held = [row | {"subject_id": f"held {row['subject_id']}"} for row in corpus(12)]
    others = {"other_model": (random_model(rows, seed=1), processor)}
    made = evaluate_model(
        random_model(rows), processor, rows, training_rows=rows, validation_rows=held, prompts=PROMPTS,
        bootstrap=20, others=others,
    )  # fmt: skip
    made["details"]["linear_probe"] = probe_result()
    return made | {"model": {"name": "a_model"}}


def probe_result() -> dict[str, Any]:
    splits = [corpus(90)[start : start + 30] for start in (0, 30, 60)]
    random = np.random.default_rng(0)
    features = [{row["image_id"]: random.normal(size=3) for row in rows} for rows in splits]
    found: dict[str, Any] = without_draws(
        linear_probe(probe_labels(*splits), (*features,), PatientBootstrap(splits[2], 20), seed=0)  # type: ignore[arg-type]
    )
    return found


def markdown_tables(text: str) -> list[list[list[str]]]:
    found = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    lines = [[line for line in table.splitlines() if not line.startswith("|---")] for table in found]
    return [
        [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
        for table in lines
    ]


def latex_tables(text: str) -> list[list[list[str]]]:
    found = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, flags=re.DOTALL)
    lines = [[line for line in table.splitlines() if line != r"\midrule"] for table in found]
    return [
        [[unescaped(cell.strip()) for cell in line.removesuffix(r" \\").split(" & ")] for line in table]
        for table in lines
    ]


def unescaped(cell: str) -> str:
    return re.sub("|".join(map(re.escape, PLAIN)), lambda match: PLAIN[match.group()], cell)


def test_latex_has_every_cell_of_markdown(results: dict[str, Any]) -> None:
    markdown, latex = markdown_report(results), latex_report(results)
    assert markdown_tables(markdown) == latex_tables(latex)
    titles = re.findall(r"^## (.*)$", markdown, flags=re.MULTILINE)
    assert titles == [unescaped(title) for title in re.findall(r"\\caption\{(.*)\}", latex)[1:]]
    assert len(titles) == len(set(titles)) == len(tables(results))
    for title in (
        "By finding", "Linear probe", "Retrieval by class", "Grounding", "Agreement with gaze",
        "Zero-shot, operating points", "Linear probe, operating points", "AUROC by the choice of prompts",
    ):  # fmt: skip
        assert any(shown.startswith(title) for shown in titles)


def test_a_task_without_a_figure_has_no_table(results: dict[str, Any]) -> None:
    none = results | {"details": {name: {"reason": "none"} for name in results["details"]}}
    assert tables(none) == [] and latex_report(none).count(r"\begin{table}") == 1


def test_columns_of_other_names_leave_their_cells_empty() -> None:
    table = Table.by_name("t", "first", {"a": {"x": "1"}, "b": {"y": "2", "x": "3"}})
    assert table.header == ["first", "a", "b"] and table.rows == [["x", "1", "3"], ["y", "", "2"]]
