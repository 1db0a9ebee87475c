"""What was said, in the files that speech recognition and subtitle programs write, -> sentences.

JSON, told apart by its keys; times are seconds unless said:
    `time_stamped_text`   phrases with `begin_time`, `end_time`, as EGD has them
    `sentences`           with `text`, `start_seconds`, `end_seconds`, as the schema has them; taken as they are
    `segments`            of Whisper, faster-whisper and WhisperX: their `words` where they have them, else their `text`
    `chunks`              of the transformers pipeline with `return_timestamps`
    `transcription`       of whisper.cpp, in milliseconds
WebVTT, SRT: every cue is a phrase; tags are taken out. Plain text: sentences without times.

Subtitles are read here: `webvtt-py` passes over a damaged cue in silence, `pysubs2` takes a number in the last line of
a cue for the next cue's.
"""

import html
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.json_files import parse_json
from dataset_scripts.report import Ledger
from dataset_scripts.schema import Sentence, UserError
from dataset_scripts.sentences import TimedText, timed_sentences, untimed_sentences
from dataset_scripts.tables import number

PART_TABLE = "transcript parts"
MAX_BYTES = 1 << 24
MAX_SECONDS = 1e12  # no clock shows more, and what is added to it stays a number
_ARROW = "-->"
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_CUE_TIMES = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s.*)?", re.ASCII)
_TAG = re.compile(r"</?[A-Za-z0-9][^<>]*>")
_VTT_BLOCKS = ("WEBVTT", "NOTE", "STYLE", "REGION")


def read_transcript(path: Path, clock_offset_seconds: float, ledger: Ledger) -> list[Sentence]:
    """The sentences of a `.json`, `.vtt`, `.srt` or `.txt` file; empty where it holds no word.

    Parts without a word are dropped and counted. A sentence whose time cannot be told is left untimed, and noted.

    Args:
        path: its name says the format.
        clock_offset_seconds: added to every time: where the transcript's clock starts on that of the gaze.
        ledger: counts the words, phrases and cues under PART_TABLE.

    Raises:
        UserError: another format, or not what its name says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path.name}: expected a transcript that ends in {', '.join(_READERS)}")
    counted = Ledger()
    sentences = [_moved(sentence, clock_offset_seconds) for sentence in reader(_read_text(path), path.name, counted)]
    ledger.merge(counted)
    timed = sum(sentence["start_seconds"] is not None for sentence in sentences)
    if sentences and not timed:
        ledger.note("transcript_without_times", path.name)
    elif timed < len(sentences):
        ledger.note("some_sentences_without_time", f"{path.name}: {len(sentences) - timed} of {len(sentences)}")
    return sentences


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path.name}: larger than {MAX_BYTES} bytes; expected a transcript")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: expected UTF-8; byte {error.start + 1} is none of it") from None


def _moved(sentence: Sentence, seconds: float) -> Sentence:
    start, end = sentence["start_seconds"], sentence["end_seconds"]
    if start is None or end is None:
        return sentence
    return Sentence(text=sentence["text"], start_seconds=start + seconds, end_seconds=end + seconds)


def _grouped(parts: list[TimedText], name: str, ledger: Ledger) -> list[Sentence]:
    """Sentences of words, phrases or cues, in the file's order."""
    spoken = [part for part in parts if part.text]
    ledger.enter(PART_TABLE, len(parts))
    ledger.keep(PART_TABLE, len(spoken))
    ledger.drop(PART_TABLE, "no_text", [name], len(parts) - len(spoken))
    starts = [part.start_seconds for part in spoken if part.start_seconds is not None]
    if starts != sorted(starts):
        ledger.note("transcript_times_run_backwards", name)
    return timed_sentences(spoken)


# --- JSON ---


def _from_json(text: str, name: str, ledger: Ledger) -> list[Sentence]:
    value = parse_json(text, name)
    shapes = [key for key in _JSON_SHAPES if isinstance(value, dict) and isinstance(value.get(key), list)]
    if not shapes:
        raise UserError(f"{name}: expected a JSON object with a list {' or '.join(_JSON_SHAPES)}")
    parts = _json_parts(value[shapes[0]], shapes[0], name)
    if shapes[0] == "sentences":
        return [sentence for part in parts for sentence in _as_is(part, name, ledger)]
    try:
        full_text = _text(value.get("full_text") or "")
    except ValueError as error:
        raise UserError(f"{name}: full_text is not as expected: {error}") from None
    return _grouped(parts, name, ledger) or untimed_sentences(full_text)


def _json_parts(items: list[Any], shape: str, name: str) -> list[TimedText]:
    form, read = _JSON_SHAPES[shape]
    parts: list[TimedText] = []
    for number_of_item, item in enumerate(items, 1):
        try:
            parts.extend(read(item))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{name}: {shape} is not as expected in entry {number_of_item}; expected {form}") from None
    return parts


