"""Untrusted input -> what the views work on, within limits that are checked before anything is decoded or encoded."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from dataset_scripts.corpora.reflacx_tables import CHEST_LABEL
from dataset_scripts.files.json_files import read_json
from dataset_scripts.files.texts import read_text
from dataset_scripts.gaze.tracker_columns import Frame, Source
from dataset_scripts.gaze.tracker_gaze import read_gaze
from dataset_scripts.images.depth import HIGHEST, Depth
from dataset_scripts.images.dicom import is_dicom
from dataset_scripts.images.pictures import FORMATS, encode_image
from dataset_scripts.ledger import Impossible, Ledger
from dataset_scripts.schema import Box, Finding, Reading, Recording, Sentence, UserError, oversize
from dataset_scripts.speech.sentences import split_sentences
from dataset_scripts.speech.transcripts import read_transcript
from egma.page.safety import require_flat
from modeling_egma.pictures_egma import as_picture

UNITS = HIGHEST / 255  # 16-bit greys in one of 8 bits
SHOWN_SIDE = 1024  # pixels of the long side, as shown and as encoded
MAX_SENTENCES, MAX_SENTENCE_CHARACTERS = 24, 400
MAX_REPORT_CHARACTERS = MAX_SENTENCES * MAX_SENTENCE_CHARACTERS
MAX_FINDINGS, MAX_PROMPTS, MAX_PROMPT_CHARACTERS = 32, 200, 2 * MAX_REPORT_CHARACTERS
MAX_RECORDING_BYTES, MAX_FIXATIONS = 1 << 23, 5000
MAX_DEPTH, MAX_LISTS = 16, 50_000  # of JSON: an object a sample, ten minutes of them
PROMPT_SEPARATOR = "|"
MOUSE_SOURCE = "tracker/mouse"


class DeepPicture(NamedTuple):
    """A radiograph's greys of 16 bits as PNG, their higher half red, the lower green.

    `low` and `high` are those that the 8-bit picture shows black and white, in steps of 1 / 255 of the range.
    """

    png: bytes
    low: float
    high: float


@dataclass(frozen=True)
class Picture:
    """A radiograph as the page shows it, at most SHOWN_SIDE pixels; `width`, `height` are those of its source.

    `chest` is the lungs' frame (x_min, y_min, x_max, y_max), fractions of the image, where the corpus has one;
    `generated` says that no patient exists; `findings` are those that the corpus' labels name;
    `depth` is there where the source has more than 8 bits.
    """

    name: str
    png: bytes
    width: int
    height: int
    chest: tuple[float, float, float, float] | None = None
    generated: bool = False
    findings: tuple[Finding, ...] = ()
    depth: DeepPicture | None = None

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.png), formats=("PNG",))


def png_address(png: bytes) -> str:
    """A picture as a data address: no file is served."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def open_picture(path: Path) -> Picture:
    """A PNG, JPEG or DICOM file, known by its bytes and not by its name.

    Raises:
        Dropped, UserError: it is none, has too many pixels or several pages, or is damaged.
    """
    if not is_dicom(path):
        _check_header(path)
    try:
        encoded = encode_image(path, SHOWN_SIDE, Ledger(), with_depth=True)
    except Impossible:  # its message names a path, and is for the command line
        raise UserError("DICOM cannot be read here: pydicom is missing (pip install -e '.[dicom]').") from None
    depth = None if encoded.depth is None else _deep_picture(encoded.depth)
    return Picture(_plain_name(path.name), encoded.png, encoded.width, encoded.height, depth=depth)


def _deep_picture(depth: Depth) -> DeepPicture:
    halves = [depth.values >> 8, depth.values & 255, np.zeros_like(depth.values)]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(halves, axis=-1).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return DeepPicture(buffer.getvalue(), depth.low / UNITS, depth.high / UNITS)


