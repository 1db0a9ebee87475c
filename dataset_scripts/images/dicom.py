"""Untrusted DICOM files -> 8-bit pictures, as a workstation would first show them.

Stored values pass the Modality LUT (a table, or slope and intercept), then the VOI LUT (a table, or else the first
window) onto 0 ... 255 in one step, and MONOCHROME1 is inverted (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2). Without table or
window eight stored bits stay what they are, and more are scaled by the picture's own range, which the ledger notes.
Padding counts for no range and is black (C.7.5.1.1.2). What a header says of bits, tables, windows and padding is
compared with the values, and noted where they contradict it. pydicom's own functions for
tables and windows believe the header and read no packed table, so they are not used. Needs the extra `dicom`. GDCM is
never asked, as a damaged JPEG-LS file makes it abort the whole process; lossless and 12-bit JPEG are then left to
pylibjpeg-libjpeg, which is under the GPL and so nobody's requirement here.
"""

import io
import struct
import warnings
import zlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.images.depth import Depth, depth_of
from dataset_scripts.ledger import Dropped, Impossible, Ledger
from dataset_scripts.schema import oversize

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 1 << 28  # packed or not; the largest picture that is accepted has half of that
PREAMBLE_BYTES = 128
MAX_ITEMS = 10_000  # of its sequences, and fragments of its picture; pydicom makes an object of each, skipped or not
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # their tag in either order of bytes
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
# markers of JPEG and JPEG-LS that a frame's size follows (ITU-T T.81 B.1.1.3, T.87 C.1.1)
_FRAME_STARTS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_RLE_HEADER_BYTES, _RLE_SEGMENTS = 64, 15
_NEEDED = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
LEAST_SHOWN = 16 / 255  # of the output range; a window or table that leaves less of it to a picture is a wrong one
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.signedinteger[Any]]


def is_dicom(path: Path) -> bool:
    """Whether the file's bytes say that it is DICOM, whatever its name."""
    with path.open("rb") as file:
        return file.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM"


class Person(NamedTuple):
    """A patient as the source writes it, "" where it does not."""

    sex: str = ""
    age: str = ""
    id: str = ""


def person_in(path: Path) -> Person:
    """The patient in the header of a picture that was decoded before; of another format nothing is known.

    Raises:
        Dropped: the header cannot be read.
    """
    if not is_dicom(path):
        return Person()
    from pydicom import dcmread

    tags = ["PatientSex", "PatientAge", "PatientID"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=tags)
            return Person(*(str(header.get(tag) or "").strip() for tag in tags))
        except Exception as error:  # a damaged header makes pydicom fail in any way
            raise Dropped("patient_not_readable", f"{path.name}: {type(error).__name__}") from None


