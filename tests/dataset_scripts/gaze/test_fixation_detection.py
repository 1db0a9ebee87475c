"""I-DT against a plain loop over samples, and what must hold of fixations whatever the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.gaze.fixation_detection import detect_fixations

TICK = 1 / 128  # exact in binary, as are whole positions: shifts change no comparison
DISPERSION = 10.0

steps = st.sampled_from([1, 1, 1, 1, 1, 2, 2, 3, 9, 10, 30])  # 9 ticks are 70 ms, a dropout; 10 are 78 ms, a gap
moves = st.one_of(st.integers(-2, 2), st.integers(-2, 2), st.integers(-60, 60))
recordings = st.lists(st.tuples(steps, moves, moves), max_size=150).map(
    lambda samples: np.cumsum(np.array(samples, dtype=np.float64).reshape(-1, 3), axis=0).T * [[TICK], [1.0], [1.0]]
)
CASES = settings(max_examples=300)


def naive(x, y, time, dispersion):
    """The published pseudocode, sample by sample, on segments without a gap."""
    fixations, segment = [], []
    segments = [segment]
    for index in range(len(time)):
        if segment and time[index] - time[segment[-1]] > 0.075 + 1e-6:
            segment = []
            segments.append(segment)
        segment.append(index)

    def extent(window):
        return sum(max(axis[i] for i in window) - min(axis[i] for i in window) for axis in (x, y))

    for points in segments:
        while points:
            window = points[:1]
            while len(window) < len(points) and time[window[-1]] - time[window[0]] < 0.1 - 1e-6:
                window = points[: len(window) + 1]
            if time[window[-1]] - time[window[0]] < 0.1 - 1e-6:
                break
            if extent(window) > dispersion:
                points = points[1:]
                continue
            while len(window) < len(points) and extent(points[: len(window) + 1]) <= dispersion:
                window = points[: len(window) + 1]
            centre = [sum(axis[i] for i in window) / len(window) for axis in (x, y)]
            fixations.append([*centre, time[window[0]], time[window[-1]] - time[window[0]]])
            points = points[len(window) :]
    return np.array(fixations).reshape(-1, 4)


def detect(samples, dispersion=DISPERSION):
    time, x, y = samples
    found = detect_fixations(x, y, time, dispersion)
    return np.stack([found[name] for name in ("x", "y", "start", "duration")], axis=1)


def still(start, count, x=0.0, y=0.0, interval=0.01):
    """(3, count): samples of an eye that does not move."""
    return np.stack([start + interval * np.arange(count), np.full(count, x), np.full(count, y)])


@CASES
@given(recordings, st.sampled_from([1.0, 3.0, 10.0, 50.0]))
def test_equals_the_plain_loop(samples, dispersion):
    time, x, y = samples
    np.testing.assert_allclose(detect(samples, dispersion), naive(x, y, time, dispersion), rtol=0, atol=1e-9)


def test_equals_the_plain_loop_where_many_fixations_are_long():
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.0005, 0.004, 3000))
    centres = np.repeat(rng.uniform(0, 1000, (12, 2)), 250, axis=0)
    x, y = (centres + rng.normal(0, 2, centres.shape)).T
    found = detect((time, x, y), 25.0)
    assert len(found) >= 12 and found[:, 3].max() > 0.4
    np.testing.assert_allclose(found, naive(x, y, time, 25.0), rtol=0, atol=1e-9)


@CASES
@given(recordings)
def test_fixations_do_not_overlap_and_fit_in_the_recording(samples):
    time, x, y = samples
    found = detect(samples)
    start, end = found[:, 2], found[:, 2] + found[:, 3]
    assert (found[:, 3] >= 0.1 - 1e-6).all() and (end[:-1] < start[1:] + 1e-12).all()
    if len(found):
        assert found[:, 3].sum() <= time[-1] - time[0] + 1e-9
        assert x.min() <= found[:, 0].min() and found[:, 0].max() <= x.max()
        assert y.min() <= found[:, 1].min() and found[:, 1].max() <= y.max()


@CASES
@given(recordings)
def test_no_gap_lies_in_a_fixation(samples):
    time = samples[0]
    for _, _, start, duration in detect(samples):
        inside = time[(time >= start) & (time <= start + duration + 1e-9)]
        assert np.diff(inside).max() <= 0.075 + 1e-6


@CASES
@given(recordings, st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(-(10**6), 10**6))
def test_shifts_of_place_and_time_shift_the_fixations(samples, dx, dy, ticks):
    moved = detect(samples + np.array([[ticks * TICK], [dx], [dy]]))
    np.testing.assert_allclose(moved, detect(samples) + np.array([dx, dy, ticks * TICK, 0]), rtol=0, atol=1e-7)


@CASES
@given(recordings, st.sampled_from([0.25, 2.0, 64.0]))
def test_unit_of_position_does_not_matter(samples, scale):
    scaled = detect(samples * np.array([[1.0], [scale], [scale]]), DISPERSION * scale)
    np.testing.assert_allclose(scaled, detect(samples) * [scale, scale, 1, 1], rtol=1e-12)


def test_resting_eye_is_one_fixation_from_first_to_last_sample():
    np.testing.assert_allclose(detect(still(2.0, 500, x=7.0, y=-3.0)), [[7.0, -3.0, 2.0, 4.99]])


@pytest.mark.parametrize(("gap", "fixations"), [(0.06, 1), (0.075, 1), (0.076, 2), (0.3, 2)])
def test_blink_splits_and_dropout_does_not(gap, fixations):
    before = still(0.0, 31)
    found = detect(np.concatenate([before, still(before[0, -1] + gap, 31)], axis=1))
    assert len(found) == fixations
    assert found[:, 3].sum() == pytest.approx(0.6 if fixations == 2 else 0.6 + gap)


def test_blink_cuts_a_short_rest_into_none():
    assert len(detect(np.concatenate([still(0.0, 10), still(0.2, 10)], axis=1))) == 0
    assert len(detect(np.concatenate([still(0.0, 11), still(0.3, 10)], axis=1))) == 1


def test_two_places_are_two_fixations():
    found = detect(np.concatenate([still(0.0, 30), still(0.3, 30, x=50.0)], axis=1))
    np.testing.assert_allclose(found, [[0, 0, 0, 0.29], [50, 0, 0.3, 0.29]], atol=1e-12)


def test_extent_is_width_plus_height():
    corner = np.concatenate([still(0.0, 20), still(0.2, 20, x=6.0, y=6.0)], axis=1)
    assert len(detect(corner, 12.0)) == 1 and len(detect(corner, 11.9)) == 2


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_too_few_samples_are_no_fixation(count):
    assert detect(still(0.0, count)).shape == (0, 4)