def _as_is(part: TimedText, name: str, ledger: Ledger) -> list[Sentence]:
    ledger.enter(PART_TABLE, 1)
    if not part.text:
        ledger.drop(PART_TABLE, "no_text", [name])
        return []
    ledger.keep(PART_TABLE, 1)
    start, end = part.start_seconds, part.end_seconds
    if start is None or end is None or end < start:
        start = end = None
    return [Sentence(text=part.text, start_seconds=start, end_seconds=end)]


def _part(item: dict[str, Any], text: str, start: str, end: str) -> Iterator[TimedText]:
    yield TimedText(_text(item[text]), _seconds(item.get(start)), _seconds(item.get(end)))


def _segment(item: dict[str, Any]) -> Iterator[TimedText]:
    """WhisperX times no digits: such a word at either end of its segment takes the segment's own start or end."""
    words = [part for word in item.get("words") or [] for part in _part(word, "word", "start", "end")]
    (whole,) = _part({"text": "", **item}, "text", "start", "end")
    if not words:
        yield whole
        return
    if words[0].start_seconds is None:
        words[0] = words[0]._replace(start_seconds=whole.start_seconds)
    if words[-1].end_seconds is None:
        words[-1] = words[-1]._replace(end_seconds=whole.end_seconds)
    yield from words


def _chunk(item: dict[str, Any]) -> Iterator[TimedText]:
    start, end = item["timestamp"]
    yield TimedText(_text(item["text"]), _seconds(start), _seconds(end))


def _offsets(item: dict[str, Any]) -> Iterator[TimedText]:
    times = (_seconds(item["offsets"].get(side)) for side in ("from", "to"))
    yield TimedText(_text(item["text"]), *(None if time is None else time / 1000 for time in times))


class _Shape(NamedTuple):
    """What an entry of a list looks like, in words, and how it is read."""

    form: str
    read: Callable[[dict[str, Any]], Iterator[TimedText]]


_JSON_SHAPES = {
    "time_stamped_text": _Shape(
        "phrase, begin_time and end_time", lambda item: _part(item, "phrase", "begin_time", "end_time")
    ),
    "sentences": _Shape(
        "text, start_seconds and end_seconds", lambda item: _part(item, "text", "start_seconds", "end_seconds")
    ),
    "segments": _Shape("text, start, end, and perhaps words with word, start and end", _segment),
    "chunks": _Shape("text, and timestamp with start and end", _chunk),
    "transcription": _Shape("text, and offsets with from and to", _offsets),
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    if any("\ud800" <= character <= "\udfff" for character in value):  # half a surrogate cannot be written
        raise ValueError("expected text in UTF-8")
    return value.strip()


def _seconds(value: object) -> float | None:
    seconds = number(str(value)) if isinstance(value, (int, float, str)) else None
    return seconds if seconds is not None and abs(seconds) < MAX_SECONDS else None


# --- subtitles and plain text ---


def _from_subtitles(text: str, name: str, ledger: Ledger) -> list[Sentence]:
    """Cues: a line with the times, then text up to a blank line or the next cue."""
    if name.lower().endswith(".vtt") and not text.startswith("WEBVTT"):
        raise UserError(f"{name}: expected the first line WEBVTT")
    parts: list[TimedText] = []
    for first_line, block in _blocks(text):
        at = [index for index, line in enumerate(block) if _ARROW in line]
        if not at and not block[0].startswith(_VTT_BLOCKS):
            ledger.enter(PART_TABLE, 1)
            ledger.drop(PART_TABLE, "text_outside_cue", [f"{name} line {first_line}"])
        for index, end in pairwise([*at, len(block)]):
            lines = block[index + 1 : end]
            if end < len(block) and lines and lines[-1].strip().isdecimal():
                lines.pop()  # the number of the next cue, which lacks the blank line before it
            times = _CUE_TIMES.fullmatch(block[index])
            if times is None:
                ledger.enter(PART_TABLE, 1)
                ledger.drop(PART_TABLE, "cue_time_not_understood", [f"{name} line {first_line + index}"])
            else:
                start, stop = _clock(times.groups()[:4]), _clock(times.groups()[4:])
                parts.append(TimedText(_plain(" ".join(lines)), start, stop))
    return _grouped(parts, name, ledger)


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not blank, with the number of their first line."""
    block: list[str] = []
    for index, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            block.append(line)
        elif block:
            yield index - len(block), block
            block = []


def _clock(fields: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (field or "0" for field in fields)
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + int(fraction) / 10 ** len(fraction)


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", text)).split())


def _from_plain_text(text: str, name: str, ledger: Ledger) -> list[Sentence]:
    return untimed_sentences(text)


_READERS: dict[str, Callable[[str, str, Ledger], list[Sentence]]] = {
    ".json": _from_json,
    ".vtt": _from_subtitles,
    ".srt": _from_subtitles,
    ".txt": _from_plain_text,
}
