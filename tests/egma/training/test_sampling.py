"""Order of an epoch: every row at most once, no image twice in a batch, each corpus its share."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.schema import UserError
from egma.training.sampling import EpochPlan, even_batches, gaze_subset

images = st.lists(st.integers(0, 12), min_size=6, max_size=60)


def plan(ids: list[int], batch: int, seed: int = 1, sizes: list[int] | None = None, weights: list[float] | None = None):
    return EpochPlan(np.array(ids), sizes or [len(ids)], weights, batch, seed)


def most_batches(ids: list[int], batch: int) -> int:
    """By trying every number, each image giving a batch at most one reading."""
    counts = [ids.count(one) for one in set(ids)]
    possible = [n for n in range(len(ids) + 1) if sum(min(count, n) for count in counts) >= n * batch]
    return max(possible)


@given(images, st.integers(1, 6), st.integers(0, 5))
def test_no_image_meets_itself_and_no_batch_more_is_possible(ids: list[int], batch: int, epoch: int) -> None:
    if most_batches(ids, batch) == 0:
        with pytest.raises(UserError, match=f"fewer than one batch of {batch} different images"):
            plan(ids, batch).epoch(epoch)
        return
    batches = plan(ids, batch).epoch(epoch)
    assert batches.shape == (most_batches(ids, batch), batch)
    assert len(np.unique(batches)) == batches.size
    for one in batches:
        assert len({ids[row] for row in one}) == batch


def test_epochs_differ_and_repeat_by_seed() -> None:
    first = plan(list(range(40)), 8).epoch(0).tolist()
    assert first == plan(list(range(40)), 8).epoch(0).tolist()
    assert first != plan(list(range(40)), 8).epoch(1).tolist()
    assert first != plan(list(range(40)), 8, seed=2).epoch(0).tolist()


def test_what_an_epoch_leaves_out_differs() -> None:
    left_out = [set(range(45)) - set(plan(list(range(45)), 8).epoch(epoch).ravel()) for epoch in range(12)]
    assert all(len(one) == 5 for one in left_out)
    assert len(set().union(*left_out)) > 25


def test_any_two_rows_may_meet() -> None:
    """Neighbours of the corpus are no more likely to share a batch than others."""
    together = [any({0, 1} <= set(one) for one in plan(list(range(32)), 8).epoch(e).tolist()) for e in range(400)]
    # 7 of the 31 others share a batch: 0.226, standard error 0.021
    assert abs(np.mean(together) - 7 / 31) < 0.07


@given(st.integers(4, 30), st.integers(4, 30), st.floats(0.2, 5), st.integers(0, 6))
def test_each_corpus_has_its_share_and_goes_on_where_it_was(a: int, b: int, weight: float, epochs: int) -> None:
    weighted = plan(list(range(a + b)), 1, sizes=[a, b], weights=[weight, 1])
    counts = [round((a + b) * weight / (weight + 1)), round((a + b) / (weight + 1))]
    rows = [weighted._rows(epoch) for epoch in range(epochs + 1)]
    for one in rows:
        assert [int((one < a).sum()), int((one >= a).sum())] == counts
    seen = np.bincount(np.concatenate(rows), minlength=a + b)
    for part in (seen[:a], seen[a:]):
        assert part.max() - part.min() <= 1


def test_a_corpus_whose_share_is_no_reading_is_refused() -> None:
    with pytest.raises(UserError, match="data_weights gives corpus 2 less than half a reading of an epoch's 30"):
        plan(list(range(30)), 4, sizes=[20, 10], weights=[100, 1])
    assert plan(list(range(30)), 4, sizes=[20, 10], weights=[50, 1]).counts[1] == 1


@given(images, st.integers(1, 4), st.integers(0, 40))
def test_a_batch_is_found_by_its_number_in_the_run(ids: list[int], batch: int, number: int) -> None:
    if most_batches(ids, batch) == 0:
        return
    one = plan(ids, batch)
    run = itertools.chain.from_iterable(one.epoch(epoch) for epoch in itertools.count())
    expected = [rows.tolist() for rows in itertools.islice(run, number, number + 3)]
    found = list(itertools.islice(one.batches(number), 3))
    assert [rows.tolist() for _, rows in found] == expected
    assert all(rows.tolist() in one.epoch(epoch).tolist() for epoch, rows in found)


@given(st.integers(0, 50), st.integers(0, 9))
def test_gaze_subset_keeps_the_share_and_grows(rows: int, seed: int) -> None:
    has_gaze = np.random.default_rng(seed).random(rows) < 0.7
    kept = [gaze_subset(has_gaze, ratio, seed) for ratio in (0, 0.1, 0.5, 1)]
    assert [int(k.sum()) for k in kept] == [round(r * int(has_gaze.sum())) for r in (0, 0.1, 0.5, 1)]
    for fewer, more in itertools.pairwise(kept):
        assert not (fewer & ~more).any()
    assert not (kept[-1] & ~has_gaze).any()


@given(images, st.integers(1, 20))
def test_even_batches_hold_every_row_once_and_no_image_twice(ids: list[int], size: int) -> None:
    batches = even_batches(np.array(ids), size)
    assert sorted(row for batch in batches for row in batch) == list(range(len(ids)))
    lengths = [len(batch) for batch in batches]
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1
    assert all(len({ids[row] for row in batch}) == len(batch) for batch in batches)
    assert len(batches) == max(-(-len(ids) // size), *(ids.count(one) for one in ids))
