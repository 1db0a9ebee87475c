"""What a DICOM header says against what its values are: the grey values that come out, and what is noted."""

import numpy as np
import pytest

from dataset_scripts.conversion import Dropped
from dataset_scripts.images import encode_image
from dataset_scripts.report import Ledger
from tests.dataset_scripts.test_dicom import own_range, picture, saved, shown

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

ROWS, COLUMNS = 64, 64
SLOPE = (np.add.outer(np.arange(ROWS), np.arange(COLUMNS)) * 32).astype(np.uint16)  # 0 ... 4032, twelve bits
SYNTAXES = [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless]
KINDS = ["MONOCHROME1", "MONOCHROME2"]
DEFLATED, BIG_ENDIAN = uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian


def read(folder, header):
    ledger = Ledger()
    return shown(saved(folder, header), ledger).astype(int), set(ledger.notes)


def refused(folder, header):
    with pytest.raises(Dropped) as raised:
        encode_image(saved(folder, header), 64, Ledger())
    return raised.value.reason


def as_kind(kind, grey):
    return 255 - grey.astype(int) if kind == "MONOCHROME1" else grey.astype(int)


def nearly(found, expected):
    """Equal but for what lies half-way between two grey values, which an inversion rounds the other way."""
    np.testing.assert_allclose(found, expected, atol=1)


def table_item(first, bits, count, data, vr="OW"):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count % 2**16, first, bits])
    item.add_new("LUTData", vr, data)
    return Sequence([item])


def compressed(header, syntax):
    """With the values as they are stored, whatever the header says of their bits."""
    if not syntax.is_encapsulated:
        return header
    bits, high = header.BitsStored, header.HighBit
    header.BitsStored, header.HighBit = header.BitsAllocated, header.BitsAllocated - 1
    header.compress(syntax)
    header.BitsStored, header.HighBit = bits, high
    return header


# --- look-up tables ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("said", "top"), [(16, 4095), (16, 1023), (12, 4095), (16, 65535), (8, 255), (10, 1023)])
def test_a_voi_table_is_as_bright_as_its_entries_whatever_depth_is_said(tmp_path, kind, said, top):
    entries = np.linspace(0, top, 4096).round().astype("<u2")
    header = picture(SLOPE, bits=12, kind=kind, VOILUTSequence=table_item(0, said, 4096, entries.tobytes()))
    grey, notes = read(tmp_path, header)
    nearly(grey, as_kind(kind, np.round(entries[SLOPE] * (255 / top))))
    assert notes == ({"dicom_table_of_other_bits_than_said"} if 2**said - 1 != top else set())


EIGHT = (255 * (np.arange(4096) / 4095) ** 2).round().astype(np.uint8)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, DEFLATED, BIG_ENDIAN])
@pytest.mark.parametrize("layout", ["packed OW", "packed US", "OW", "US"])
def test_eight_bit_tables_in_every_layout_and_byte_order(tmp_path, syntax, layout):
    order = ">u2" if syntax == BIG_ENDIAN else "<u2"
    words = EIGHT.view("<u2") if "packed" in layout else EIGHT.astype("<u2")
    data = words.astype(order).tobytes() if "OW" in layout else words.tolist()
    table = table_item(0, 8, 4096, data, layout[-2:])
    values = SLOPE.astype(order)
    grey, notes = read(tmp_path, picture(values, bits=12, syntax=syntax, VOILUTSequence=table))
    np.testing.assert_array_equal(grey, EIGHT[SLOPE])
    assert notes == set()


def test_an_odd_number_of_packed_entries(tmp_path):
    entries = np.linspace(0, 255, 4033).round().astype(np.uint8)
    header = picture(SLOPE, bits=12, VOILUTSequence=table_item(0, 8, 4033, entries.tobytes() + b"\0"))
    np.testing.assert_array_equal(read(tmp_path, header)[0], entries[SLOPE])


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, BIG_ENDIAN])
def test_sixteen_bit_table_bytes_in_both_orders(tmp_path, name, syntax):
    order = ">u2" if syntax == BIG_ENDIAN else "<u2"
    entries = np.linspace(0, 65535, 4096).round().astype(order)
    values = SLOPE.astype(order)
    header = picture(values, bits=12, syntax=syntax, **{name: table_item(0, 16, 4096, entries.tobytes())})
    expected = own_range(entries[SLOPE].astype(float)) if name[0] == "M" else np.round(entries[SLOPE] * (255 / 65535))
    np.testing.assert_array_equal(read(tmp_path, header)[0], expected)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_that_is_too_short_is_refused(tmp_path, name):
    header = picture(SLOPE, bits=12, **{name: table_item(0, 16, 4096, bytes(4096))})
    assert refused(tmp_path, header) == "dicom_table_too_short"


