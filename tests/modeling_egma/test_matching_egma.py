"""Text-conditioned pooling, soft gaze and mapping over the batch, against loops over scalars."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from modeling_egma import EgmaConfig, losses_egma, matching_egma

from . import naive_objective as naive
from .test_losses_egma import CASES, TOLERANCE, Batch, difference, make_batch, with_gradients

WEIGHTS = {"contrastive": 0.0, "gaze": 0.0, "mapping": 0.0}
# equal texts within a report and across reports, and none
TEXTS = {"all distinct": lambda count: None, "equal texts": lambda count: torch.arange(count) % 3}


def objective_of(term: str):
    weights = {f"{name}_weight": float(name == term) for name in WEIGHTS}
    config = SimpleNamespace(**weights, interaction="cabs", gaze_target="soft", mapping="batch", mapping_threshold=0)

    def value(batch: Batch, scale: torch.Tensor, texts: torch.Tensor | None = None) -> torch.Tensor:
        loss, terms = losses_egma.alignment_objective(config, *batch.packed, *batch.gaze, scale, None, texts)
        assert terms.keys() == {term}
        return loss

    return value


def naive_value(term: str, batch: Batch, scale: torch.Tensor, texts: torch.Tensor | None) -> torch.Tensor:
    rows = batch.rows.tolist()
    numbers = list(range(len(rows))) if texts is None else texts.tolist()
    images, sentences = list(batch.patches), list(batch.sentences)
    recorded = [False] * len(rows) if batch.mask is None else [bool(batch.mask[row]) for row in rows]
    maps = batch.heatmaps
    looked = [recorded[n] and maps is not None and bool(maps[n].max() > 0) for n in range(len(rows))]
    if term == "contrastive":
        return naive.pooled_contrastive(images, sentences, rows, numbers, scale)
    if term == "gaze":
        return naive.soft_gaze(images, sentences, rows, maps, looked, scale)
    return naive.batch_mapping(images, sentences, rows, numbers, maps, looked, scale)


MORE = {
    "more patches than dimensions": make_batch((2, 3), cells=6, width=3, seed=5),
    "fewer patches than dimensions": make_batch((2, 3), cells=4, width=9, seed=5),
    "an empty map": replace(make_batch((2, 2)), heatmaps=make_batch((2, 2)).heatmaps.index_fill(0, torch.tensor(1), 0)),
}


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("term", WEIGHTS)
@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_term_equals_loops_over_scalars(case: str, term: str, texts: str, record_difference) -> None:
    batch = (CASES | MORE)[case]
    ids = TEXTS[texts](len(batch.rows))
    value, gradients = with_gradients(lambda b, scale: objective_of(term)(b, scale, ids), batch, 3.0)
    expected, naive_gradients = with_gradients(lambda b, scale: naive_value(term, b, scale, ids), batch, 3.0)
    worst = max(difference(a, b) for a, b in zip((value, *gradients), (expected, *naive_gradients), strict=True))
    record_difference("terms beyond the paper, values and gradients to loops over scalars", worst)
    assert worst < TOLERANCE


@pytest.mark.parametrize("cells", [4, 9])
def test_pooled_cosine_is_that_of_the_pooled_patches(cells: int) -> None:
    batch = make_batch((2, 3), cells=cells, width=5, seed=2)
    weights = torch.softmax(7 * batch.sentences @ batch.patches.mT, dim=-1)
    explicit = (F.normalize(weights @ batch.patches, dim=-1) * batch.sentences).sum(dim=-1)
    assert difference(matching_egma.pooled_cosines(batch.patches, batch.sentences, 7.0), explicit) < 1e-14


def test_tiles_of_images_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch((2, 1, 3), seed=4)
    whole = [with_gradients(objective_of(term), batch) for term in WEIGHTS]
    monkeypatch.setattr(matching_egma, "TILE_BYTES", 1)
    for (value, gradients), term in zip(whole, WEIGHTS, strict=True):
        again, others = with_gradients(objective_of(term), batch)
        assert max(difference(a, b) for a, b in zip((value, *gradients), (again, *others), strict=True)) < 1e-12


@given(seed=st.integers(0, 50), counts=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_extreme_scales_give_finite_losses_and_gradients(seed: int, counts: list[int]) -> None:
    batch = make_batch(counts, seed=seed, dtype=torch.float32)
    for term in WEIGHTS:
        value, gradients = with_gradients(objective_of(term), batch, 100.0)
        assert value >= 0 and all(bool(one.isfinite().all()) for one in (value, *gradients))


def test_other_settings_leave_the_papers_objective_alone(tiny_model) -> None:
    assert (EgmaConfig().interaction, EgmaConfig().gaze_target, EgmaConfig().mapping) == ("filip", "labels", "within")
    with pytest.raises(Exception, match="interaction"):
        EgmaConfig(interaction="best patch")
