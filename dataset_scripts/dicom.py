"""Untrusted DICOM files -> 8-bit pictures, as a workstation would first show them.

Stored values pass the Modality LUT (a table, or slope and intercept), then the VOI LUT (a table, or else the first
window) onto 0 ... 255 in one step, and MONOCHROME1 is inverted (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2). Without table or
window eight stored bits stay what they are, and more are scaled by the picture's own range, which the ledger notes.
Needs the extra `dicom`. GDCM is never asked, as a damaged JPEG-LS file makes it abort the whole process; lossless and
12-bit JPEG are then left to pylibjpeg-libjpeg, which is under the GPL and so nobody's requirement here.
"""

import io
import struct
import warnings
import zlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.conversion import Dropped, Impossible
from dataset_scripts.report import Ledger

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 1 << 28  # packed or not; the largest picture that is accepted has half of that
PREAMBLE_BYTES = 128
_META_START = PREAMBLE_BYTES + 4 + 12  # "DICM" and the element that says how long the rest of the file meta group is
_DEFLATED, _EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"
_RLE = "1.2.840.10008.1.2.5"
_DECODERS = {  # of compressed pictures: the plug-in of pydicom, and the package that it needs
    "1.2.840.10008.1.2.4.50": ("pillow", "pillow"),
    "1.2.840.10008.1.2.4.51": ("pylibjpeg", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.57": ("pylibjpeg", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.70": ("pylibjpeg", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pylibjpeg-openjpeg"),
    _RLE: ("pydicom", "pydicom"),
}
_RLE_HEADER_BYTES, _RLE_SEGMENTS = 64, 15
_NEEDED = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
)
FloatArray = npt.NDArray[np.float64]


def is_dicom(path: Path) -> bool:
    """Whether the file's bytes say that it is DICOM, whatever its name."""
    with path.open("rb") as file:
        return file.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM"


def read_dicom(path: Path, max_pixels: int, ledger: Ledger) -> Image.Image:
    """The picture in a DICOM file, mode L or RGB.

    Raises:
        Dropped: without a picture, several frames, too large, or of a kind that is not shown (palettes, more than
            16 bits, ...).
        Impossible: pydicom is not installed.
        Exception: any, on a truncated or damaged file; `images.encode_image` makes Dropped of it.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise Impossible(
            f"{path} is DICOM: it takes pydicom, which the extra `dicom` of this package installs"
        ) from None
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Dropped("image_too_large", f"{path.name}, more than {MAX_FILE_BYTES} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what pydicom tolerates
        return _picture(path, max_pixels, ledger)


def _picture(path: Path, max_pixels: int, ledger: Ledger) -> Image.Image:
    from pydicom.pixels.utils import pixel_array

    header = _parse(path)
    _check(header, path.name, max_pixels)
    stored = pixel_array(header, decoding_plugin=_decoder(header, path.name))
    if header.SamplesPerPixel == 3:
        return Image.fromarray(stored)
    low, high = int(stored.min()), int(stored.max())
    shown = _shown(header, np.arange(low, high + 1, dtype=np.int64), path.name, ledger)
    table = np.round(255 * (1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown)).astype(np.uint8)
    return Image.fromarray(table[stored.astype(np.int64) - low])


def _parse(path: Path) -> "Dataset":
    """The needed elements; a deflated file is inflated here, as pydicom would do it without a bound."""
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    if meta.TransferSyntaxUID != _DEFLATED:
        return dcmread(path, specific_tags=list(_NEEDED))
    packed = path.read_bytes()[_META_START + meta.FileMetaInformationGroupLength :]
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacker.decompress(packed, MAX_FILE_BYTES)
    if unpacker.unconsumed_tail:
        raise Dropped("image_too_large", f"{path.name}, inflates to more than {MAX_FILE_BYTES} bytes")
    if not unpacker.eof:
        raise Dropped("image_not_decodable", f"{path.name}: the deflated data are truncated")
    header = dcmread(io.BytesIO(content), force=True, specific_tags=list(_NEEDED))
    meta.TransferSyntaxUID = type(meta.TransferSyntaxUID)(_EXPLICIT_LITTLE_ENDIAN)
    header.file_meta = meta
    return header


def _check(header: "Dataset", name: str, max_pixels: int) -> None:
    """Refuse what is not shown, before anything is decoded."""
    if "PixelData" not in header:
        raise Dropped("dicom_without_picture", name)
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise Dropped("dicom_several_frames", f"{name}, {header.NumberOfFrames} frames")
    if header.Rows * header.Columns > max_pixels:
        raise Dropped("image_too_large", f"{name}, {header.Columns} x {header.Rows} pixels")
    kind, bits = str(header.PhotometricInterpretation), header.BitsAllocated
    if header.SamplesPerPixel == 1 and kind in ("MONOCHROME1", "MONOCHROME2") and bits in (8, 16):
        return
    if header.SamplesPerPixel == 3 and (kind == "RGB" or kind.startswith("YBR_")) and bits == 8:
        return
    raise Dropped("unexpected_image_mode", f"{name}: {kind}, {header.SamplesPerPixel} samples of {bits} bits")


def _decoder(header: "Dataset", name: str) -> str:
    """The plug-in of pydicom that decodes the picture, "" where nothing is compressed."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return ""
    if syntax not in _DECODERS:
        raise Dropped("dicom_syntax_not_read", f"{name}: {syntax.name}")
    plugin, package = _DECODERS[syntax]
    if plugin not in get_decoder(syntax).available_plugins:
        raise Dropped("dicom_decoder_missing", f"{name}: {syntax.name} needs the package {package}")
    if syntax == _RLE:
        _check_rle(header, name)
    return plugin


def _check_rle(header: "Dataset", name: str) -> None:
    """Refuse an RLE picture that expands to more than its declared size (pydicom would expand it first)."""
    from pydicom.encaps import get_frame

    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    count, *offsets = struct.unpack_from(f"<{_RLE_SEGMENTS + 1}L", frame)
    bounds = [*offsets[:count], len(frame)]
    padding = 256  # what a last run may write beyond the end
    for start, end in pairwise(bounds):
        if start < _RLE_HEADER_BYTES or _expanded_bytes(frame[start:end]) > header.Rows * header.Columns + padding:
            raise Dropped("image_not_decodable", f"{name}: a run-length segment longer than the picture")


def _expanded_bytes(segment: bytes) -> int:
    """How many bytes a PackBits segment stands for (PS3.5 G.3.2)."""
    expanded = position = 0
    while position < len(segment):
        control = segment[position]
        expanded += control + 1 if control < 128 else 257 - control if control > 128 else 0
        position += control + 2 if control < 128 else 2 if control > 128 else 1
    return expanded


def _shown(header: "Dataset", stored: npt.NDArray[np.int64], name: str, ledger: Ledger) -> FloatArray:
    """How bright each stored value is shown, black 0 to white 1, of MONOCHROME2."""
    values = _modality(header, stored)
    if header.get("VOILUTSequence"):
        item = header.VOILUTSequence[0]
        return _look_up(values, item, header) / float(2 ** item.LUTDescriptor[2] - 1)
    if (windowed := _windowed(values, header)) is not None:
        return windowed
    if header.get("WindowWidth") is not None:
        ledger.note("dicom_window_without_width_not_applied", name)
    if header.BitsStored == 8 and np.array_equal(values, stored) and stored[0] >= 0 and stored[-1] <= 255:
        return stored / 255
    ledger.note("dicom_without_window_scaled_to_8_bit_by_its_own_range", name)
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, np.finfo(np.float64).tiny)