def _check_header(path: Path) -> None:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            said, pages = oversize(*picture.size, len(picture.getbands())), getattr(picture, "n_frames", 1)
    except UnidentifiedImageError:
        raise UserError("The file is no PNG, JPEG or DICOM picture.") from None
    except Exception:  # which whoever decodes it says
        return
    if said:
        raise UserError(f"The picture has {said}.")
    if pages > 1:
        raise UserError(f"The picture has {pages} pages; expected one.")


def _plain_name(name: str) -> str:
    """The stem of an uploaded name, as letters, digits, - and _, for the files that a person downloads again."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem)[:60].strip("_") or "radiograph"


def picture_of(reading: Reading, generated: bool = False) -> Picture:
    """The picture of a corpus' reading."""
    image = as_picture(reading["image"])
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    name, chest = _plain_name(reading["image_id"]), _chest(reading["boxes"])
    findings = tuple(reading["findings"])
    return Picture(name, buffer.getvalue(), reading["width"], reading["height"], chest, generated, findings)


def _chest(boxes: Sequence[Box]) -> tuple[float, float, float, float] | None:
    found = [(box["x_min"], box["y_min"], box["x_max"], box["y_max"]) for box in boxes if box["label"] == CHEST_LABEL]
    return found[0] if found else None


def typed_sentences(report: object) -> list[str]:
    """The sentences of a typed report: a line ends one, and so does a full stop.

    Raises:
        UserError: none, too many, or one that is too long.
    """
    text = _text(report)
    if len(text) > MAX_REPORT_CHARACTERS:
        raise UserError(f"The text has {len(text):,} characters; at most {MAX_REPORT_CHARACTERS:,} are read.")
    sentences = [sentence for line in text.splitlines() for sentence in split_sentences(line)]
    check_sentences(sentences)
    return sentences


def check_sentences(sentences: Sequence[str]) -> None:
    """Raise UserError when they are none, too many, or one is too long."""
    if not sentences:
        raise UserError("Type at least one sentence.")
    if len(sentences) > MAX_SENTENCES:
        raise UserError(f"There are {len(sentences)} sentences; at most {MAX_SENTENCES} are shown.")
    longest = max(map(len, sentences))
    if longest > MAX_SENTENCE_CHARACTERS:
        raise UserError(f"A sentence has {longest:,} characters; at most {MAX_SENTENCE_CHARACTERS} are read.")


def typed_prompts(text: object) -> dict[str, list[str]]:
    """Findings and prompts, a finding a line: `Finding: prompt | prompt`; a line without prompts is its own prompt.

    Raises:
        UserError: no finding, one twice, too many, or a prompt that is too long.
    """
    lines = [line.strip() for line in _text(text).splitlines() if line.strip()]
    if not lines:
        raise UserError("Type at least one finding, such as: Pneumothorax: There is a pneumothorax.")
    if len(lines) > MAX_FINDINGS:
        raise UserError(f"There are {len(lines):,} findings; at most {MAX_FINDINGS} are scored.")
    prompts: dict[str, list[str]] = {}
    for line in lines:
        name, colon, rest = (part.strip() for part in line.partition(":"))
        parts = [part.strip() for part in rest.split(PROMPT_SEPARATOR) if part.strip()] if colon else [name]
        if not name or not parts:
            missing = "prompt" if name else "finding before the colon"
            raise UserError(f"The line '{line[:80]}' has no {missing}; expected Finding: prompt | prompt.")
        if name in prompts:
            raise UserError(f"The finding '{name[:80]}' is there twice.")
        prompts[name] = parts
    count = sum(map(len, prompts.values()))
    if count > MAX_PROMPTS:
        raise UserError(f"There are {count:,} prompts; at most {MAX_PROMPTS} are scored.")
    characters = sum(len(part) for parts in prompts.values() for part in parts)
    if characters > MAX_PROMPT_CHARACTERS:  # others wait for as long as they take
        raise UserError(
            f"The prompts have {characters:,} characters together; at most {MAX_PROMPT_CHARACTERS:,} are scored."
        )
    longest = max(len(text) for name, parts in prompts.items() for text in (name, *parts))
    if longest > MAX_SENTENCE_CHARACTERS:
        raise UserError(f"A finding or prompt has {longest:,} characters; at most {MAX_SENTENCE_CHARACTERS} are read.")
    return prompts


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError("Expected text.")
    return value