def read_dicom(path: Path, ledger: Ledger, with_depth: bool = False) -> tuple[Image.Image, Depth | None]:
    """The picture in a DICOM file, mode L or RGB, and if asked for its depth, where that is more than 8 bits of grey.

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
        return _picture(path, ledger, with_depth)


def _picture(path: Path, ledger: Ledger, with_depth: bool) -> tuple[Image.Image, Depth | None]:
    from pydicom.pixels.utils import pixel_array

    header = _parse(path)
    _check(header, path.name)
    is_grey = header.SamplesPerPixel == 1
    plugin = _decoder(header, path.name)
    decoded = pixel_array(header, decoding_plugin=plugin, correct_unused_bits=not is_grey)
    if not is_grey:
        return Image.fromarray(decoded), None
    stored, is_padding = _stored(header, decoded.astype(np.int32), path.name, ledger)
    if is_padding.all():
        raise Dropped("image_of_one_grey_level", f"{path.name}: padding only")
    low, high = int(stored[~is_padding].min()), int(stored[~is_padding].max())
    levels, places = np.arange(low, high + 1, dtype=np.int64), np.clip(stored, low, high) - low
    shown = _shown(header, levels, path.name, ledger)
    shown = 1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown
    table = np.round(255 * shown).astype(np.uint8)
    picture = Image.fromarray(np.where(is_padding, 0, table[places]).astype(np.uint8))
    if not with_depth or high - low < 2**8:
        return picture, None
    depth = depth_of(_modality(header, levels, path.name, Ledger()), shown)
    return picture, depth._replace(values=np.where(is_padding, 0, depth.values[places]).astype(np.uint16))


def _parse(path: Path) -> "Dataset":
    """The needed elements; a deflated file is inflated here, as pydicom would do it without a bound."""
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    if meta.TransferSyntaxUID != _DEFLATED:
        _require_few_items(path.read_bytes(), path.name)
        return dcmread(path, specific_tags=list(_NEEDED))
    packed = path.read_bytes()[_META_START + meta.FileMetaInformationGroupLength :]
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacker.decompress(packed, MAX_FILE_BYTES)
    if unpacker.unconsumed_tail:
        raise Dropped("image_too_large", f"{path.name}, inflates to more than {MAX_FILE_BYTES} bytes")
    if not unpacker.eof:
        raise Dropped("image_not_decodable", f"{path.name}: the deflated data are truncated")
    _require_few_items(content, path.name)
    header = dcmread(io.BytesIO(content), force=True, specific_tags=list(_NEEDED))
    meta.TransferSyntaxUID = type(meta.TransferSyntaxUID)(_EXPLICIT_LITTLE_ENDIAN)
    header.file_meta = meta
    return header


def _require_few_items(content: bytes, name: str) -> None:
    items = max(map(content.count, _ITEMS))
    if items > MAX_ITEMS:
        raise Dropped(
            "dicom_with_too_many_items", f"{name}: {items:,} items of sequences; at most {MAX_ITEMS:,} are read"
        )


def _check(header: "Dataset", name: str) -> None:
    """Refuse what is not shown, before anything is decoded."""
    if "PixelData" not in header:
        raise Dropped("dicom_without_picture", name)
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise Dropped("dicom_several_frames", f"{name}, {header.NumberOfFrames} frames")
    if said := oversize(header.Columns, header.Rows, header.SamplesPerPixel):
        raise Dropped("image_too_large", f"{name}, {said}")
    kind, bits = str(header.PhotometricInterpretation), header.BitsAllocated
    # DX pairs them (PS3.3 C.8.11.3.1.2); where they disagree, so do the viewers
    if (kind, shape := header.get("PresentationLUTShape")) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        raise Dropped("dicom_inversion_contradictory", f"{name}: {kind}, PresentationLUTShape {shape}")
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
    elif (coded := _coded_size(header)) != (header.Columns, header.Rows):
        raise Dropped("image_not_decodable", f"{name}: {coded[0]} x {coded[1]} pixels, other than its header says")
    return plugin


def _coded_size(header: "Dataset") -> tuple[int, int]:
    """Width and height that a compressed picture says of itself, which its decoder makes room for."""
    from pydicom.encaps import get_frame

    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    if frame[:2] != b"\xff\xd8":
        with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as picture:
            return picture.size
    place = 2
    while frame[place + 1] not in _FRAME_STARTS:  # past the end, IndexError
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    height, width = struct.unpack_from(">HH", frame, place + 5)
    return width, height


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


def _stored(header: "Dataset", decoded: IntArray, name: str, ledger: Ledger) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """The pixels' values without overlays and other bits that are not theirs, and which of them are padding."""
    bits = int(header.BitsStored)
    lowest = int(header.get("HighBit", bits - 1)) + 1 - bits
    if lowest and np.abs(decoded).max() < 2**bits:
        ledger.note("dicom_high_bit_not_as_said", name)
        lowest = 0
    values = (decoded >> max(lowest, 0)) & (2**bits - 1)
    if header.PixelRepresentation:
        values -= (values >> (bits - 1)) << bits
    is_padding = _padding(header, decoded, name, ledger) | _padding(header, values, name, ledger)
    differs = lowest <= 0 and bool((values != decoded)[~is_padding].any())
    # values that are cut too short jump where they wrap, and bits that are not theirs make them jump
    if differs and _jumps(decoded) < _jumps(values):
        ledger.note("dicom_values_beyond_bits_stored_kept", name)
        return decoded, is_padding
    if differs:
        ledger.note("dicom_bits_beyond_bits_stored_ignored", name)
    return values, is_padding


