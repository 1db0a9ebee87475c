"""Run lengths of SIIM-ACR against a decoder that goes pixel by pixel."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataset_scripts.images.rle import decode, encode

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


def naive_decode(text, width, height):
    """Walk down the columns, first column first."""
    mask = np.zeros((height, width), dtype=bool)
    position, is_run = 0, False
    for word in text.split() if text.strip() != "-1" else []:
        for _ in range(int(word)):
            column, row = divmod(position, height)
            mask[row, column] = is_run
            position += 1
        is_run = not is_run
    return mask


@st.composite
def cells(draw):
    """A picture's width and height, and run lengths that fit in it; gaps and runs may be empty."""
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    left, numbers = width * height, []
    for _ in range(2 * draw(st.integers(1, 5))):
        numbers.append(draw(st.integers(0, left)))
        left -= numbers[-1]
    return width, height, draw(st.sampled_from(["", " "])) + " ".join(map(str, numbers))


def test_gaps_are_relative_and_runs_go_down_the_columns():
    mask = decode(" 1 2 4 1", width=3, height=4)
    assert mask.astype(int).tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("text", ["-1", " -1", "-1 "])
def test_minus_one_is_no_mask(text):
    mask = decode(text, 3, 2)
    assert mask.shape == (2, 3) and not mask.any()


@given(cells())
def test_as_the_naive_decoder(cell):
    width, height, text = cell
    np.testing.assert_array_equal(decode(text, width, height), naive_decode(text, width, height))


@given(masks)
def test_decoded_is_what_was_encoded(mask):
    height, width = mask.shape
    text = encode(mask)
    np.testing.assert_array_equal(decode(text, width, height), mask)
    np.testing.assert_array_equal(naive_decode(text, width, height), mask)
    assert (text == "-1") == (not mask.any())


@given(cells())
def test_encoding_is_the_shortest_of_its_mask(cell):
    width, height, text = cell
    again = encode(decode(text, width, height))
    assert len(again.split()) <= max(len(text.split()), 1)
    assert encode(decode(again, width, height)) == again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 numbers"),
        ("1 2 3", "3 numbers"),
        ("1 x", "'x'"),
        ("1 -2", "'-2'"),
        ("-1 -1", "'-1'"),
        ("1.0 2", "'1.0'"),
        ("1 ²", "'²'"),
        ("9999999999 1", "whole numbers of pixels"),
        ("5 2", "1 pixels outside the 3 x 2 picture"),
    ],
)
def test_bad_cells_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        decode(text, 3, 2)


@given(st.text(alphabet="0123456789 -+.,x_²\t", max_size=20) | st.text(max_size=20))
@example("1 1" * 50)
def test_any_text_is_decoded_or_refused(text):
    try:
        mask = decode(text, 4, 3)
    except ValueError:
        return
    np.testing.assert_array_equal(mask, naive_decode(text, 4, 3))
