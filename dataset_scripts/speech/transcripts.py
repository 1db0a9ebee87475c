"""What was said, in the files that speech recognition and subtitle programs write, -> sentences.

JSON, told apart by its keys; times are seconds unless said:
    `time_stamped_text`   phrases with `begin_time`, `end_time`, as EGD has them
    `sentences`           with `text`, `start_seconds`, `end_seconds`, as the schema has them; taken as they are
    `segments`            of Whisper, faster-whisper and WhisperX: their `words` where they have them, else their `text`
    `chunks`              of the transformers pipeline with `return_timestamps`
    `words`               of Whisper's API, without segments; or a list of such words alone
    `transcription`       of whisper.cpp, in milliseconds: their `tokens` where they have them, else their `text`
WebVTT, SRT: `subtitles.py`. Plain text: sentences without times.

The text of an entry wins over its words: where they spell it, it says what stands between them; where they do not, it
is a phrase with the entry's times. The whole transcript's text only says what stands between the parts.
Where nothing ends a sentence, chunks and segments of several words are the sentences. The last end that is missing is
that of the recording (`duration`, in seconds), or else as late as the other parts' pace has it, which is noted.
Sounds, speakers' labels and special tokens were not dictated: they are taken out and counted. See `_is_sound`.
"""

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from dataset_scripts.files.json_files import parse_json
from dataset_scripts.files.tables import number
from dataset_scripts.files.texts import read_text
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import Sentence, UserError
from dataset_scripts.speech.sentences import (
    TimedText,
    ends_sentence,
    joined,
    note_missing_times,
    spelled,
    timed_sentence,
    timed_sentences,
    untimed_sentences,
    with_blanks_of,
    with_own_blanks,
    with_times_of_neighbours,
)
from dataset_scripts.speech.subtitles import read_cues

PART_TABLE = "transcript parts"
MAX_BYTES = 1 << 24
MAX_SECONDS = 1e12  # no clock shows more, and what is added to it stays a number

# what programs write for sounds, what reports may also hold, and what stands beside it
_SOUND = re.compile(
    "applause|audio|barking|beep(?:s|ing)?|blank|buzz(?:er|ing)|chatter(?:ing)?|chirping|chuckl(?:es|ing)|clack(?:s|ing)"
    "|clank(?:s|ing)|clapping|clears|click(?:s|ing)?|cough(?:s|ing)|crosstalk|exhales|footsteps|gasps|groans|humming"
    "|inaudible|inhales|keyboard|knocking|language|laugh(?:s|ing|ter)|mouse|mumbl(?:es|ing)|music|phone|ringing|rustling"
    "|shuffling|sigh(?:s|ing)|silence|sirens?|sneez(?:es|ing)|sniff(?:s|ing)|speech|speaking|thuds?|typing"
    "|unintelligible|whisper(?:s|ing)|whistling|whoosh(?:es|ing)|yawn(?:s|ing)"
)
_CLINICAL_TOO = re.compile("breath(?:es|ing)?|cough|noise|pause|silent|sounds?|static|tapping|throat")
_BESIDE = re.compile(
    "air|and|background|bell|closes|continues|deeply|door|dramatic|end|foreign|gentle|heavily|in|keys|loud|metal|no|of"
    "|opens|paper|people|piano|playing|quiet|slams|soft|start|stops|the|tongue|upbeat|wind"
)
_WORDS = (_SOUND, _CLINICAL_TOO, _BESIDE)
_BRACKETED = re.compile(r"([\[(*♪♫])([A-Za-z_ ,'-]{1,60})[\])*♪♫]")
_LABEL = re.compile(
    r"\[SPEAKER[_ ]?\w*\]:?|\(SPEAKER [\d?]+\):?|\bSP(?:EA)?K(?:ER)?[_ ]?(?:\d+|[A-Z]):"
    r"|\[_?[A-Z]+_\w*\]|<\|[^|<>]{0,40}\|>|[♩♪♫♬🎵🎶]+|(?<!\S)>>+",
    re.IGNORECASE,
)
_SPECIAL_TOKEN = re.compile(r"\s*(?:\[_\w+\]|<\|[^|<>]*\|>)\s*")


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
    text = read_text(path, path.name, counted, MAX_BYTES)
    sentences = [_moved(sentence, clock_offset_seconds) for sentence in reader(text, path.name, counted)]
    ledger.merge(counted)
    note_missing_times(sentences, path.name, ledger)
    return sentences


def _moved(sentence: Sentence, seconds: float) -> Sentence:
    start, end = sentence["start_seconds"], sentence["end_seconds"]
    if start is None or end is None:
        return sentence
    return Sentence(text=sentence["text"], start_seconds=start + seconds, end_seconds=end + seconds)


