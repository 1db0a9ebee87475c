"""Pictures that somebody made to break a door: each is answered soon, in a gigabyte, with the row or file named."""

import contextlib
import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import pipeline

from dataset_scripts import build, schema
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.schema import UserError, load_readings
from egma.inference.embeddings import Images
from egma.page.inputs import open_picture
from egma.programs import embed
from egma.training.readings import Readings
from egma.training.start import grey_statistics
from modeling_egma import pictures_egma
from tests.dataset_scripts.images.test_dicom import picture, saved
from tests.egma.page.hostile import bomb_png, png_chunk

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

GIGABYTE, MOST_SECONDS = 1 << 20, 2  # the first in KiB
STATUS = Path("/proc/self/status")
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def stripes(width: int, height: int, colour: int = 0, depth: int = 8) -> bytes:
    """A PNG of equal rows, which packs a thousandfold."""
    row = b"\0" + np.resize(np.arange(256, dtype=np.uint8), width * CHANNELS[colour] * depth // 8).tobytes()
    packer = zlib.compressobj(1)
    pixels = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def coded_dicom(kind: str, syntax: str, side: int, **options: Any) -> Any:
    """A DICOM header of 24 x 16 pixels, with a codestream of many more."""
    header = picture((np.arange(384).reshape(24, 16) % 200).astype(np.uint8))
    frame = encoded(Image.new("L", (side, side)), kind, **options)
    header.file_meta.TransferSyntaxUID, header.PixelData = syntax, encapsulate([frame])
    header["PixelData"].VR = "OB"
    return header


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8))
REFUSED: dict[str, Callable[[], bytes]] = {
    "bomb": bomb_png,
    "below Pillow's own limit": lambda: stripes(13_000, 13_000),
    "four channels": lambda: stripes(5_600, 5_700, colour=6),
    "30,000 x 1": lambda: stripes(30_000, 1, colour=2),
    "1 x 30,000": lambda: stripes(1, 30_000),
    "truncated": lambda: encoded(NOISE, "JPEG")[:900],
    "CMYK": lambda: encoded(NOISE.convert("CMYK"), "JPEG"),
    "16-bit colours": lambda: stripes(64, 48, colour=2, depth=16),
    "no picture": lambda: b"<svg/>",
}
# at the converters and the page
DICOMS = {
    "JPEG in DICOM": lambda: coded_dicom("JPEG", uid.JPEGBaseline8Bit, 13_000),
    "JPEG 2000 in DICOM": lambda: coded_dicom("JPEG2000", uid.JPEG2000Lossless, 4_000, no_jp2=True, irreversible=False),
}
LARGEST: dict[str, Callable[[], bytes]] = {
    "grey": lambda: stripes(5_600, 5_700),
    "colours": lambda: stripes(5_600, 5_700, colour=2),
    "colours and alpha": lambda: stripes(4_800, 4_900, colour=6),
    "16 bits": lambda: stripes(5_600, 5_700, depth=16),
}


