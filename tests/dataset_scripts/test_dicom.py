"""DICOM pictures: shown values against pydicom's own functions and PS3.3's formulas, and damaged files."""

import contextlib
import io
import struct
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts import dicom, images
from dataset_scripts.conversion import Dropped, Impossible
from dataset_scripts.images import encode_image
from dataset_scripts.report import Ledger

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

ROWS, COLUMNS = 24, 16
RAMP = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)


def picture(values, *, syntax=uid.ExplicitVRLittleEndian, bits=None, kind="MONOCHROME2", **elements):
    """A data set with these stored values, (H, W) or (H, W, 3)."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.Rows, header.Columns = values.shape[:2]
    header.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        header.PlanarConfiguration = 0
    header.PhotometricInterpretation = kind
    header.BitsAllocated = 8 * values.itemsize
    header.BitsStored = bits or header.BitsAllocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(values.dtype.kind == "i")
    header.PixelData = values.tobytes()
    header["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(header, name, value)
    return header


def look_up_table(first, table, bits, signed=False):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(table), first, bits])
    item.add_new("LUTData", "US", [int(value) for value in table])
    return Sequence([item])


def saved(folder, header, name="picture.dcm"):
    path = folder / name
    header.save_as(path, enforce_file_format=True)
    return path


def shown(path, ledger=None):
    """The stored picture, not resized, as an array."""
    return np.asarray(Image.open(io.BytesIO(encode_image(path, 4096, ledger or Ledger()).png)))


def own_range(values):
    return np.round(255 * (values - values.min()) / (values.max() - values.min())).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dicom")


def test_eight_bits_without_window_stay_what_they_are(folder):
    values = (RAMP % 200).astype(np.uint8)
    ledger = Ledger()
    np.testing.assert_array_equal(shown(saved(folder, picture(values)), ledger), values)
    np.testing.assert_array_equal(shown(saved(folder, picture(values, kind="MONOCHROME1"))), 255 - values)
    assert ledger.notes == {}


@pytest.mark.parametrize(("dtype", "bits", "shift"), [("uint16", 12, 0), ("int16", 12, 200), ("uint16", 16, -60_000)])
def test_more_bits_without_window_are_scaled_by_their_own_range(folder, dtype, bits, shift):
    values, ledger = (RAMP * 3 - shift).astype(dtype), Ledger()
    np.testing.assert_array_equal(
        shown(saved(folder, picture(values, bits=bits)), ledger), own_range(RAMP.astype(float))
    )
    assert ledger.notes["dicom_without_window_scaled_to_8_bit_by_its_own_range"].count == 1


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("rescale", [None, (2.5, -1000.0), (-1.0, 500.0)])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_windows_are_those_of_pydicom(folder, function, rescale, dtype):
    values = (RAMP * 7 - (1000 if dtype == "int16" else 0)).astype(dtype)
    header = picture(values, bits=12, WindowCenter=["300", "1"], WindowWidth=["800.5", "1"])
    if function:
        header.VOILUTFunction = function
    slope, intercept = rescale or (1.0, 0.0)
    if rescale:
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
    low, high = (-2048, 2047) if dtype == "int16" else (0, 4095)
    ends = np.array([low, high]) * slope + intercept
    expected = (apply_windowing(values * slope + intercept, header) - ends[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(shown(saved(folder, header)), 255 * expected, atol=0.51)
    header.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_allclose(shown(saved(folder, header)), 255 - 255 * expected, atol=0.51)


def test_window_of_width_one_is_a_step(folder):
    header = picture(RAMP.astype(np.uint16), bits=12, WindowCenter="100", WindowWidth="1")
    np.testing.assert_array_equal(shown(saved(folder, header)), np.where(RAMP > 99.5, 255, 0))


@pytest.mark.parametrize("width", ["0", "-5"])
def test_window_without_width_is_noted_and_not_applied(folder, width):
    ledger = Ledger()
    header = picture(RAMP.astype(np.uint16), bits=12, WindowCenter="100", WindowWidth=width)
    np.testing.assert_array_equal(shown(saved(folder, header), ledger), own_range(RAMP))
    assert ledger.notes["dicom_window_without_width_not_applied"].first == ["picture.dcm"]


def test_look_up_tables_come_before_slope_and_window(folder):
    values = RAMP.astype(np.uint16)
    modality, voi = np.linspace(0, 1000, 300).astype(int), np.linspace(0, 255, 900).astype(int) ** 2 // 255
    header = picture(
        values,
        bits=12,
        ModalityLUTSequence=look_up_table(20, modality, 16),
        RescaleSlope=100,
        RescaleIntercept=7,
        VOILUTSequence=look_up_table(50, voi, 8),
        WindowCenter=10,
        WindowWidth=10,
    )
    expected = [
        [voi[min(max(modality[min(max(v - 20, 0), 299)] - 50, 0), 899)] for v in row] for row in values.tolist()
    ]
    np.testing.assert_array_equal(shown(saved(folder, header)), expected)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEG2000Lossless,
        uid.JPEGLSLossless,
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_syntax_gives_the_same_picture(folder, syntax, dtype):
    values = np.kron(RAMP % 200 if dtype == "uint8" else RAMP * 10, np.ones((4, 4))).astype(dtype)
    header = picture(values, bits=8 if dtype == "uint8" else 12)
    if syntax.is_encapsulated:
        header.compress(syntax)
    else:
        header.file_meta.TransferSyntaxUID = syntax
    expected = values if dtype == "uint8" else own_range(values.astype(float))
    np.testing.assert_array_equal(shown(saved(folder, header)), expected)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        (uid.JPEGLosslessSV1, "dicom_decoder_missing"),
        (uid.HTJ2K, "dicom_syntax_not_read"),
        (uid.MPEG2MPML, "dicom_syntax_not_read"),
    ],
)
def test_syntaxes_without_a_decoder_are_named(folder, monkeypatch, syntax, reason):
    header = picture(RAMP.astype(np.uint8))
    header.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    header.file_meta.TransferSyntaxUID = syntax
    monkeypatch.setitem(dicom._DECODERS, uid.JPEGLosslessSV1, ("none", "that-package"))
    with pytest.raises(Dropped) as raised:
        encode_image(saved(folder, header), 64, Ledger())
    assert raised.value.reason == reason and syntax.name in raised.value.where


def test_colours(folder):
    values = np.stack([RAMP % 256, (RAMP * 3) % 256, 255 - RAMP % 256], axis=2).astype(np.uint8)
    np.testing.assert_array_equal(shown(saved(folder, picture(values, kind="RGB"))), values)
    luma = np.asarray(Image.fromarray(values).convert("YCbCr"))
    assert np.abs(shown(saved(folder, picture(luma, kind="YBR_FULL"))).astype(int) - values).max() <= 3  # rounded twice


def test_frame_is_the_pictures_own_and_long_side_the_working_size(folder):
    encoded = encode_image(saved(folder, picture((RAMP % 200).astype(np.uint8))), 12, Ledger())
    assert (encoded.width, encoded.height) == (COLUMNS, ROWS)
    assert Image.open(io.BytesIO(encoded.png)).size == (8, 12)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (picture(RAMP.astype(np.uint8), NumberOfFrames=2), "dicom_several_frames"),
        (picture(RAMP.astype(np.uint8), kind="PALETTE COLOR"), "unexpected_image_mode"),
        (picture(RAMP.astype(np.uint32)), "unexpected_image_mode"),
        (picture(RAMP.astype(np.uint8), Rows=60_000, Columns=60_000), "image_too_large"),
        (picture(RAMP.astype(np.uint8), Rows=ROWS + 1), "image_not_decodable"),
        (
            picture(RAMP.astype(np.uint16), WindowCenter=1, WindowWidth=9, VOILUTFunction="X"),
            "dicom_unknown_window_function",
        ),
    ],
)
def test_what_is_not_shown_is_refused(folder, header, reason):
    path = saved(folder, header)
    with pytest.raises(Dropped) as raised:
        encode_image(path, 64, Ledger())
    assert raised.value.reason == reason


def test_without_picture_and_too_large_a_file(folder, monkeypatch):
    header = picture(RAMP.astype(np.uint8))
    del header.PixelData
    for limit, reason in ((dicom.MAX_FILE_BYTES, "dicom_without_picture"), (100, "image_too_large")):
        monkeypatch.setattr(dicom, "MAX_FILE_BYTES", limit)
        with pytest.raises(Dropped) as raised:
            encode_image(saved(folder, header), 64, Ledger())
        assert raised.value.reason == reason


def test_deflated_file_is_inflated_to_a_bound_only(folder, monkeypatch):
    header = picture(np.eye(1000, dtype=np.uint8), syntax=uid.DeflatedExplicitVRLittleEndian)
    path = saved(folder, header)
    whole = path.read_bytes()
    assert len(whole) < 20_000 and shown(path).shape == (1000, 1000)
    path.write_bytes(whole[:-5])
    with pytest.raises(Dropped, match="truncated"):
        encode_image(path, 64, Ledger())
    path.write_bytes(whole)
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 500_000)
    with pytest.raises(Dropped, match="inflates to more"):
        encode_image(path, 64, Ledger())


def test_run_lengths_beyond_the_picture_are_refused_before_they_are_expanded(folder):
    header = picture(np.zeros((ROWS, COLUMNS), np.uint8))
    bomb = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * 5000  # 128 zeros each
    header.PixelData = pydicom.encaps.encapsulate([bomb])
    header.file_meta.TransferSyntaxUID = uid.RLELossless
    with pytest.raises(Dropped, match="run-length segment longer"):
        encode_image(saved(folder, header), 64, Ledger())


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 128)), max_size=20))
def test_expanded_length_of_run_lengths(runs):
    segment = b"".join(bytes([257 - n, 7]) if repeat and n > 1 else bytes([n - 1]) + bytes(n) for repeat, n in runs)
    assert dicom._expanded_bytes(segment) == sum(n for _, n in runs)


def test_content_decides_not_the_name(folder):
    values = (RAMP % 200).astype(np.uint8)
    np.testing.assert_array_equal(shown(saved(folder, picture(values), "picture.jpg")), values)
    Image.fromarray(values).save(folder / "really.dcm", "PNG")
    np.testing.assert_array_equal(shown(folder / "really.dcm"), values)
    (folder / "neither.dcm").write_bytes(b"\0" * 200)
    with pytest.raises(Dropped, match="not_decodable"):
        encode_image(folder / "neither.dcm", 64, Ledger())


def test_missing_package_stops_the_conversion(folder, monkeypatch):
    path = saved(folder, picture(RAMP.astype(np.uint8)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(Impossible, match="extra `dicom`"):
        encode_image(path, 64, Ledger())


@pytest.fixture(scope="module")
def intact(folder):
    values = (RAMP * 10).astype(np.uint16)
    window = {"WindowCenter": 1000, "WindowWidth": 900, "VOILUTSequence": look_up_table(0, range(50), 8)}
    plain = picture(values, bits=12, **window)
    run_lengths = picture(values, bits=12)
    run_lengths.compress(uid.RLELossless)
    others = [picture(np.kron(values, np.ones((4, 4), np.uint16)), bits=12) for _ in range(2)]
    others[0].compress(uid.JPEG2000Lossless)
    others[1].compress(uid.JPEGLSLossless)
    deflated = picture(values, bits=12, syntax=uid.DeflatedExplicitVRLittleEndian)
    jpeg = picture((RAMP % 200).astype(np.uint8))
    buffer = io.BytesIO()
    Image.fromarray((RAMP % 200).astype(np.uint8)).save(buffer, "JPEG")
    jpeg.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
    jpeg.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return [saved(folder, header).read_bytes() for header in (plain, run_lengths, deflated, jpeg, *others)]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 5),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=8),
    st.booleans(),
)
def test_damaged_files_are_dropped_or_shown(folder, intact, which, cut, flips, truncate):
    content = bytearray(intact[which])
    for place, bit in flips:
        content[int(place * (len(content) - 1))] ^= 1 << bit
    path = folder / "damaged.dcm"
    path.write_bytes(content[: int(cut * len(content))] if truncate else content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may reach the user's screen a thousand times
        with contextlib.suppress(Dropped):
            assert encode_image(path, 64, Ledger()).width <= 2**16


def test_real_files(real_data):
    for name, inverted in (("chest", False), ("monochrome1", True)):
        path = real_data / "dicom" / f"{name}.dcm"
        stored = pydicom.dcmread(path).pixel_array
        np.testing.assert_array_equal(shown(path), 255 - stored if inverted else stored)
        assert images.encode_image(path, 512, Ledger()).width == stored.shape[1]