def test_a_table_of_twelve_bits_before_a_window(tmp_path):
    entries = (4095 - np.arange(4096)).astype("<u2")
    table = table_item(0, 12, 4096, entries.tobytes())
    header = picture(SLOPE, bits=12, ModalityLUTSequence=table, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(read(tmp_path, header)[0], np.round(255 * (entries[SLOPE] / 4095)))


# --- windows ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(60_000, 100), (-9000, 100), (100_000, 500_000)])
def test_a_window_that_hides_the_picture_is_not_applied(tmp_path, kind, function, centre, width):
    window = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
    grey, notes = read(tmp_path, picture(SLOPE, bits=12, kind=kind, **window))
    nearly(grey, as_kind(kind, own_range(SLOPE.astype(float))))
    assert "dicom_window_that_hides_the_picture_not_applied" in notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [0, -1])
def test_a_width_of_nothing_is_noted_for_every_function(tmp_path, kind, function, width):
    window = {"WindowCenter": 2000, "WindowWidth": width, "VOILUTFunction": function}
    grey, notes = read(tmp_path, picture(SLOPE, bits=12, kind=kind, **window))
    nearly(grey, as_kind(kind, own_range(SLOPE.astype(float))))
    assert "dicom_window_without_width_not_applied" in notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_hides_the_picture_is_not_applied(tmp_path, kind):
    header = picture(SLOPE, bits=12, kind=kind, VOILUTSequence=table_item(0, 16, 4096, bytes(8192)))
    grey, notes = read(tmp_path, header)
    nearly(grey, as_kind(kind, own_range(SLOPE.astype(float))))
    assert "dicom_table_that_hides_the_picture_not_applied" in notes


@pytest.mark.parametrize("intercept", [None, 0, -1024])
def test_a_rescale_slope_of_0_is_noted_and_not_applied(tmp_path, intercept):
    header = picture(SLOPE, bits=12, RescaleSlope="0", WindowCenter=2048, WindowWidth=4096)
    if intercept is not None:
        header.RescaleIntercept = intercept
    grey, notes = read(tmp_path, header)
    np.testing.assert_array_equal(grey, np.round(255 * (SLOPE / 4095)))
    assert notes == {"dicom_rescale_slope_0_not_applied"}


# --- padding ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("dtype", "said", "stored"),
    [
        ("uint16", [65535], 65535),
        ("uint16", [0], 0),
        ("uint16", [65000, 65535], 65200),
        ("uint16", [65535, 65000], 65200),
        ("int16", [-2000], -2000),
        ("int16", [63536], -2000),
        ("int16", [-2000, -1900], -1950),
    ],
)
def test_padding_counts_for_no_range_and_is_black(tmp_path, kind, syntax, dtype, said, stored):
    values = (SLOPE // 8 + 1000).astype(dtype)
    values[:, :9] = stored
    header = picture(values, kind=kind)
    vr = "US" if dtype == "uint16" or min(said) > 0 else "SS"
    for name, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), said, strict=False):
        header.add_new(name, vr, value)
    grey, notes = read(tmp_path, compressed(header, syntax))
    nearly(grey[:, 9:], as_kind(kind, own_range(values[:, 9:].astype(float))))
    assert not grey[:, :9].any()
    assert "dicom_padding_shown_black" in notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more",
    [
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"VOILUTSequence": table_item(0, 16, 4096, np.arange(0, 65536, 16).astype("<u2").tobytes())},
    ],
    ids=["window", "table"],
)
def test_padding_is_black_beside_a_window_or_a_table(tmp_path, kind, more):
    values = SLOPE.copy()
    values[:9] = 4095
    grey, _ = read(tmp_path, picture(values, bits=12, kind=kind, PixelPaddingValue=4095, **more))
    assert not grey[:9].any() and np.ptp(grey[9:]) > 200
    without, _ = read(tmp_path, picture(values, bits=12, kind=kind, **more))
    np.testing.assert_array_equal(grey[9:], without[9:])