def _grouped(parts: list[TimedText], name: str, ledger: Ledger) -> list[Sentence]:
    """Sentences of words, phrases or cues, in the file's order."""
    worded = [part for part in parts if part.text.strip()]
    text, places = joined(worded)
    dictated = _dictated(text, name, ledger)
    spoken = [part._replace(text=dictated[place]) for part, place in zip(worded, places, strict=True)]
    unsaid = [f"{name}: {part.text}" for part, rest in zip(worded, spoken, strict=True) if not rest.text.strip()]
    spoken = [part for part in spoken if part.text.strip()]
    ledger.enter(PART_TABLE, len(parts))
    ledger.keep(PART_TABLE, len(spoken))
    ledger.drop(PART_TABLE, "no_text", [name], len(parts) - len(worded))
    ledger.drop(PART_TABLE, "nobody_said_it", unsaid)
    starts = [part.start_seconds for part in spoken if part.start_seconds is not None]
    if starts != sorted(starts):
        ledger.note("transcript_times_run_backwards", name)
    return timed_sentences(spoken)


def _dictated(text: str, name: str, ledger: Ledger) -> str:
    """The text with blanks in place of what nobody said."""

    def taken_out(found: re.Match[str]) -> str:
        if found.re is _BRACKETED and not _is_sound(found[1], found[2]):
            return found[0]
        ledger.note("text_that_nobody_said_taken_out", f"{name}: {found[0]}")
        return " " * len(found[0])

    return _LABEL.sub(taken_out, _BRACKETED.sub(taken_out, text))


def _is_sound(bracket: str, inside: str) -> bool:
    """Whether words in square brackets, parentheses, asterisks or notes name a sound, not a part of a report."""
    words = re.findall("[a-z']+", inside.lower())
    kinds = {next((kind for kind in _WORDS if kind.fullmatch(word)), None) for word in words}
    return None not in kinds and (_SOUND in kinds or (_CLINICAL_TOO in kinds and bracket != "("))


# --- JSON ---


class _Entry(NamedTuple):
    """An entry of a list: its own text and times, and the words or tokens that spell it, if there are any."""

    whole: TimedText
    words: list[TimedText]


def _from_json(text: str, name: str, ledger: Ledger) -> list[Sentence]:
    value = parse_json(text, name)
    value = {"words": value} if isinstance(value, list) and value else value
    shapes = [key for key in _JSON_SHAPES if isinstance(value, dict) and isinstance(value.get(key), list)]
    if not shapes:
        raise UserError(f"{name}: expected a JSON object with a list {' or '.join(_JSON_SHAPES)}")
    entries = _json_entries(value[shapes[0]], shapes[0], name)
    if shapes[0] == "sentences":
        return [sentence for entry in entries for sentence in _as_is(entry.whole, name, ledger)]
    key = "full_text" if "full_text" in value else "text"
    try:
        full_text = _text(value.get(key) or "")
    except ValueError as error:
        raise UserError(f"{name}: {key} is not as expected: {error}") from None
    if shapes[0] in ("chunks", "words", "transcription"):  # these may be pieces of words
        wholes = with_own_blanks([entry.whole for entry in entries])
        entries = [entry._replace(whole=whole) for entry, whole in zip(entries, wholes, strict=True)]
    by_entry = [_entry_parts(entry, name, ledger) for entry in entries]
    parts = [part for of_entry in by_entry for part in of_entry]
    if shapes[0] in ("chunks", "words"):
        parts = _with_last_end(with_times_of_neighbours(parts, None, _seconds(value.get("duration"))), name, ledger)
    if any(part.text.strip() for part in parts):
        parts = with_blanks_of(full_text, parts, name, ledger)
    has_stops = shapes[0] not in ("chunks", "segments") or any(ends_sentence(part.text) for part in parts)
    are_phrases = 2 * sum(len(entry.whole.text.split()) > 1 for entry in entries) > len(entries)
    left = iter(parts)
    groups = [list(islice(left, len(some))) for some in by_entry] if are_phrases and not has_stops else [parts]
    sentences = [sentence for group in groups for sentence in _grouped(group, name, ledger)]
    return sentences or untimed_sentences(_dictated(full_text, name, ledger))


def _with_last_end(parts: list[TimedText], name: str, ledger: Ledger) -> list[TimedText]:
    if not parts or parts[-1].end_seconds is not None or parts[-1].start_seconds is None:
        return parts
    paces = [
        (part.end_seconds - part.start_seconds) / len(part.text.split())
        for part in parts
        if part.start_seconds is not None and part.end_seconds is not None and part.text.strip()
    ]
    if not paces:
        return parts
    end = parts[-1].start_seconds + median(paces) * len(parts[-1].text.split())
    ledger.note("last_end_is_missing", f"{name}: taken as {end:.2f} s, by the pace of the others")
    return [*parts[:-1], parts[-1]._replace(end_seconds=end)]


