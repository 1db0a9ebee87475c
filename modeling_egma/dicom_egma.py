"""A plain DICOM radiograph -> the 8-bit picture that it is; any other is refused, and is a converter's.

Plain is one frame of MONOCHROME1 or 2, uncompressed or baseline JPEG, with a linear window or 8 stored bits, and a
header that its values do not contradict. Tables, padding, colours and the rest need `egma build`, which notes what it
decides (`dataset_scripts/images/dicom.py`); of what both read, the pixels are equal. No tag of a person is read.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MOST_BYTES, MOST_ITEMS = 1 << 27, 10_000
SYNTAXES = (JPEG_BASELINE := "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
LEAST_SHOWN = 16 / 255  # of the output range; a window that leaves less of it to a picture is a wrong one
KINDS: dict[str, tuple[Any, ...]] = {
    "SamplesPerPixel": (1,),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2"),
    "BitsAllocated": (8, 16),
    "NumberOfFrames": (1, None),
    "ModalityLUTSequence": (None,),
    "VOILUTSequence": (None,),
    "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", None),
}
PADDING, WINDOW = ("PixelPaddingValue", "PixelPaddingRangeLimit"), ("WindowCenter", "WindowWidth")
ELEMENTS = (*KINDS, "Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", *PADDING, *WINDOW)
ELEMENTS += ("RescaleSlope", "RescaleIntercept", "PresentationLUTShape")


def is_dicom(path: Path) -> bool:
    """Whether the file's bytes say that it is DICOM, whatever its name."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path, check_size: Callable[[int, int, int], None]) -> Image.Image:
    """The picture, mode L, by rescale and first window (PS3.3 C.11.1, C.11.2.1.2, C.11.2.1.3); MONOCHROME1 inverted.

    Raises:
        ValueError: pydicom is not installed; the picture is not plain; what `check_size` raises.
        Exception: any, on a damaged file.
    """
    try:
        from pydicom import dcmread
        from pydicom.encaps import get_frame
        from pydicom.filereader import read_file_meta_info
    except ImportError:
        raise ValueError("a DICOM file takes the package pydicom, which is not installed") from None
    content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    if not content or content.count(b"\xfe\xff\x00\xe0") > MOST_ITEMS:
        raise ValueError(f"a DICOM file of at most {MOST_BYTES} bytes and {MOST_ITEMS} items is read")
    _require("TransferSyntaxUID", syntax := read_file_meta_info(path).TransferSyntaxUID, SYNTAXES)
    header = dcmread(io.BytesIO(content), specific_tags=list(ELEMENTS))
    for name, expected in KINDS.items():
        _require(name, header.get(name) or None, expected)
    check_size(header.Columns, header.Rows, 1)
    jpeg = get_frame(header.PixelData, 0, number_of_frames=1) if syntax == JPEG_BASELINE else None
    stored = _stored(header, jpeg)
    low, high = int(stored.min()), int(stored.max())
    return Image.fromarray(_greys(header, np.arange(low, high + 1))[stored.astype(np.int32) - low])


def _require(name: str, found: Any, expected: tuple[Any, ...]) -> None:
    if found not in expected:
        said = " or ".join("none" if one is None else str(one) for one in expected)
        raise ValueError(f"{name} of the DICOM file is {str(found)[:60]}, expected {said}: `egma build` may read it")


def _stored(header: Any, jpeg: bytes | None) -> np.ndarray:
    """The values (rows, columns) as they are stored; what contradicts the header is refused."""
    size, bits, is_signed = (header.Rows, header.Columns), header.BitsStored, header.PixelRepresentation
    if jpeg is not None:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            _require("the size of the picture", picture.size[::-1], (size,))
            _require("the mode of the picture", picture.mode, ("L",))
            stored = np.asarray(picture)
    else:
        kind = np.dtype(f"<{'i' if is_signed else 'u'}{header.BitsAllocated // 8}")
        stored = np.frombuffer(header.PixelData, kind, count=math.prod(size)).reshape(size)
    _require("HighBit", header.get("HighBit"), (bits - 1, None))
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    if not ends[0] <= stored.min() <= stored.max() <= ends[1]:
        raise ValueError(f"values of the DICOM file pass its {bits} stored bits: `egma build` may read it")
    padding = [header.get(name) for name in PADDING]
    # the element may lack the sign that the values have
    limits = [np.array(int(one) % 2**16, np.uint16).astype(stored.dtype) for one in padding if one is not None]
    if padding[0] is not None and ((stored >= min(limits)) & (stored <= max(limits))).any():
        raise ValueError("the DICOM file has padding (PixelPaddingValue): `egma build` may read it")
    return stored


def _greys(header: Any, stored: np.ndarray) -> np.ndarray:
    """The grey, uint8, of every stored value."""
    shape = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}[header.PhotometricInterpretation]
    _require("PresentationLUTShape", header.get("PresentationLUTShape"), (shape, None))
    slope, offset = (header.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
    values = stored.astype(np.float64) * float(1 if slope is None else slope) + float(offset or 0)
    window = [one for name in WINDOW for one in np.ravel(header.get(name))[:1].tolist() if one is not None]
    if len(window) < len(WINDOW):
        if header.BitsStored != 8 or header.PixelRepresentation or not np.array_equal(values, stored):
            raise ValueError("the DICOM file has no window, so which value is white `egma build` has to say")
        shown = values / 255
    else:
        centre, width = window
        if header.get("VOILUTFunction") != "LINEAR_EXACT":
            centre, width = centre - 0.5, width - 1
        shown = np.clip((values - centre) / width + 0.5, 0, 1) if width > 0 else np.zeros(2)
        if not np.ptp(shown) >= LEAST_SHOWN:  # false of NaN
            raise ValueError("rescale and window of the DICOM file hide its picture: `egma build` may read it")
    return np.round(255 * (1 - shown if shape == "INVERSE" else shown)).astype(np.uint8)
