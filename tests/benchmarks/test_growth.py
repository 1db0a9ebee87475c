"""What the benchmark of the objective compares is the same thing, and its figure is drawn."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import growth
from modeling_egma.losses_egma import contrastive_alignment_loss


def test_the_dense_form_is_the_contrastive_term() -> None:
    patches, sentences = F.normalize(torch.randn(4, 9, 6), dim=-1), F.normalize(torch.randn(8, 6), dim=-1)
    batch = (patches, sentences, torch.arange(4).repeat_interleave(2), torch.tensor(14.3))
    assert float(growth.dense(*batch)) == pytest.approx(float(contrastive_alignment_loss(*batch)), rel=1e-6)


def test_cells_are_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "WIDTH", 8)
    rows = [growth._measure(name, images, 7, torch.device("cpu")) for name in growth.FUNCTIONS for images in (2, 3)]
    assert [row["loss"] for row in rows[::2]] == list(growth.FUNCTIONS)
    assert all(row["seconds"] > 0 and row["gflop"] >= 0 for row in rows)
    growth.draw([row | {"gigabytes": 0.1} for row in rows], tmp_path / "growth.png", "cpu")
    assert (tmp_path / "growth.png").stat().st_size > 1000
