"""The gaze matrix against numerical integration, and geometry that takes fixations along with the picture."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm

from modeling_egma.gaze_egma import (
    compose,
    frame_affine,
    frame_crop,
    gaze_matrices,
    gaze_matrix,
    invert,
    square_frame,
    transform_fixations,
    transform_points,
)

FRAME, GRID = 112, 7
PATCH = FRAME // GRID


def recording(*rows, **more):
    """Fixations given as (x, y, start, duration)."""
    columns = dict(zip(("x", "y", "start", "duration"), zip(*rows, strict=True), strict=True)) if rows else {}
    return {name: list(columns.get(name, [])) for name in ("x", "y", "start", "duration")} | more


def naive_gaze_matrix(fixations, spans, grid, sigma=0.05, lead=0.0):
    """Cell by cell from docs/method.md, with the normal distribution of scipy."""
    count = len(fixations["x"])
    shown = [(0.0, 1.0, 0.0, 1.0)] * count
    if "x_min" in fixations:
        shown = list(zip(*(fixations[name] for name in ("x_min", "x_max", "y_min", "y_max")), strict=True))

    def share(centre, width, low, high, cell):
        left, right = max(cell / grid, low), min((cell + 1) / grid, high)
        return norm.cdf(right, centre, width) - norm.cdf(left, centre, width) if left < right else 0.0

    def draw(weights):
        cells = np.zeros((grid, grid))
        for n, weight in enumerate(weights):
            x, y = fixations["x"][n], fixations["y"][n]
            if not (0 <= x <= 1 and 0 <= y <= 1):
                continue
            sigma_x = fixations["sigma_x"][n] if "sigma_x" in fixations else sigma
            sigma_y = fixations["sigma_y"][n] if "sigma_y" in fixations else sigma
            for row in range(grid):
                for column in range(grid):
                    inside = share(x, sigma_x, *shown[n][:2], column) * share(y, sigma_y, *shown[n][2:], row)
                    cells[row, column] += weight * inside
        return cells

    maps = []
    for span in spans:
        overlaps = [0.0] * count
        if span is not None:
            for n in range(count):
                start, end = fixations["start"][n], fixations["start"][n] + fixations["duration"][n]
                overlaps[n] = max(0.0, min(end, span[1] - lead) - max(start, span[0] - lead))
        cells = draw(overlaps)
        if not cells.any():
            cells = draw(fixations["duration"])
        maps.append(cells / cells.max() if cells.any() else cells)
    return np.array(maps).reshape(-1, grid, grid)


FRACTION = st.floats(-0.1, 1.1)
FIXATION = st.tuples(FRACTION, FRACTION, st.floats(0, 8), st.floats(0, 2))
SPAN = st.none() | st.tuples(st.floats(0, 8), st.floats(0, 3)).map(lambda span: (span[0], span[0] + span[1]))
RECORDING = st.lists(FIXATION, max_size=5).map(lambda rows: recording(*rows))


def assert_equals_integration(fixations, spans, grid, sigma, lead):
    maps = gaze_matrix(fixations, spans, grid, sigma, lead)
    assert maps.dtype == torch.float32
    assert maps.shape == (len(spans), grid, grid)
    assert np.abs(maps.numpy() - naive_gaze_matrix(fixations, spans, grid, sigma, lead)).max(initial=0) < 1e-6


@given(RECORDING, st.lists(SPAN, max_size=4), st.sampled_from([1, 2, 7]), st.sampled_from([0.02, 0.05, 0.3]))
def test_gaze_matrix_of_odd_recordings_equals_numerical_integration(fixations, spans, grid, sigma):
    assert_equals_integration(fixations, spans, grid, sigma, lead=0.4)


@pytest.mark.parametrize("seed", range(5))
def test_gaze_matrix_of_ordinary_recordings_equals_numerical_integration(seed):
    random = np.random.default_rng(seed)
    duration = random.uniform(0.1, 0.9, 12)
    fixations = recording(*zip(*random.uniform(0, 1, (2, 12)), np.cumsum(duration) - duration, duration, strict=True))
    cuts = np.sort(random.uniform(0, duration.sum(), 5)).tolist()
    spans = [*itertools.pairwise(cuts), None]
    assert_equals_integration(fixations, spans, GRID, sigma=0.05, lead=random.uniform(-1, 1))


def test_own_widths_and_the_shown_rectangle_equal_numerical_integration():
    fixations = recording((0.3, 0.4, 0, 1), (0.7, 0.2, 1, 1), sigma_x=[0.02, 0.2], sigma_y=[0.1, 0.05])
    fixations |= {"x_min": [0.0, 0.5], "y_min": [0.35, 0.0], "x_max": [0.31, 1.0], "y_max": [1.0, 0.25]}
    spans = [(0.0, 2.0), (1.0, 2.0)]
    assert np.abs(gaze_matrix(fixations, spans, GRID).numpy() - naive_gaze_matrix(fixations, spans, GRID)).max() < 1e-6


@given(st.lists(st.tuples(RECORDING, st.lists(SPAN, max_size=4)), max_size=4))
def test_batched_form_equals_one_by_one(readings):
    together = gaze_matrices([r for r, _ in readings], [s for _, s in readings], GRID, 0.1, 0.2)
    for (fixations, spans), maps in zip(readings, together, strict=True):
        assert torch.allclose(maps, gaze_matrix(fixations, spans, GRID, 0.1, 0.2), rtol=0, atol=1e-6)


def brightest(heatmap):
    return divmod(int(heatmap.argmax()), heatmap.shape[-1])


TWO_LOOKS = recording((1.5 / 7, 1.5 / 7, 0, 2), (5.5 / 7, 4.5 / 7, 2, 3))


def test_a_fixation_weighs_the_seconds_it_shares_with_the_sentence():
    (heatmap,) = gaze_matrix(TWO_LOOKS, [(1.0, 2.5)], GRID)
    assert brightest(heatmap) == (1, 1)
    assert heatmap[4, 5] == pytest.approx(0.5, abs=1e-6)


def test_lead_moves_the_window_earlier():
    late = gaze_matrix(TWO_LOOKS, [(2.5, 4.0)], GRID)
    early = gaze_matrix(TWO_LOOKS, [(2.5, 4.0)], GRID, lead=2.2)
    assert (brightest(late), brightest(early)) == ((4, 5), (1, 1))


@pytest.mark.parametrize("span", [None, (10.0, 11.0), (1.0, 1.0)])
def test_a_sentence_without_fixation_or_time_takes_the_whole_recording(span):
    (heatmap,) = gaze_matrix(TWO_LOOKS, [span], GRID)
    (whole,) = gaze_matrix(TWO_LOOKS, [(0.0, 5.0)], GRID)
    assert torch.equal(heatmap, whole)


@pytest.mark.parametrize(
    "fixations",
    [
        recording(),
        recording((1.2, 0.5, 0, 1), (0.5, -0.1, 0, 1)),
        recording((0.5, 0.5, 0, 0)),
        recording((0.5, 0.5, 0, 1), x_min=[0.5], y_min=[0.2], x_max=[0.5], y_max=[0.9]),
    ],
    ids=["empty", "outside the frame", "no duration", "nothing shown"],
)
def test_a_recording_with_nothing_left_is_all_zero(fixations):
    maps = gaze_matrix(fixations, [(0.0, 1.0), None], GRID)
    assert maps.shape == (2, GRID, GRID)
    assert not maps.any()


def test_nothing_is_drawn_outside_the_shown_rectangle():
    shown = {"x_min": [2 / 7], "y_min": [0.0], "x_max": [1.0], "y_max": [3 / 7]}
    (heatmap,) = gaze_matrix(recording((0.3, 0.4, 0, 1), **shown), [None], GRID, sigma=0.5)
    assert (heatmap[3:] == 0).all() and (heatmap[:, :2] == 0).all()
    assert (heatmap[:3, 2:] > 0).all()


def test_a_wide_sigma_x_spreads_along_x_only():
    (heatmap,) = gaze_matrix(recording((0.5, 0.5, 0, 1), sigma_x=[0.3], sigma_y=[0.01]), [None], GRID)
    assert heatmap[3, 0] > 0.3
    assert heatmap[0, 3] < 1e-6


NAN = math.nan
BAD_RECORDINGS = {
    "NaN": (recording((0.5, NAN, 0, 1)), "fixation 0 has y = nan"),
    "infinite": (recording((0.5, 0.5, 0, 1), (0.5, 0.5, math.inf, 1)), "fixation 1 has start = inf"),
    "negative duration": (recording((0.5, 0.5, 0, -1)), "fixation 0 has duration -1.0"),
    "missing column": ({"x": [0.5], "y": [0.5], "start": [0]}, "lack the column.*duration"),
    "null column": (recording((0.5, 0.5, 0, 1)) | {"start": None}, "lack the column.*start"),
    "unequal lengths": (recording((0.5, 0.5, 0, 1)) | {"y": [0.1, 0.2]}, "column 'y' has shape"),
    "sigma of zero": (recording((0.5, 0.5, 0, 1), sigma_x=[0.0], sigma_y=[0.1]), "sigma_x = 0.0"),
    "one sigma": (recording((0.5, 0.5, 0, 1), sigma_x=[0.1]), "sigma_x but not all of sigma_x, sigma_y"),
    "half a rectangle": (recording((0.5, 0.5, 0, 1), x_min=[0.1], x_max=[1]), "x_min, x_max but not all of"),
}


@pytest.mark.parametrize("case", BAD_RECORDINGS)
def test_a_bad_recording_is_refused_by_name(case):
    fixations, message = BAD_RECORDINGS[case]
    with pytest.raises(ValueError, match=message):
        gaze_matrix(fixations, [None], GRID)


BAD_SPANS = {
    "backwards": ((2.0, 1.0), "span 1 runs backwards"),
    "NaN": ((0.0, NAN), "span 1 is"),
    "infinite": ((0.0, math.inf), "span 1 is"),
    "half null": ((None, 1.0), "span 1 is"),
    "three numbers": ((0.0, 1.0, 2.0), "span 1 is"),
}


@pytest.mark.parametrize("case", BAD_SPANS)
def test_a_bad_span_is_refused_by_number(case):
    span, message = BAD_SPANS[case]
    with pytest.raises(ValueError, match=message):
        gaze_matrix(TWO_LOOKS, [None, span], GRID)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"grid": 0}, "grid"), ({"sigma": 0.0}, "sigma"), ({"sigma": NAN}, "sigma"), ({"lead": math.inf}, "lead")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        gaze_matrix(TWO_LOOKS, [None], **({"grid": GRID} | settings))


def test_recordings_without_as_many_lists_of_spans_are_refused():
    with pytest.raises(ValueError, match="spans for each of the 2 recordings, got 1"):
        gaze_matrices([TWO_LOOKS, TWO_LOOKS], [[None]], GRID)


# geometry

SIZES = {"square": (300, 300), "wide": (420, 260), "tall": (251, 380), "odd": (301, 224)}
AFFINES = {
    "none": None,
    "rotation": frame_affine(rotation_degrees=17),
    "scale": frame_affine(scale=0.8),
    "shift": frame_affine(shift=(0.1, -0.07)),
    "flip": frame_affine(flip=True),
    "crop": frame_crop(0.1, 0.2, 0.9, 0.95),
    "all of frame_affine": frame_affine(-23, 1.2, (-0.05, 0.1), flip=True),
    "crop, then rotation and flip": compose(frame_affine(31, flip=True), frame_crop(0.0, 0.1, 0.8, 0.9)),
    "flip, then crop": compose(frame_crop(0.2, 0.05, 1.0, 0.8), frame_affine(flip=True, shift=(0.1, 0))),
}
EVERYWHERE = st.floats(0.03, 0.97)


def spot(size, x, y):
    """Black picture with a round white blur at (x, y), in fractions of the picture."""
    width, height = size
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    away = (columns[None] - x * width) ** 2 + (rows[:, None] - y * height) ** 2
    return Image.fromarray(np.uint8(255 * np.exp(-away / (2 * 7.0**2))))


def seen(processor, size, x, y, affine):
    """Brightness of the frame, (H, W) in [0, 1], and the gaze matrix of a fixation on the spot."""
    batch = processor(
        images=[spot(size, x, y)],
        text=[["clear ."]],
        gaze=[recording((x, y, 0, 1))],
        spans=[[(0, 1)]],
        frame_affines=None if affine is None else [affine],
    )
    mean, std = processor.image_processor.image_mean[0], processor.image_processor.image_std[0]
    return batch["pixel_values"][0, 0] * std + mean, batch["gaze_heatmaps"][0], bool(batch["gaze_mask"][0])


def place_in_frame(size, x, y, affine):
    """Where the transformed coordinates say that the spot lies, in frame fractions."""
    whole = square_frame(*size) if affine is None else compose(affine, square_frame(*size))
    x, y = transform_points(whole, torch.tensor(x).double(), torch.tensor(y).double())
    return float(x), float(y)


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("size", SIZES)
@given(x=EVERYWHERE, y=EVERYWHERE)
@example(x=0.5, y=0.5)
def test_a_look_at_a_bright_spot_lands_in_the_patch_of_the_spot(processor, size, affine, x, y):
    place = place_in_frame(SIZES[size], x, y, AFFINES[affine])
    # a spot on a border between patches, or outside the frame, has no one patch
    assume(all(0 < fraction < 1 and 0.1 < (fraction * GRID) % 1 < 0.9 for fraction in place))
    frame, heatmap, has_gaze = seen(processor, SIZES[size], x, y, AFFINES[affine])
    patches = frame.unflatten(0, (GRID, PATCH)).unflatten(2, (GRID, PATCH)).mean(dim=(1, 3))
    assert has_gaze
    assert brightest(patches) == brightest(heatmap) == (int(place[1] * GRID), int(place[0] * GRID))


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("size", SIZES)
@given(x=EVERYWHERE, y=EVERYWHERE)
def test_transformed_coordinates_hit_the_spot_within_half_a_pixel(processor, size, affine, x, y):
    place = place_in_frame(SIZES[size], x, y, AFFINES[affine])
    # all of the spot must lie inside the picture and the frame, else its centre of mass is not its centre
    assume(all(0.12 < fraction < 0.88 for fraction in (*place, x, y)))
    frame, _, _ = seen(processor, SIZES[size], x, y, AFFINES[affine])
    weight = frame.double().clamp(min=0.02) - 0.02
    middles = torch.arange(FRAME).double() + 0.5
    centroid = (weight.sum(0) @ middles / weight.sum(), weight.sum(1) @ middles / weight.sum())
    for found, expected in zip(centroid, place, strict=True):
        assert abs(float(found) - expected * FRAME) < 0.5


def test_a_fixation_that_an_augmentation_moves_out_leaves_no_gaze(processor):
    _, heatmap, has_gaze = seen(processor, (200, 200), 0.1, 0.1, frame_crop(0.5, 0.5, 1.0, 1.0))
    assert not has_gaze
    assert not heatmap.any()


AFFINE = st.builds(
    frame_affine,
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    st.booleans(),
)


@given(AFFINE, AFFINE, st.floats(0, 1), st.floats(0, 1))
def test_compose_applies_one_map_after_the_other_and_invert_undoes_it(first, then, x, y):
    point = torch.tensor([x, y], dtype=torch.float64)
    both = transform_points(then, *transform_points(first, *point))
    assert torch.allclose(torch.stack(transform_points(compose(then, first), *point)), torch.stack(both))
    assert torch.allclose(torch.stack(transform_points(invert(then), *transform_points(then, *point))), point)


def test_frame_affine_turns_clockwise_and_shifts_right_and_down():
    x, y = transform_points(frame_affine(90, shift=(0.1, 0.2)), torch.tensor(0.5), torch.tensor(0.1))
    assert (float(x), float(y)) == pytest.approx((1.0, 0.7))


def test_square_frame_centres_the_short_side():
    corners = torch.tensor([0.0, 1.0]).double()
    x, y = transform_points(square_frame(200, 100), corners, corners)
    assert x.tolist() == [0, 1]
    assert y.tolist() == [0.25, 0.75]


@given(AFFINE, st.floats(0.02, 0.3), st.floats(0.02, 0.3))
def test_widths_follow_the_geometry_as_the_marginals_of_the_turned_gaussian(affine, sigma_x, sigma_y):
    moved = transform_fixations(recording((0.5, 0.5, 0, 1), sigma_x=[sigma_x], sigma_y=[sigma_y]), affine)
    covariance = affine[:, :2] @ torch.diag(torch.tensor([sigma_x, sigma_y]).double() ** 2) @ affine[:, :2].T
    widths = torch.cat([moved["sigma_x"], moved["sigma_y"]])
    assert torch.allclose(widths, covariance.diagonal().sqrt())


def test_the_shown_rectangle_follows_flip_and_crop():
    shown = {"x_min": [0.0], "y_min": [0.2], "x_max": [0.5], "y_max": [0.6]}
    affine = compose(frame_crop(0.5, 0.0, 1.0, 1.0), frame_affine(flip=True))
    moved = transform_fixations(recording((0.1, 0.4, 0, 1), **shown), affine)
    found = [float(moved[name]) for name in ("x_min", "y_min", "x_max", "y_max")]
    assert found == pytest.approx([0, 0.2, 1, 0.6])


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (NAN, 10)])
def test_an_image_without_extent_is_refused(size):
    with pytest.raises(ValueError, match="positive sides"):
        square_frame(*size)


def test_an_empty_crop_is_refused():
    with pytest.raises(ValueError, match="x_min < x_max"):
        frame_crop(0.5, 0, 0.5, 1)


@pytest.mark.parametrize("size", SIZES)
@given(x=EVERYWHERE, y=EVERYWHERE)
def test_a_map_taken_back_to_image_size_peaks_at_the_spot(processor, size, x, y):
    width, height = SIZES[size]
    place = place_in_frame((width, height), x, y, None)
    row, column = int(place[1] * GRID), int(place[0] * GRID)
    maps = torch.zeros(1, 1, GRID, GRID)
    maps[0, 0, row, column] = 1.0
    (sized,) = processor.post_process_similarity_map(maps, [(height, width)])
    assert sized.shape == (1, height, width)
    # the cell's middle, in pixels of the image; the nearest pixel inside it where the padding hides the middle
    side = max(width, height)
    middle = [(cell + 0.5) / GRID * side - (side - length) / 2 for cell, length in ((row, height), (column, width))]
    peak = divmod(int(sized[0].argmax()), width)
    for found, expected, length in zip(peak, middle, (height, width), strict=True):
        # at the border the interpolation is flat from the last cell's middle on
        assert abs(found + 0.5 - min(max(expected, 0.5), length - 0.5)) <= side / GRID / 2 + 1
    assert sized[0, min(int(y * height), height - 1), min(int(x * width), width - 1)] >= 0.24