def _modality(header: "Dataset", stored: npt.NDArray[np.int64]) -> FloatArray:
    if header.get("ModalityLUTSequence"):
        return _look_up(stored.astype(np.float64), header.ModalityLUTSequence[0], header)
    slope, intercept = (header.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
    values: FloatArray = stored.astype(np.float64) * float(1 if slope is None else slope) + float(intercept or 0)
    if not np.isfinite(values).all():
        raise Dropped("dicom_rescale_not_finite", f"slope {slope}, intercept {intercept}")
    return values


def _look_up(values: FloatArray, item: "Dataset", header: "Dataset") -> FloatArray:
    """The entries of a LUT item for `values`, the first and the last for those below and above it."""
    entries, first = int(item.LUTDescriptor[0]) or 2**16, int(item.LUTDescriptor[1])
    data = item.LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    return table[np.clip(np.round(values).astype(np.int64) - first, 0, entries - 1)].astype(np.float64)


def _windowed(values: FloatArray, header: "Dataset") -> FloatArray | None:
    """The first window as fractions of the output range (PS3.3 C.11.2.1.2, C.11.2.1.3); None where there is none."""
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or not np.isfinite((centre, width)).all():
        return None
    if width < 1 if function == "LINEAR" else width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise Dropped("dicom_unknown_window_function", function)
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    """The first number of an element with one or several; None where it is empty."""
    values = value if hasattr(value, "__len__") and not isinstance(value, str) else [value]
    return None if len(values) == 0 or values[0] is None else float(values[0])
