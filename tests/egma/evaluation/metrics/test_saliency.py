"""The saliency metrics against loops over cells and fixations, and what they say of degenerate maps."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egma.evaluation.metrics.maps import as_distributions, min_max
from egma.evaluation.metrics.saliency import auc_judd, both_aucs, cc, kl, nss, shuffled_auc, sim

SHAPE = (4, 5)
values = arrays(float, SHAPE, elements=st.integers(-3, 3).map(float))  # few values: many ties
positive_maps = arrays(float, SHAPE, elements=st.integers(0, 4).map(float)).filter(lambda part: np.ptp(part) > 0)
counts = arrays(float, SHAPE, elements=st.sampled_from([0.0, 0.0, 1.0, 3.0])).filter(
    lambda part: part.any() and not part.all()
)


def one(metric: Callable[..., Any], *parts: Any, **settings: Any) -> float:
    result = metric(*(np.asarray(part)[None] for part in parts), **settings)
    assert result.shape == (1,)
    return float(result[0])


def points(fixations: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(place) for place in np.argwhere(fixations) for _ in range(int(fixations[tuple(place)]))]


def pairs_won(positives: list[float], negatives: list[float]) -> float:
    won = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    return won / (len(positives) * len(negatives))


@given(values, counts)
def test_nss_by_loop(heat: np.ndarray, fixations: np.ndarray) -> None:
    cells = heat.ravel().tolist()
    mean = sum(cells) / len(cells)
    deviation = math.sqrt(sum((cell - mean) ** 2 for cell in cells) / len(cells))
    places = points(fixations)
    expected = sum((heat[place] - mean) / deviation for place in places) / len(places) if deviation else 0
    assert one(nss, heat, fixations) == pytest.approx(expected, abs=1e-6)


@given(values, counts)
def test_auc_judd_by_pairs(heat: np.ndarray, fixations: np.ndarray) -> None:
    expected = pairs_won(heat[fixations > 0].tolist(), heat[fixations == 0].tolist())
    assert one(auc_judd, heat, fixations) == pytest.approx(expected, abs=1e-6)


@given(values, counts)
def test_auc_judd_between_fixations_by_loop(heat: np.ndarray, fixations: np.ndarray) -> None:
    on, off = heat[fixations > 0], heat[fixations == 0]
    cuts = sorted(set(on.tolist()), reverse=True)
    inner = [(sum(v >= cut for v in off) / len(off), sum(v >= cut for v in on) / len(on)) for cut in cuts]
    curve = pairwise([(0.0, 0.0), *inner, (1.0, 1.0)])
    area = sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in curve)
    assert one(auc_judd, heat, fixations, thresholds="fixations") == pytest.approx(area, abs=1e-6)


@given(arrays(float, SHAPE, elements=st.floats(-1, 1), unique=True), counts)
def test_both_auc_judd_differ_by_less_than_half_a_fixation(heat: np.ndarray, fixations: np.ndarray) -> None:
    difference = one(auc_judd, heat, fixations, thresholds="fixations") - one(auc_judd, heat, fixations)
    assert -1e-9 <= difference <= 1 / (2 * (fixations > 0).sum()) + 1e-9


@given(values, counts, counts)
def test_shuffled_auc_by_pairs(heat: np.ndarray, fixations: np.ndarray, others: np.ndarray) -> None:
    expected = pairs_won([heat[place] for place in points(fixations)], [heat[place] for place in points(others)])
    assert one(shuffled_auc, heat, fixations, others) == pytest.approx(expected, abs=1e-6)


@given(values, positive_maps)
def test_cc_by_loop(heat: np.ndarray, gaze: np.ndarray) -> None:
    first, second = (part.ravel() - part.mean() for part in (heat, gaze))
    norm = math.sqrt(sum(first**2)) * math.sqrt(sum(second**2))
    expected = sum(a * b for a, b in zip(first, second, strict=True)) / norm if norm > 1e-12 else 0
    assert one(cc, heat, gaze) == pytest.approx(expected, abs=1e-6)


@given(positive_maps, positive_maps)
def test_sim_and_kl_by_loop(heat: np.ndarray, gaze: np.ndarray) -> None:
    predicted, seen = ([cell / part.sum() for cell in part.ravel()] for part in (heat, gaze))
    eps = np.finfo(float).eps
    assert one(sim, heat, gaze) == pytest.approx(sum(map(min, predicted, seen)), abs=1e-6)
    divergence = sum(q * math.log(eps + q / (p + eps)) for p, q in zip(predicted, seen, strict=True))
    assert one(kl, heat, gaze) == pytest.approx(divergence, abs=1e-6)


def test_kl_of_two_cells_by_hand() -> None:
    assert one(kl, [[0.5, 0.5]], [[0.25, 0.75]]) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


@given(st.lists(st.tuples(values, counts, counts, positive_maps), min_size=2, max_size=4))
def test_many_maps_at_once_are_each_alone(items: list[tuple[np.ndarray, ...]]) -> None:
    heat, fixations, others, gaze = (np.stack(column) for column in zip(*items, strict=True))
    for metric, parts in (
        (nss, (heat, fixations)),
        (auc_judd, (heat, fixations)),
        (shuffled_auc, (heat, fixations, others)),
        (cc, (heat, gaze)),
        (sim, (as_distributions(heat), gaze)),
        (kl, (as_distributions(heat), gaze)),
    ):
        alone = [one(metric, *(part[place] for part in parts)) for place in range(len(items))]
        np.testing.assert_allclose(metric(*parts), alone, rtol=1e-12, atol=1e-12)


@given(values, st.lists(st.tuples(counts, counts, positive_maps), min_size=1, max_size=4))
def test_one_map_for_all_is_the_same_map_for_each(heat: np.ndarray, items: list[tuple[np.ndarray, ...]]) -> None:
    fixations, others, gaze = (np.stack(column) for column in zip(*items, strict=True))
    shared, each = heat[None], np.stack([heat] * len(items))
    density = as_distributions(shared)
    for metric, truths in ((nss, (fixations,)), (auc_judd, (fixations,)), (shuffled_auc, (fixations, others))):
        np.testing.assert_array_equal(metric(shared, *truths), metric(each, *truths))
    for metric, given_map in ((cc, shared), (sim, density), (kl, density)):
        repeated = np.repeat(given_map, len(items), axis=0)
        np.testing.assert_allclose(metric(given_map, gaze), metric(repeated, gaze), rtol=1e-12, atol=1e-12)
    aucs = both_aucs(shared, fixations, others)
    np.testing.assert_array_equal(aucs, [auc_judd(each, fixations), shuffled_auc(each, fixations, others)])


@given(values, counts, positive_maps)
def test_unit_and_sign_of_cosines_do_not_matter(heat: np.ndarray, fixations: np.ndarray, gaze: np.ndarray) -> None:
    moved = heat / 7 - 5  # all negative
    for metric, truth in ((nss, fixations), (auc_judd, fixations), (cc, gaze)):
        assert one(metric, moved, truth) == pytest.approx(one(metric, heat, truth), abs=1e-9)
    for metric in (sim, kl):
        first, second = (metric(as_distributions(part[None]), gaze[None]) for part in (heat, moved))
        np.testing.assert_allclose(first, second, atol=1e-9)


def test_constant_map_earns_chance() -> None:
    flat, fixations, gaze = np.full((1, *SHAPE), -0.3), np.eye(4, 5)[None], np.arange(20.0).reshape(1, *SHAPE)
    assert nss(flat, fixations) == 0 and cc(flat, gaze) == 0
    assert auc_judd(flat, fixations) == auc_judd(flat, fixations, thresholds="fixations") == 0.5
    assert shuffled_auc(flat, fixations, fixations) == 0.5
    uniform = as_distributions(flat)
    assert uniform == pytest.approx(1 / 20) and min_max(flat).max() == 0
    assert 0 < sim(uniform, gaze)[0] < 1


def test_maximum_of_every_metric() -> None:
    gaze = np.array([[[0.0, 1, 4], [0, 2, 0]]])
    fixations = (gaze == 4).astype(float)
    assert auc_judd(gaze, fixations) == shuffled_auc(gaze, fixations, 1 - fixations) == 1
    assert cc(gaze, gaze) == pytest.approx(1) and sim(gaze, gaze) == pytest.approx(1)
    assert kl(gaze, gaze) == pytest.approx(0, abs=1e-9)


def test_random_map_earns_half_however_few_fixations() -> None:
    random = np.random.default_rng(0)
    maps, fixations = random.random((4000, 8, 8)), np.zeros((4000, 8, 8))
    fixations[:, 3, 3] = 1
    assert auc_judd(maps, fixations).mean() == pytest.approx(0.5, abs=0.02)
    # one fixation: (F + 2) / (2 F + 2) = 3/4, which is why it is not what the protocol uses
    assert auc_judd(maps, fixations, thresholds="fixations").mean() == pytest.approx(0.75, abs=0.02)


GOOD = np.arange(6.0).reshape(1, 2, 3)
SPOT = (GOOD == 5).astype(float)


@pytest.mark.parametrize(
    ("metric", "parts", "message"),
    [
        (nss, (GOOD, 0 * GOOD), "fixations: none"),
        (auc_judd, (GOOD, 0 * GOOD), "fixations: none"),
        (auc_judd, (GOOD, GOOD + 1), "every cell is fixated"),
        (shuffled_auc, (GOOD, SPOT, 0 * GOOD), "other_fixations: none"),
        (nss, (GOOD, -SPOT), "fixations: a negative value"),
        (nss, (GOOD[0], SPOT), r"maps have shape \(2, 3\)"),
        (nss, (np.stack([GOOD[0]] * 2), np.stack([SPOT[0]] * 3)), r"fixations have shape \(3, 2, 3\), expected that"),
        (both_aucs, (GOOD, GOOD + 1, SPOT), "every cell is fixated"),
        (nss, (GOOD, SPOT[:, :1]), r"fixations have shape \(1, 1, 3\), expected that of the maps"),
        (cc, (np.full_like(GOOD, np.nan), GOOD), "maps: a value that is not finite"),
        (cc, (GOOD, np.ones_like(GOOD)), "gaze_maps: the same everywhere"),
        (sim, (-GOOD, GOOD), "maps: a negative value"),
        (kl, (-GOOD, GOOD), "maps: a negative value"),
        (sim, (0 * GOOD, GOOD), "maps: nothing but zeros"),
        (kl, (GOOD, 0 * GOOD), "gaze_maps: nothing but zeros"),
    ],
)
def test_what_has_no_answer_is_refused(metric: Callable[..., Any], parts: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(*parts)


def test_the_bad_map_is_named() -> None:
    with pytest.raises(ValueError, match=r"fixations: none \(map 1\)"):
        nss(np.stack([GOOD[0]] * 2), np.stack([SPOT[0], 0 * SPOT[0]]))
