"""Maps on the frame are brought to the image as the processor does it, and equal patches stay equal."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egma.inference.geometry import box_masks, centred_gaussian, frame_to_image, image_maps, inside_any, patch_centres
from modeling_egma import EgmaProcessor
from modeling_egma.gaze_egma import square_frame, transform_points
from tests.egma.evaluation.fakes import box, reading

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 32), (32, 64)])
def test_as_the_processor_brings_maps_to_pixels(width: int, height: int, processor: EgmaProcessor) -> None:
    """Its pixels along the shorter side are the means of neighbouring cells, where the map is linear."""
    maps = RANDOM.random((1, 4, 4))
    sized = processor.post_process_similarity_map(torch.from_numpy(maps)[None], [(height, width)])[0][0].numpy()
    cells = image_maps(maps, [reading(0, width=width, height=height)], 64)[0]
    pooled = cells.reshape(height, 64 // height, width, 64 // width).mean(axis=(1, 3))
    bent = np.abs(pooled - sized) > 1e-9
    assert bent.mean() < 0.15  # next to a patch's centre the map has a kink inside of a pixel
    np.testing.assert_allclose(pooled, sized, atol=0.02)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5), st.integers(2, 9))
def test_by_loop(width: int, height: int, grid: int, cells: int) -> None:
    maps = np.random.default_rng([width, height, grid]).normal(size=(1, grid, grid))
    result = image_maps(maps, [reading(0, width=width, height=height)], cells)[0]
    side = max(width, height)
    for row, column in np.ndindex(cells, cells):
        x = ((column + 0.5) / cells * width + (side - width) / 2) / side
        y = ((row + 0.5) / cells * height + (side - height) / 2) / side
        u, v = (min(max(place * grid - 0.5, 0), grid - 1) for place in (x, y))
        left, top = min(int(u), max(grid - 2, 0)), min(int(v), max(grid - 2, 0))
        right, low = min(left + 1, grid - 1), min(top + 1, grid - 1)
        above = maps[0, top, left] * (1 - (u - left)) + maps[0, top, right] * (u - left)
        below = maps[0, low, left] * (1 - (u - left)) + maps[0, low, right] * (u - left)
        assert result[row, column] == pytest.approx(above * (1 - (v - top)) + below * (v - top), abs=1e-6)


def test_peak_of_a_wide_image_is_where_frame_to_image_says() -> None:
    maps = np.zeros((16, 4, 4))
    maps.reshape(16, 16)[np.arange(16), np.arange(16)] = 1
    rows = [reading(0, width=80, height=40)] * 16
    for heat, centre in zip(image_maps(maps, rows, 40), frame_to_image(patch_centres(4), 80, 40), strict=True):
        if (centre >= 0).all() and (centre <= 1).all():
            column, row = (centre * 40).astype(int)
            assert heat[row, column] > 0.9 * heat.max() > 0.8


def test_images_of_several_shapes_at_once() -> None:
    maps = RANDOM.random((3, 4, 4))
    rows = [reading(0, width=w, height=h) for w, h in ((50, 40), (10, 70), (30, 30))]
    alone = [image_maps(maps[k : k + 1], rows[k : k + 1], 16)[0] for k in range(3)]
    np.testing.assert_array_equal(image_maps(maps, rows, 16), alone)


@given(st.floats(-1, 1), st.integers(1, 90), st.integers(1, 90))
def test_constant_map_stays_constant(value: float, width: int, height: int) -> None:
    heat = image_maps(np.full((1, 7, 7), round(value, 6)), [reading(0, width=width, height=height)], 33)
    assert heat.min() == heat.max()


corners = st.tuples(*[st.integers(-4, 20).map(lambda sixteenths: sixteenths / 16)] * 4).filter(
    lambda edges: edges[0] < edges[2] and edges[1] < edges[3]
)


def is_inside(x: Fraction, y: Fraction, edges: tuple[float, ...], shape: str) -> bool:
    left, top, right, bottom = map(Fraction, edges)
    if shape == "box":
        return left <= x <= right and top <= y <= bottom
    across, down = (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
    return across**2 + down**2 <= 1


@given(st.lists(st.tuples(corners, st.sampled_from(["box", "ellipse"])), max_size=3))
def test_masks_by_loop_over_cells(shapes: list[tuple[tuple[float, ...], str]]) -> None:
    """Edges and centres of the cells are sixteenths: many centres lie exactly on an edge."""
    boxes = [box("a", *edges, shape=shape) for edges, shape in shapes]
    expected = [
        [any(is_inside(Fraction(2 * x + 1, 16), Fraction(2 * y + 1, 16), *one) for one in shapes) for x in range(8)]
        for y in range(8)
    ]
    np.testing.assert_array_equal(box_masks([boxes, []], 8), [expected, np.zeros((8, 8))])
    np.testing.assert_array_equal(inside_any(patch_centres(8), boxes), np.ravel(expected))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_frame_to_image_undoes_the_square_frame(width: int, height: int) -> None:
    points = RANDOM.random((20, 2))
    x, y = transform_points(square_frame(width, height), *torch.from_numpy(points).T)
    back = frame_to_image(torch.stack([x, y], dim=1).numpy(), width, height)
    np.testing.assert_allclose(back, points, atol=1e-12 * max(width / height, height / width))


def test_masks_and_centre() -> None:
    mask = box_masks([[box("a", 0, 0, 0.5, 0.25), box("b", 0.5, 0, 1, 0.25)], [box("a", 2, 2, 3, 3)]], 8)
    assert mask[0, :2].all() and not mask[0, 2:].any() and not mask[1].any()
    assert box_masks([], 8).shape == (0, 8, 8)
    centre = centred_gaussian(9)
    assert centre[4, 4] == 1 and centre[4, 0] == pytest.approx(np.exp(-((4 / 9) ** 2) / (2 * 0.25**2)))
    np.testing.assert_allclose(centre, centre.T[::-1, ::-1])
