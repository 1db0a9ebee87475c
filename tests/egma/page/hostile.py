"""Files that somebody might upload to break the page, each with what it must be told."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb_png(side: int = 30_000) -> bytes:
    """A PNG of `side` x `side` pixels in a few kilobytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side + 1) * 200)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8))


def dicom(pixels: bytes, rows: int, columns: int, deflated: bool = False, frames: int = 1) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
    header = Dataset()
    header.file_meta = meta
    header.PatientName, header.PatientID = "Doe^Jane^SECRET", "SECRET-42"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns, header.BitsAllocated, header.BitsStored, header.HighBit = rows, columns, 8, 8, 7
    header.PixelRepresentation, header.PixelData = 0, pixels
    if frames > 1:
        header.NumberOfFrames = frames
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deflated_bomb() -> bytes:
    """A deflated DICOM of a megabyte that inflates to more than a gigabyte."""
    whole = dicom(b"\0" * 64, 8, 8, deflated=True)
    start = whole.index(b"DICM") + 4 + 12 + struct.unpack_from("<I", whole, whole.index(b"DICM") + 12)[0]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = b"\0" * (1 << 20)
    return whole[:start] + b"".join(packer.compress(zeros) for _ in range(1100)) + packer.flush()


SEQUENCE, END_OF_SEQUENCE = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0\0\0\0\0"
ITEM, END_OF_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0"


def nested_sequences(depth: int) -> bytes:
    """A DICOM file with a sequence in a sequence in a sequence."""
    within = (SEQUENCE + ITEM + b"\xff\xff\xff\xff") * depth + (END_OF_ITEM + END_OF_SEQUENCE) * depth
    return _with_elements(within)


def wide_sequence(items: int) -> bytes:
    """A DICOM file with a sequence of many empty items."""
    return _with_elements(SEQUENCE + (ITEM + b"\0\0\0\0") * items + END_OF_SEQUENCE)


def _with_elements(elements: bytes) -> bytes:
    whole = dicom(bytes(range(64)), 8, 8)
    place = whole.index(b"\x28\x00\x02\x00US")  # SamplesPerPixel
    return whole[:place] + elements + whole[place:]


def channels(side: int) -> bytes:
    """A PNG of colour and alpha, a quarter of a gigabyte once it is decoded at 8,000 pixels a side."""
    values = np.zeros((side, side, 4), np.uint8)
    values[::2] = (10, 200, 30, 40)
    return encoded(Image.fromarray(values), "PNG", compress_level=1)


def hostile_pictures() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and a part of the message."""
    yield "bomb.png", bomb_png(), "too many pixels"
    yield "large.png", bomb_png(7_000), "7,000 x 7,000 pixels"
    yield "drawing.svg", SVG, "no PNG, JPEG or DICOM"
    yield "drawing.png", SVG, "no PNG, JPEG or DICOM"
    yield "truncated.jpg", encoded(noise(), "JPEG")[:900], "cannot be read"
    yield "truncated.png", encoded(noise(), "PNG")[:900], "cannot be read"
    yield "empty.png", b"", "0 bytes"
    yield "text.png", b"../../etc/passwd", "no PNG, JPEG or DICOM"
    yield "picture.gif", encoded(noise(), "GIF"), "no PNG, JPEG or DICOM"
    yield "picture.tiff", encoded(noise(), "TIFF"), "no PNG, JPEG or DICOM"
    yield "pages.png", encoded(noise(), "PNG", save_all=True, append_images=[noise(), noise()]), "3 pages"
    yield "cmyk.jpg", encoded(noise().convert("CMYK"), "JPEG"), "of a kind that cannot be shown"
    yield "bomb.dcm", deflated_bomb(), "too many pixels"
    yield "truncated.dcm", dicom(b"\1" * 4096, 64, 64)[:700], "cannot be read"
    yield "frames.dcm", dicom(b"\1" * 8192, 64, 64, frames=2), "several frames"
    yield "nested.dcm", nested_sequences(5_000), "cannot be read"
    yield "wide.dcm", wide_sequence(1_000_000), "too many items"
    yield "channels.png", channels(5_568), "of 4 channels"
    yield "swapped.png", b"\x89PNG\r\n\x1a\n".ljust(128, b"\0") + dicom(b"", 8, 8)[128:], "cannot be read"
    yield "<script>alert(1)</script>.png", SVG, "no PNG, JPEG or DICOM"


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Pictures that are something else, too."""
    picture = encoded(noise(), "PNG")
    yield "page.png", picture + b"<html><script>SECRET</script></html>"
    yield "archive.png", picture + b"PK\x03\x04SECRET"
    yield "two.jpg", encoded(noise(), "JPEG") + picture + b"SECRET"
    yield "preamble.dcm", b"<script>SECRET</script>".ljust(128, b" ") + dicom(bytes(range(64)), 8, 8)[128:]


def hostile_recordings() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and a part of the message."""
    columns = {"x": [0.4] * 5, "y": [0.4] * 5, "start": [0.0, 1.0, 2.0, 3.0, 4.0], "duration": [0.3] * 5}

    def recording(sentences: Any = None, **changed: Any) -> bytes:
        said = {} if sentences is None else {"sentences": sentences}
        return json.dumps({"fixations": columns | changed} | said).encode()

    before = {"text": "heart", "start_seconds": -5, "end_seconds": -2}
    yield "negative.json", recording([before]), "sentence 1 is said from -5 to -2 s; expected from 0 on"
    yield "clocks.json", recording(start=[1e300] * 5), "not a number"
    yield "ages.json", recording(duration=[1e300] * 5), "which no eye does"
    yield "wide.json", b"[" + b",".join([b"[]"] * 330_000) + b"]", "330,001 lists and objects"
    yield "objects.json", b"[" + b",".join([b"{}"] * 2_000_000) + b"]", "2,000,001 lists and objects"
    yield "deep.json", recording()[:-1] + b', "z": ' + b"[" * 900 + b"]" * 900 + b"}", "nested 901 deep"
    yield "words.json", recording(3), "a JSON object with a list"


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name.replace("/", "_")
    path.write_bytes(content)
    return path
