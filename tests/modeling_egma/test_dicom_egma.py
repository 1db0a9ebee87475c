"""Plain DICOM files before the model: the converter's pixels, or a refusal that names what is not plain."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import pipeline

from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from modeling_egma.pictures_egma import as_picture
from tests.dataset_scripts.images.test_dicom import RAMP, look_up_table, picture, saved

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

WIDE = (RAMP * 7).astype(np.uint16)
WINDOW = {"WindowCenter": ["900", "1"], "WindowWidth": ["1500.5", "1"]}


def converted(path: Path) -> tuple[np.ndarray, Ledger]:
    ledger = Ledger()
    return np.asarray(Image.open(io.BytesIO(encode_image(path, 4096, ledger).png))), ledger


def jpeg(values: np.ndarray, **elements: Any) -> Any:
    """Baseline JPEG in DICOM."""
    header, buffer = picture(values, **elements), io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG", quality=95)
    header.file_meta.TransferSyntaxUID, header.PixelData = uid.JPEGBaseline8Bit, encapsulate([buffer.getvalue()])
    header["PixelData"].VR = "OB"
    return header


PLAIN = {
    "8 bits": picture((RAMP % 200).astype(np.uint8)),
    "8 bits, MONOCHROME1": picture((RAMP % 200).astype(np.uint8), kind="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "8 bits of 16": picture((RAMP % 200).astype(np.uint16), bits=8),
    "JPEG": jpeg((RAMP % 200).astype(np.uint8)),
    "JPEG, MONOCHROME1, window": jpeg(
        (RAMP % 200).astype(np.uint8), kind="MONOCHROME1", WindowCenter="99", WindowWidth="99"
    ),
    "implicit": picture((RAMP % 200).astype(np.uint8), syntax=uid.ImplicitVRLittleEndian),
    "window": picture(WIDE, bits=12, **WINDOW),
    "window, MONOCHROME1": picture(WIDE, bits=12, kind="MONOCHROME1", **WINDOW),
    "window, exact": picture(WIDE, bits=12, VOILUTFunction="LINEAR_EXACT", **WINDOW),
    "rescale": picture(WIDE, bits=12, RescaleSlope="2.5", RescaleIntercept="-1000", **WINDOW),
    "falling rescale": picture(WIDE, bits=12, RescaleSlope="-1", RescaleIntercept="2000", **WINDOW),
    "signed": picture((RAMP * 7 - 1000).astype(np.int16), bits=12, **WINDOW),
    "padding that is nowhere": picture(WIDE, bits=12, PixelPaddingValue=4095, **WINDOW),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_file_is_what_the_converter_makes_of_it(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, PLAIN[kind], "picture.png")  # known by its bytes
    expected, ledger = converted(path)
    assert not ledger.notes
    np.testing.assert_array_equal(np.asarray(as_picture(path)), expected)
    np.testing.assert_array_equal(np.asarray(as_picture(str(path))), expected)


@given(
    st.integers(-3000, 3000),
    st.integers(1, 4000),
    st.sampled_from(["uint16", "int16", "uint8"]),
    st.sampled_from([("1", "0"), ("0.5", "7"), ("-3", "400")]),
    st.integers(-40_000, 65_535),
    st.integers(8, 16),
)
def test_whatever_is_read_is_the_converters_without_a_note(
    tmp_path_factory: Any, centre: int, width: int, kind: str, rescale: tuple[str, str], padding: int, bits: int
) -> None:
    values = (np.arange(384).reshape(24, 16) * (11 if kind != "uint8" else 1) % 5000).astype(kind)
    header = picture(values, bits=min(bits, 8 * values.itemsize), WindowCenter=centre, WindowWidth=width)
    header.RescaleSlope, header.RescaleIntercept = rescale
    header.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", max(-32_768, padding))
    path = saved(tmp_path_factory.getbasetemp(), header)
    try:
        found = np.asarray(as_picture(path))
    except ValueError:
        return
    expected, ledger = converted(path)
    np.testing.assert_array_equal(found, expected)
    assert not ledger.notes


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (picture(np.stack([RAMP % 200] * 3, 2).astype(np.uint8), kind="RGB"), "SamplesPerPixel of the DICOM file is 3"),
        (picture((RAMP % 200).astype(np.uint8), kind="PALETTE COLOR"), "is PALETTE COLOR, expected MONOCHROME1 or"),
        (picture((RAMP % 200).astype(np.uint8), PresentationLUTShape="INVERSE"), "PresentationLUTShape .* is INVERSE"),
        (picture((RAMP % 200).astype(np.uint8), NumberOfFrames=2), "NumberOfFrames of the DICOM file is 2"),
        (picture(WIDE, bits=12), "no window"),
        (picture(WIDE, bits=12, **WINDOW | {"WindowWidth": "0"}), "hide its picture"),
        (picture(WIDE, bits=12, RescaleSlope="0", **WINDOW), "hide its picture"),
        (picture(WIDE, bits=12, VOILUTFunction="SIGMOID", **WINDOW), "VOILUTFunction of the DICOM file is SIGMOID"),
        (picture(WIDE, bits=12, VOILUTSequence=look_up_table(0, range(9), 8)), "VOILUTSequence"),
        (picture(WIDE, bits=12, ModalityLUTSequence=look_up_table(0, range(9), 8), **WINDOW), "ModalityLUTSequence"),
        (picture(WIDE, bits=10, **WINDOW), "pass its 10 stored bits"),
        (picture(WIDE, bits=12, HighBit=15, **WINDOW), "HighBit of the DICOM file is 15, expected 11"),
        (picture(WIDE, bits=12, PixelPaddingValue=0, **WINDOW), "has padding"),
        (picture(WIDE, bits=12, Rows=60_000, Columns=60_000, **WINDOW), "60,000 x 60,000 pixels of 1 channels"),
        (picture(WIDE, bits=12, Rows=25, **WINDOW), "picture.dcm: "),
        (
            picture(WIDE, bits=12, syntax=uid.DeflatedExplicitVRLittleEndian, **WINDOW),
            r"TransferSyntaxUID .*840.*1\.99",
        ),
        (jpeg((RAMP % 200).astype(np.uint8), Rows=12), "the size of the picture"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path: Path, header: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        as_picture(saved(tmp_path, header))
    assert "picture.dcm" in str(raised.value)


def test_what_the_converter_cannot_decode_is_refused_too(tmp_path: Path) -> None:
    header = picture((RAMP % 200).astype(np.uint8))
    header.compress(uid.RLELossless)
    whole = saved(tmp_path, header)
    with pytest.raises(ValueError, match=r"TransferSyntaxUID of the DICOM file is 1\.2\.840\.10008\.1\.2\.5"):
        as_picture(whole)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(saved(tmp_path, PLAIN["8 bits"]).read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.dcm"):
        as_picture(cut)
    with pytest.raises(Dropped):
        converted(cut)


def test_without_pydicom_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, PLAIN["window"])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match="a DICOM file takes the package pydicom, which is not installed"):
        as_picture(path)


def test_grounding_takes_dicom_paths(tmp_path: Path, tiny_model: Any, processor: Any) -> None:
    """Alone, in lists, in batches, in rows of a generator; with several sentences and boxes each."""
    paths = [
        str(saved(tmp_path, PLAIN[kind], f"{place}.dcm")) for place, kind in enumerate(("window", "rescale", "JPEG"))
    ]
    pictures = [Image.fromarray(converted(Path(path))[0]) for path in paths]
    assert len({one.tobytes() for one in pictures}) == 3
    ground = pipeline("egma-grounding", model=tiny_model, processor=processor, tokenizer=processor.tokenizer)
    reports = [["pneumonia", "clear"], ["clear"], ["heart size normal", "opacity", "effusion"]]

    def alike(found: Any, expected: Any) -> None:
        for ours, theirs in zip(found, expected, strict=True):
            assert [one["sentence"] for one in ours] == [one["sentence"] for one in theirs]
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(one["heat_map"], other["heat_map"], atol=1e-5)
                assert one["score"] == pytest.approx(other["score"], abs=1e-5)
                assert 1 <= len(one["boxes"]) <= 2 and one["box"] == one["boxes"][0]

    expected = [ground(one, report, top_k=2) for one, report in zip(pictures, reports, strict=True)]
    alike([ground(paths[0], reports[0], top_k=2)], expected[:1])
    alike(ground(paths, reports, batch_size=2, top_k=2), expected)
    rows = [{"image": path, "sentences": report} for path, report in zip(paths, reports, strict=True)]
    alike(list(ground((row for row in rows), batch_size=3, top_k=2)), expected)