class Opened(NamedTuple):
    """A recording, what was noted on the way (units, what was left out and why), and whether a mouse stood for eyes."""

    recording: Recording
    notes: list[str]
    by_mouse: bool


def open_recording(gaze: Path, transcript: Path | None, picture: Picture) -> Opened:
    """A recording of `picture`.

    Args:
        gaze: `.json` with the schema's `fixations` (and `sentences`), or a tracker's `.csv` (docs/tracker.md).
        transcript: as docs/tracker.md has them; None: the sentences of the JSON file, if it has some.

    Raises:
        Dropped, UserError: a file that is none of these, or with nothing on the image, or not a sentence in a
            transcript that was given.
    """
    for path in (gaze, transcript):
        if path is not None and path.stat().st_size > MAX_RECORDING_BYTES:
            raise UserError(f"{path.name}: larger than {MAX_RECORDING_BYTES:,} bytes; expected one reading.")
    ledger = Ledger()
    for path in (gaze, transcript):
        if path is not None and path.suffix.lower() == ".json":
            require_flat(read_text(path, path.name, ledger), path.name, MAX_DEPTH, MAX_LISTS)
    frame = Frame(picture.width, picture.height, screen=(), width_degrees=None)
    with _named_alone(gaze):
        fixations = read_gaze(Source(gaze, "recording", frame, ledger))
    if fixations is None:
        found = "; ".join(_said(ledger)) or "the file has none"
        raise UserError(f"{gaze.name}: no fixation lies on the image ({found}).")
    if len(fixations["x"]) > MAX_FIXATIONS:
        raise UserError(f"{gaze.name}: {len(fixations['x']):,} fixations; at most {MAX_FIXATIONS:,} are shown.")
    declared: dict[str, Any] = read_json(gaze, gaze.name, ledger) if gaze.suffix.lower() == ".json" else {}
    sentences = _sentences(transcript or (gaze if "sentences" in declared else None), ledger)
    notes = _said(ledger)
    image_id = declared.get("image_id")
    if isinstance(image_id, str) and _plain_name(image_id) != picture.name:
        notes.insert(0, f"the file says that it was recorded on another picture, {image_id[:80]}")
    by_mouse = str(declared.get("source")).endswith(MOUSE_SOURCE)
    return Opened(Recording(sentences, fixations, [], []), notes, by_mouse)


def _sentences(speech: Path | None, ledger: Ledger) -> list[Sentence]:
    """Those of a transcript, or of the JSON of a recording, which may have none."""
    if speech is None:
        return []
    counted = Ledger()
    sentences = read_transcript(speech, 0.0, counted)
    if not sentences and counted.tables:
        raise UserError(f"{speech.name}: no sentence can be read from it ({'; '.join(_said(counted))}).")
    if sentences:
        check_sentences([sentence["text"] for sentence in sentences])
    for number, sentence in enumerate(sentences, 1):
        start, end = sentence["start_seconds"], sentence["end_seconds"]
        if start is not None and start < 0:
            raise UserError(
                f"{speech.name}: sentence {number} is said from {start:g} to {end:g} s; expected from 0 on."
            )
    ledger.merge(counted)
    return sentences


@contextmanager
def _named_alone(path: Path) -> Iterator[None]:
    """Where a message names the file, its name and not where it waits on this machine."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def _said(ledger: Ledger) -> list[str]:
    """The ledger in words: reasons and counts, and what a note names beside the file."""
    said = [
        f"{found.count} of {tally.rows_in} {table} left out: {reason.replace('_', ' ')}"
        for table, tally in ledger.tables.items()
        for reason, found in tally.dropped.items()
    ]
    for reason, found in ledger.notes.items():
        _, colon, named = found.first[0].partition(": ")
        said.append(reason.replace("_", " ") + colon + named)
    return said
