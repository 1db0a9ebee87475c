"""The greys of more than 8 bits that go beside a picture: what its own window shows of them is that picture."""

import io

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.images.pictures import EncodedImage, encode_image
from dataset_scripts.ledger import Ledger
from tests.dataset_scripts.images.test_dicom import look_up_table, picture, saved

STORED = np.random.default_rng(0).permutation(np.arange(300, 1500).repeat(2)).reshape(60, 40)


def read(path, long_side=4096) -> EncodedImage:
    return encode_image(path, long_side, Ledger(), with_depth=True)


def of(header, folder) -> EncodedImage:
    return read(saved(folder, header))


def eight_bits(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded.png))).astype(float)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": 800, "WindowWidth": 400},
        {"WindowCenter": 800, "WindowWidth": 4000},
        {"WindowCenter": -800, "WindowWidth": 400, "RescaleSlope": -1, "RescaleIntercept": 0},
        {"WindowCenter": 3, "WindowWidth": 2.5, "RescaleSlope": 0.005, "RescaleIntercept": -1},
    ],
)
def test_its_own_window_shows_the_picture_and_no_value_is_lost(tmp_path, kind, elements):
    encoded = of(picture(STORED.astype(np.uint16), bits=12, kind=kind, **elements), tmp_path)
    values, low, high = encoded.depth
    assert values.dtype == np.uint16 and len(np.unique(values)) == 1200
    shown = 255 * np.clip((values - low) / (high - low), 0, 1)
    np.testing.assert_allclose(shown, eight_bits(encoded), atol=1)
    order = np.corrcoef(values.ravel(), STORED.ravel())[0, 1]
    is_inverted = (kind == "MONOCHROME1") != (elements.get("RescaleSlope", 1) < 0)
    assert order == pytest.approx(-1 if is_inverted else 1, abs=1e-6)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 800, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 800, "WindowWidth": 1},
        {"VOILUTSequence": look_up_table(0, np.arange(4096)[::-1] ** 2 // 4096, 12)},
    ],
    ids=["sigmoid", "step", "a falling table"],
)
def test_what_is_no_line_has_a_window_of_its_values_all_the_same(tmp_path, elements):
    encoded = of(picture(STORED.astype(np.uint16), bits=12, **elements), tmp_path)
    values, low, high = encoded.depth
    assert low < high and len(np.unique(values)) == 1200
    brightest, darkest = values == values.max(), values == values.min()
    assert eight_bits(encoded)[brightest].mean() > eight_bits(encoded)[darkest].mean()


def test_padding_stays_the_darkest(tmp_path):
    values = STORED.astype(np.uint16)
    values[:9] = 2000
    encoded = of(picture(values, bits=12, PixelPaddingValue=2000), tmp_path)
    assert (encoded.depth.values[:9] == 0).all() and encoded.depth.values[9:].max() == 65535


def test_sixteen_bits_of_a_png_stay_and_are_as_large_as_the_picture(tmp_path):
    values = np.add.outer(np.arange(600), np.arange(400)).astype(np.uint16) * 60
    Image.fromarray(values).save(tmp_path / "deep.png")
    encoded = read(tmp_path / "deep.png")
    np.testing.assert_array_equal(encoded.depth.values, np.round(values.astype(float) * 65535 / values.max()))
    small = read(tmp_path / "deep.png", long_side=64)
    assert small.depth.values.shape == eight_bits(small).shape == (64, 43)
    np.testing.assert_allclose(small.depth.values / 257, eight_bits(small), atol=2)


@pytest.mark.parametrize("highest", [200, 255])
def test_eight_bits_have_no_depth(tmp_path, highest):
    values = (np.arange(600).reshape(20, 30) % highest).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "flat.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "few.png")
    assert read(tmp_path / "flat.png").depth is None and read(tmp_path / "few.png").depth is None
    assert of(picture(values), tmp_path).depth is None
    Image.fromarray(values.astype(np.uint16) * 9).save(tmp_path / "many.png")
    assert encode_image(tmp_path / "many.png", 64, Ledger()).depth is None  # nobody asked
