"""Wilson's interval against the textbook, the design effect, and the ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from egma_evaluation.statistics.proportions import wilson


@pytest.mark.parametrize(("hits", "count"), [(922, 1000), (3, 5000), (1, 4000)])
def test_independent_entries_have_the_textbook_interval(hits: int, count: int) -> None:
    """The values whose own standard error reaches the observed share."""
    share, found = hits / count, wilson((np.arange(count) < hits).astype(float), np.ones(count))
    for end, (near, far) in zip(found, ((1e-12, share), (share, 1 - 1e-12)), strict=True):
        root = brentq(lambda p: (share - p) ** 2 - 1.96**2 * p * (1 - p) / count, near, far)
        assert end == pytest.approx(root, rel=0.01)


def test_entries_that_agree_within_a_patient_count_once() -> None:
    one, four = np.arange(50) < 20, 4.0 * (np.arange(50) < 20)
    assert wilson(four, np.full(50, 4.0)) == pytest.approx(wilson(one.astype(float), np.ones(50)))
    for hits in (np.zeros(50), np.full(50, 4.0)):
        assert wilson(hits, np.full(50, 4.0)) == pytest.approx(wilson(hits / 4, np.ones(50)))


def test_entries_that_differ_within_a_patient_count_each() -> None:
    """Half of every patient's entries hit: no more than as many independent ones are counted."""
    alone = wilson((np.arange(400) % 2).astype(float), np.ones(400))
    together = wilson(np.full(200, 1.0), np.full(200, 2.0))
    assert together == pytest.approx(alone, abs=0.001)


def test_one_patient_has_no_interval() -> None:
    assert wilson(np.array([1.0, 0.0]), np.array([2.0, 0.0])) is None


parts = arrays(float, 8, elements=st.floats(0, 1))
counts = arrays(float, 8, elements=st.integers(1, 5).map(float))


@given(parts, counts, st.integers(1, 10))
def test_the_share_lies_inside_and_nothing_is_certain(part: np.ndarray, entries: np.ndarray, trials: int) -> None:
    hits = part * entries
    low, high = wilson(hits, entries, trials)
    assert 0 <= low <= hits.sum() / entries.sum() + 1e-12 and hits.sum() / entries.sum() - 1e-12 <= high <= 1
    assert high - low > 0.01
    mirrored = wilson(entries - hits, entries, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-6)
