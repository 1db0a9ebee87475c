"""CNR, mIoU and the pointing game of maps against loops over cells, and their degenerate cases."""

import math
from collections.abc import Callable
from statistics import fmean, pvariance
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egma.evaluation.metrics.localisation import cnr, miou, pointing_credit, signed_cnr
from egma.evaluation.metrics.maps import min_max

SHAPE = (4, 5)
cosines = arrays(float, SHAPE, elements=st.integers(-10, 10).map(lambda tenths: tenths / 10))
masks = arrays(bool, SHAPE).filter(lambda part: part.any() and not part.all())


@given(cosines, masks)
def test_cnr_by_loop(heat: np.ndarray, mask: np.ndarray) -> None:
    inside, outside = heat[mask].tolist(), heat[~mask].tolist()
    spread = math.sqrt(pvariance(inside) + pvariance(outside))
    assume(spread > 1e-9 or np.ptp(heat) == 0)
    expected = (fmean(inside) - fmean(outside)) / spread if spread > 1e-9 else 0
    assert signed_cnr(heat[None], mask[None])[0] == pytest.approx(expected, abs=1e-6)
    assert cnr(heat[None], mask[None])[0] == cnr(-heat[None], mask[None])[0] == pytest.approx(abs(expected), abs=1e-6)


@given(cosines, st.lists(masks, min_size=1, max_size=3))
def test_one_map_for_all_is_the_same_map_for_each(heat: np.ndarray, items: list[np.ndarray]) -> None:
    each, marked = np.stack([heat] * len(items)), np.stack(items)
    for metric in (miou, pointing_credit):
        np.testing.assert_array_equal(metric(heat[None], marked), metric(each, marked))
    assume(all(max(np.ptp(heat[mask]), np.ptp(heat[~mask])) > 0 for mask in items) or np.ptp(heat) == 0)
    np.testing.assert_array_equal(signed_cnr(heat[None], marked), signed_cnr(each, marked))


@given(cosines, masks)
def test_miou_by_loop(heat: np.ndarray, mask: np.ndarray) -> None:
    ious = []
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.5):
        above = {place for place in np.ndindex(SHAPE) if heat[place] > threshold}
        marked = {place for place in np.ndindex(SHAPE) if mask[place]}
        ious.append(len(above & marked) / len(above | marked))
    assert miou(heat[None], mask[None])[0] == pytest.approx(fmean(ious), abs=1e-6)


@given(cosines, masks)
def test_pointing_by_loop(heat: np.ndarray, mask: np.ndarray) -> None:
    best = [place for place in np.ndindex(SHAPE) if heat[place] == heat.max()]
    assert pointing_credit(heat[None], mask[None])[0] == pytest.approx(fmean([mask[place] for place in best]))


def test_values_by_hand() -> None:
    heat = np.array([[[1.0, 3.0, -1.0, 1.0]]])
    mask = np.array([[[1, 1, 0, 0]]])
    assert signed_cnr(heat, mask) == pytest.approx(2 / math.sqrt(2))
    assert miou(heat, mask) == pytest.approx(2 / 3)
    assert miou(heat, mask, thresholds=(2.0, 5.0)) == pytest.approx((1 / 2 + 0) / 2)


def test_negative_cosines() -> None:
    """A map whose cosines are all negative is above no threshold as it is, and above them when scaled by itself."""
    mask = np.zeros((1, 4, 4))
    mask[:, :2, :2] = 1
    heat = np.where(mask > 0, -0.1, -0.8)
    assert miou(heat, mask) == 0
    assert miou(min_max(heat), mask) == 1
    assert pointing_credit(heat, mask) == 1


def test_constant_map_earns_no_luck() -> None:
    mask = np.zeros((1, 4, 4))
    mask[:, 0, 0] = 1
    flat = np.full((1, 4, 4), 0.35)
    assert cnr(flat, mask) == 0
    assert pointing_credit(flat, mask) == 1 / 16
    assert miou(flat, mask) == pytest.approx(3 / 5 / 16)  # above three thresholds everywhere
    assert miou(min_max(flat), mask) == 0


GOOD = np.arange(6.0).reshape(1, 2, 3)


@pytest.mark.parametrize(
    ("metric", "heat", "mask", "message"),
    [
        (cnr, GOOD, 0 * GOOD, "no cell is marked"),
        (miou, GOOD, 0 * GOOD, "no cell is marked"),
        (pointing_credit, GOOD, 0 * GOOD, "no cell is marked"),
        (cnr, GOOD, 0 * GOOD + 1, "every cell is marked"),
        (cnr, GOOD > 3, GOOD > 3, "the contrast is infinite"),
        (miou, GOOD, GOOD, "a value other than 0 and 1"),
        (miou, np.full_like(GOOD, np.inf), GOOD > 3, "not finite"),
        (miou, GOOD, GOOD[:, :1] > 1, "expected that of the maps"),
    ],
)
def test_what_has_no_answer_is_refused(metric: Callable[..., Any], heat: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(heat, mask)


def test_no_thresholds() -> None:
    with pytest.raises(ValueError, match="at least one threshold"):
        miou(GOOD, GOOD > 3, thresholds=())