def test_padding_amid_the_values_is_no_padding(tmp_path):
    grey, notes = read(tmp_path, picture(SLOPE, bits=12, PixelPaddingValue=2016))
    np.testing.assert_array_equal(grey, own_range(SLOPE.astype(float)))
    assert "dicom_padding_amid_the_values_not_applied" in notes


def test_padding_that_does_not_occur_changes_nothing_and_eight_bits_stay(tmp_path):
    values = (SLOPE // 20).astype(np.uint8)
    for more in ({}, {"PixelPaddingValue": 255}):
        grey, notes = read(tmp_path, picture(values, **more))
        np.testing.assert_array_equal(grey, values)
        assert notes == set()


def test_padding_beyond_the_stored_bits(tmp_path):
    values = SLOPE.copy()
    values[:9] = 65535
    grey, _ = read(tmp_path, picture(values, bits=12, PixelPaddingValue=65535))
    np.testing.assert_array_equal(grey[9:], own_range(SLOPE[9:].astype(float)))
    assert not grey[:9].any()


# --- bits ---


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_overlays_above_the_stored_bits_are_ignored_in_every_syntax(tmp_path, syntax, dtype):
    values = SLOPE.astype(int) - (2048 if dtype == "int16" else 0)
    drawn = values & 0xFFF
    drawn[20:40, 20:40:2] |= 0x1000
    drawn[5] |= 0x8000
    header = picture(drawn.astype(np.uint16).view(dtype), bits=12)
    grey, notes = read(tmp_path, compressed(header, syntax))
    np.testing.assert_array_equal(grey, own_range(values.astype(float)))
    assert "dicom_bits_beyond_bits_stored_ignored" in notes


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("below", [0, 5])
def test_values_at_the_upper_end_of_their_words(tmp_path, syntax, dtype, below):
    values = SLOPE.astype(int) - (2048 if dtype == "int16" else 0)
    header = picture(((values << 4) + below).astype(dtype), bits=12)
    header.HighBit = 15
    header.WindowCenter, header.WindowWidth = values.min() + 2048, 4096
    grey, notes = read(tmp_path, compressed(header, syntax))
    np.testing.assert_array_equal(grey, np.round(255 * ((values - values.min()) / 4095)))
    assert notes == set()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_high_bit_that_the_values_contradict_is_noted(tmp_path, syntax):
    header = picture(SLOPE, bits=12, WindowCenter=2048, WindowWidth=4096)
    header.HighBit = 15
    grey, notes = read(tmp_path, compressed(header, syntax))
    np.testing.assert_array_equal(grey, np.round(255 * (SLOPE / 4095)))
    assert notes == {"dicom_high_bit_not_as_said"}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("bits", [8, 10])
def test_values_of_more_bits_than_said_are_kept_and_noted(tmp_path, syntax, bits):
    grey, notes = read(tmp_path, compressed(picture(SLOPE, bits=bits), syntax))
    np.testing.assert_array_equal(grey, own_range(SLOPE.astype(float)))
    assert "dicom_values_beyond_bits_stored_kept" in notes


# --- inversion, and nothing to see ---


@pytest.mark.parametrize(("kind", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_the_shape_that_goes_with_the_kind_inverts_once(tmp_path, kind, shape):
    values = (SLOPE // 20).astype(np.uint8)
    grey, _ = read(tmp_path, picture(values, kind=kind, PresentationLUTShape=shape))
    nearly(grey, as_kind(kind, values))


@pytest.mark.parametrize(("kind", "shape"), [("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")])
def test_a_shape_that_contradicts_the_kind_is_refused(tmp_path, kind, shape):
    header = picture(SLOPE, bits=12, kind=kind, PresentationLUTShape=shape)
    assert refused(tmp_path, header) == "dicom_inversion_contradictory"


FLAT = np.full((8, 8), 700, np.uint16)


@pytest.mark.parametrize(
    "header",
    [
        picture(FLAT, bits=12),
        picture(FLAT, bits=12, kind="MONOCHROME1", WindowCenter=700, WindowWidth=100),
        picture(np.full((8, 8), 9, np.uint8)),
        picture(np.full((8, 8, 3), 9, np.uint8), kind="RGB"),
        picture(SLOPE, bits=12, ModalityLUTSequence=table_item(0, 16, 4096, bytes(8192))),
        picture(FLAT, bits=12, PixelPaddingValue=700),
    ],
)
def test_one_grey_level_is_no_picture(tmp_path, header):
    assert refused(tmp_path, header) == "image_of_one_grey_level"