def _jumps(values: IntArray) -> int:
    return int(np.abs(np.diff(values, axis=1)).sum())


def _padding(header: "Dataset", values: IntArray, name: str, ledger: Ledger) -> npt.NDArray[np.bool_]:
    ends = [header.get(element) for element in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    none = np.zeros(values.shape, dtype=bool)
    if ends[0] is None:
        return none
    # the element may be stored without the sign that the values have, or with one that they lack
    sign = 2 ** (header.BitsAllocated - 1) if header.PixelRepresentation else 0
    found = [(int(end) + sign) % 2**header.BitsAllocated - sign for end in ends if end is not None]
    is_padding = (values >= min(found)) & (values <= max(found))
    others = values[~is_padding]
    if not is_padding.any():
        return none
    if others.size and others.min() < min(found) <= max(found) < others.max():
        ledger.note("dicom_padding_amid_the_values_not_applied", name)
        return none
    ledger.note("dicom_padding_shown_black", name)
    return is_padding


def _shown(header: "Dataset", stored: IntArray, name: str, ledger: Ledger) -> FloatArray:
    """How bright each stored value is shown, black 0 to white 1, of MONOCHROME2."""
    values = _modality(header, stored, name, ledger)
    tables = header.get("VOILUTSequence")
    windowed = None if tables else _windowed(values, header)
    if not tables and windowed is None and header.get("WindowWidth") is not None:
        ledger.note("dicom_window_without_width_not_applied", name)
    shown = _by_table(values, tables[0], header, name, ledger) if tables else windowed
    if shown is not None and np.ptp(shown) >= LEAST_SHOWN:
        return shown
    if shown is not None:
        ledger.note(f"dicom_{'table' if tables else 'window'}_that_hides_the_picture_not_applied", name)
    if header.BitsStored == 8 and np.array_equal(values, stored) and stored[0] >= 0 and stored[-1] <= 255:
        return stored / 255
    ledger.note("dicom_without_window_scaled_to_8_bit_by_its_own_range", name)
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, np.finfo(np.float64).tiny)


def _modality(header: "Dataset", stored: IntArray, name: str, ledger: Ledger) -> FloatArray:
    if header.get("ModalityLUTSequence"):
        return _look_up(stored.astype(np.float64), header.ModalityLUTSequence[0], header)[0]
    slope, intercept = (header.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        ledger.note("dicom_rescale_slope_0_not_applied", name)
        return stored.astype(np.float64)
    values: FloatArray = stored.astype(np.float64) * float(1 if slope is None else slope) + float(intercept or 0)
    if not np.isfinite(values).all():
        raise Dropped("dicom_rescale_not_finite", f"slope {slope}, intercept {intercept}")
    return values


def _by_table(values: FloatArray, item: "Dataset", header: "Dataset", name: str, ledger: Ledger) -> FloatArray:
    """By a VOI LUT whose white is that of the fewest bits, 8 at least, which hold its entries."""
    entries, highest = _look_up(values, item, header)
    bits = max(8, highest.bit_length())
    if bits != item.LUTDescriptor[2]:
        ledger.note("dicom_table_of_other_bits_than_said", name)
    return entries / float(2**bits - 1)


def _look_up(values: FloatArray, item: "Dataset", header: "Dataset") -> tuple[FloatArray, int]:
    """The entries of a LUT item for `values`, the first and the last for those below and above it; its highest."""
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count, data = count % 2**16 or 2**16, item.LUTData
    if isinstance(data, bytes):
        is_swapped = item["LUTData"].VR == "OW" and not header.file_meta.TransferSyntaxUID.is_little_endian
        words = np.frombuffer(data + bytes(len(data) % 2), ">u2" if is_swapped else "<u2")
    else:
        words = np.atleast_1d(np.asarray(data)).astype(np.int64) % 2**16
    # two entries may share a word, the first in its lower half
    table = words.astype("<u2").view(np.uint8) if bits <= 8 and len(words) < count else words
    if len(table) < count:
        raise Dropped("dicom_table_too_short", f"{len(table)} entries, {count} said")
    places = np.clip(np.round(values).astype(np.int64) - first, 0, count - 1)
    return table[places].astype(np.float64), int(table[:count].max())


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
