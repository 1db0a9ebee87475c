"""The simulation at a tiny size: what it writes, that it sees a bad interval, and its grid."""

import json
from pathlib import Path

import pytest

from benchmarks import coverage
from benchmarks.coverage import Cell, auroc_cells, measured, run, share_cells


def test_cells_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [Cell(60, 2, 0.1, 0.9), Cell(60, 1, None, 0.02), Cell(60, 1, 0.1, 0.95, 0.05, 3)]
    results = run("tiny", cells, tmp_path, repetitions=60)
    assert json.loads((tmp_path / "coverage_tiny.json").read_text()) == results
    assert all(found["coverage_holds"] and not found["type_one_too_high"] for found in results)
    assert "| 60 | 2 | 0.1 | 0.9 |" in capsys.readouterr().out


@pytest.mark.parametrize("cell", [Cell(200, 2, 0.1, 0.95), Cell(200, 1, None, 0.5)])
def test_too_narrow_an_interval_is_seen(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "auroc_interval", lambda _: ((0.96, 0.99), ""))
    monkeypatch.setattr(coverage, "wilson", lambda *_: (0.51, 0.53))
    assert not measured(cell, 100)["coverage_holds"]


def test_grid_spans_what_it_should() -> None:
    cells = auroc_cells()
    assert {cell.patients for cell in cells} == {60, 200, 600, 2000} and {cell.images for cell in cells} == {1, 2}
    assert {0.03, 0.5} <= {cell.prevalence for cell in cells} and {0.5, 0.99} <= {cell.value for cell in cells}
    assert all(cell.prevalence is None for cell in share_cells())