def _json_entries(items: list[Any], shape: str, name: str) -> list[_Entry]:
    form, read = _JSON_SHAPES[shape]
    entries: list[_Entry] = []
    for number_of_item, item in enumerate(items, 1):
        try:
            entries.append(read(item))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{name}: {shape} is not as expected in entry {number_of_item}; expected {form}") from None
    return entries


def _entry_parts(entry: _Entry, name: str, ledger: Ledger) -> list[TimedText]:
    whole, words = entry
    if not any(word.text.strip() for word in words):
        return [whole]
    if not whole.text.strip():
        words = with_own_blanks(words)
    elif (placed := spelled(whole.text, words)) is None:
        ledger.note("text_differs_from_its_timed_words", f"{name}: {whole.text.strip()[:80]}")
        return [whole]
    else:
        words = placed
    words[0] = words[0]._replace(is_glued=whole.is_glued)
    return with_times_of_neighbours(words, whole.start_seconds, whole.end_seconds)


def _as_is(part: TimedText, name: str, ledger: Ledger) -> list[Sentence]:
    ledger.enter(PART_TABLE, 1)
    if not part.text.strip():
        ledger.drop(PART_TABLE, "no_text", [name])
        return []
    ledger.keep(PART_TABLE, 1)
    return [timed_sentence(part.text.strip(), part.start_seconds, part.end_seconds)]


def _part(item: dict[str, Any], text: str, start: str, end: str) -> TimedText:
    return TimedText(_text(item[text]), _seconds(item.get(start)), _seconds(item.get(end)))


def _segment(item: dict[str, Any]) -> _Entry:
    words = [_part(word, "word", "start", "end") for word in item.get("words") or []]
    return _Entry(_part({"text": "", **item}, "text", "start", "end"), words)


def _chunk(item: dict[str, Any]) -> _Entry:
    start, end = item["timestamp"]
    return _Entry(TimedText(_text(item["text"]), _seconds(start), _seconds(end)), [])


def _with_offsets(item: dict[str, Any]) -> _Entry:
    tokens = [token for token in item.get("tokens") or [] if not _SPECIAL_TOKEN.fullmatch(_text(token["text"]))]
    return _Entry(_milliseconds(item), [_milliseconds(token) for token in tokens])


def _milliseconds(item: dict[str, Any]) -> TimedText:
    start, end = (_seconds(item["offsets"].get(side)) for side in ("from", "to"))
    return TimedText(_text(item["text"]), None if start is None else start / 1000, None if end is None else end / 1000)


class _Shape(NamedTuple):
    """What an entry of a list looks like, in words, and how it is read."""

    form: str
    read: Callable[[dict[str, Any]], _Entry]


def _phrases(text: str, start: str, end: str) -> _Shape:
    return _Shape(f"{text}, {start} and {end}", lambda item: _Entry(_part(item, text, start, end), []))


_JSON_SHAPES = {
    "time_stamped_text": _phrases("phrase", "begin_time", "end_time"),
    "sentences": _phrases("text", "start_seconds", "end_seconds"),
    "segments": _Shape("text, start, end, and perhaps words with word, start and end", _segment),
    "chunks": _Shape("text, and timestamp with start and end", _chunk),
    "words": _Shape("word, start and end", lambda item: _Entry(_part(item, "word", "start", "end"), [])),
    "transcription": _Shape("text, and offsets with from and to", _with_offsets),
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    if any("\ud800" <= character <= "\udfff" for character in value):  # half a surrogate cannot be written
        raise ValueError("expected text in UTF-8")
    return value


def _seconds(value: object) -> float | None:
    seconds = number(str(value)) if isinstance(value, (int, float, str)) else None
    return seconds if seconds is not None and abs(seconds) < MAX_SECONDS else None


def _from_plain_text(text: str, name: str, ledger: Ledger) -> list[Sentence]:
    return untimed_sentences(_dictated(text, name, ledger))


def _from_subtitles(text: str, name: str, ledger: Ledger) -> list[Sentence]:
    return _grouped(read_cues(text, name, PART_TABLE, ledger), name, ledger)


_READERS: dict[str, Callable[[str, str, Ledger], list[Sentence]]] = {
    ".json": _from_json,
    ".vtt": _from_subtitles,
    ".srt": _from_subtitles,
    ".txt": _from_plain_text,
}