def reset_peak() -> int:
    """KiB in use, from which on the peak counts again."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _kibibytes("VmRSS")


def _kibibytes(name: str) -> int:
    if not STATUS.exists():
        pytest.skip("the peak is read from Linux")
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))


@pytest.fixture
def doors(tiny_model: Any, processor: Any) -> dict[str, Callable[[Path], Any]]:
    ground = pipeline("egma-grounding", model=tiny_model, processor=processor, tokenizer=processor.tokenizer)
    return {
        "converter": lambda path: encode_image(path, 1024, Ledger()),
        "page": open_picture,
        "processor": lambda path: processor(images=[str(path)]),
        "grounding": lambda path: ground.preprocess({"image": str(path), "sentences": ["clear"]}),
    }


def answer(door: Callable[[Path], Any], path: Path) -> tuple[str, int, float]:
    """What is said, "" where nothing is refused; the peak above idle in KiB; seconds of the processor."""
    idle, start, said = reset_peak(), time.process_time(), ""
    try:
        door(path)
    except Dropped as error:
        said = f"{error.reason} {error.where}"
    except ValueError as error:
        said = str(error)
    return said, _kibibytes("VmHWM") - idle, time.process_time() - start


@pytest.mark.parametrize("kind", [*REFUSED, *DICOMS])
def test_it_is_refused_soon_and_in_little_memory(tmp_path: Path, doors: dict[str, Any], kind: str) -> None:
    path = tmp_path / "hostile.png"  # whatever it is
    if kind in DICOMS:
        saved(tmp_path, DICOMS[kind](), path.name)
    else:
        path.write_bytes(REFUSED[kind]())
    for name, door in doors.items():
        said, peak, seconds = answer(door, path)
        assert said and (name == "page" or path.name in said), (name, said)
        assert peak < GIGABYTE / 8 and seconds < MOST_SECONDS, (name, peak, seconds)


@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_that_is_read_takes_no_gigabyte(tmp_path: Path, doors: dict[str, Any], kind: str) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(LARGEST[kind]())
    for name, door in doors.items():
        said, peak, _ = answer(door, path)
        assert bool(said) == (kind == "16 bits" and name in ("processor", "grounding")), (name, said)
        assert peak < GIGABYTE, (name, peak)


def test_the_policy_is_one() -> None:
    names = ("MAX_PIXELS", "MAX_PIXEL_BYTES", "MAX_SIDE")
    assert [getattr(schema, name) for name in names] == [getattr(pictures_egma, name) for name in names]


@pytest.mark.parametrize("layout", ["image_text", "tracker"])
def test_converters_count_and_name_what_they_drop(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    names = {f"{place}.png": kind for place, kind in enumerate(REFUSED)}
    for name, kind in names.items():
        (source / name).write_bytes(REFUSED[kind]())
    (source / "good.png").write_bytes(encoded(NOISE, "PNG"))
    table = "metadata.csv" if layout == "image_text" else "readings.csv"
    lines = [f"{name},clear" for name in [*names, "good.png"]]
    if layout == "tracker":
        (source / "gaze.csv").write_text("x,y,start,duration\n30,10,0.5,0.25\n60.5,40,1.0,0.5\n")
        lines = [f"{name},{name},gaze.csv" for name in [*names, "good.png"]]
    columns = {"metadata.csv": "file_name,text", "readings.csv": "reading_id,image,gaze"}[table]
    (source / table).write_text("\n".join([columns, *lines]))
    idle = reset_peak()
    assert build.main([layout, "--source", str(source), "--output", str(tmp_path / "out"), "--max-loss", "0.95"]) == 0
    assert _kibibytes("VmHWM") - idle < GIGABYTE / 2
    dropped = json.loads((tmp_path / "out" / "conversion_report.json").read_text())["tables"][table]["dropped"]
    assert sum(one["count"] for one in dropped.values()) == len(names)
    said = " ".join(first for one in dropped.values() for first in one["first"])
    assert all(name in said for name in list(names)[:3]) and dropped["image_too_large"]["count"] == 5


@pytest.fixture(scope="module")
def hostile_corpus(tmp_path_factory: Any, phantom_data: Path) -> Callable[[bytes], Path]:
    def made(content: bytes) -> Path:
        folder = tmp_path_factory.mktemp("hostile")
        (folder / "data").mkdir()
        table = pq.read_table(next(phantom_data.glob("data/test-*.parquet")))
        images = table["image"].to_pylist()
        images[2] = {"bytes": content, "path": None}
        table = table.set_column(table.column_names.index("image"), table.field("image"), [images])
        for split in ("train", "validation", "test"):
            pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
        return folder

    return made


@pytest.mark.parametrize("kind", ["bomb", "below Pillow's own limit", "30,000 x 1", "truncated", "CMYK", "no picture"])
def test_a_corpus_that_holds_it_is_refused_by_the_row(
    hostile_corpus: Callable[[bytes], Path], processor: Any, kind: str
) -> None:
    rows = load_readings(hostile_corpus(REFUSED[kind]()), "test")
    reading, image = rows.select_columns(["reading_id", "image_id"])[2].values()
    entries = {
        "evaluation, embeddings": (lambda: Images(processor, rows).pixels([image]), f"image '{image}': "),
        "training": (lambda: Readings([rows], 1.0, 0)[2], f"reading '{reading}': "),
        "start of a training": (lambda: grey_statistics(rows), "row 2 of the training split: "),
    }
    for name, (read, message) in entries.items():
        idle, start = reset_peak(), time.process_time()
        with pytest.raises(UserError) as raised:
            read()
        assert str(raised.value).startswith(message), (name, str(raised.value))
        assert _kibibytes("VmHWM") - idle < GIGABYTE / 8 and time.process_time() - start < MOST_SECONDS, name


def test_a_program_says_it_in_a_sentence(
    hostile_corpus: Callable[[bytes], Path], tiny_model: Any, processor: Any, tmp_path: Path, capsys: Any
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    corpus = hostile_corpus(bomb_png())
    assert embed.main([str(tmp_path / "model"), "--data", str(corpus), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "image '" in said and "cannot be read" in said
