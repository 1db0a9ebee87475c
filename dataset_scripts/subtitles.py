"""WebVTT and SRT -> timed parts: a cue is a phrase, or as many as there are times inside it; mark-up is taken out.

What was shown already is not said again: captions that roll or grow repeat the line before and add to it, highlighted
ones repeat a sentence once a word, and so time the word. A cue that touches the one before is compared with it.

Subtitles are read here: `webvtt-py` passes over a damaged cue in silence, `pysubs2` takes a number in the last line of
a cue for the next cue's.
"""

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from dataset_scripts.report import Ledger
from dataset_scripts.schema import UserError
from dataset_scripts.sentences import TimedText, with_own_blanks, with_times_of_neighbours

_ARROW = "-->"
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_CUE_TIMES = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s.*)?", re.ASCII)
_TIME_INSIDE = re.compile(f"<{_TIME}>", re.ASCII)
_BREAK = re.compile(r"<br\s*/?>|\\[Nnh]")
# tags, styles of ASS and MicroDVD, speakers' dashes
_MARK_UP = re.compile(r"</?[A-Za-z][^<>]*>|\{(?:\\|[A-Za-z]:)[^{}]*\}|^[ \t]*-[ \t]+", re.MULTILINE)
_MARKED = re.compile(r"<([A-Za-z]+)[^<>]*>([^<>]*)</\1>")
_VTT_BLOCKS = ("WEBVTT", "NOTE", "STYLE", "REGION")
_TOUCHING_SECONDS = 0.1
_FLASH_SECONDS = 0.05  # YouTube shows what was said once more, for a hundredth


class _Cue(NamedTuple):
    place: str
    start: float
    end: float
    marked_up: str
    lines: list[str]  # that have words, without mark-up
    parts: list[TimedText]

    @property
    def words(self) -> list[str]:
        return " ".join(self.lines).split()


def read_cues(text: str, name: str, table: str, ledger: Ledger) -> list[TimedText]:
    """What was said in the cues; those that are damaged or show nothing new are counted in `table`.

    Raises:
        UserError: a `.vtt` does not begin as one.
    """
    if name.lower().endswith(".vtt") and not text.startswith("WEBVTT"):
        raise UserError(f"{name}: expected the first line WEBVTT")
    parts: list[TimedText] = []
    before: _Cue | None = None
    for cue in _highlights_joined(list(_cues(text, name, table, ledger)), table, ledger):
        shown = _words_shown(before, cue) if before else 0
        if shown and shown == len(cue.words):
            _repeated(cue, table, ledger)
            if before and cue.words == before.words:
                parts[-1] = parts[-1]._replace(end_seconds=cue.end)
        else:
            parts += _after(shown, cue.parts)
        before = cue if cue.lines else before
    return parts


def _cues(text: str, name: str, table: str, ledger: Ledger) -> Iterator[_Cue]:
    """A line with the times, then text up to an empty line or the next cue."""
    for first_line, block in _blocks(text):
        at = [index for index, line in enumerate(block) if _ARROW in line]
        if not at and not block[0].startswith(_VTT_BLOCKS):
            ledger.enter(table, 1)
            ledger.drop(table, "text_outside_cue", [f"{name} line {first_line}"])
        for index, end in pairwise([*at, len(block)]):
            lines = block[index + 1 : end]
            if end < len(block) and lines and lines[-1].strip().isdecimal():
                lines.pop()  # the number of the next cue, which lacks the blank line before it
            times, place = _CUE_TIMES.fullmatch(block[index]), f"{name} line {first_line + index}"
            if times is None:
                ledger.enter(table, 1)
                ledger.drop(table, "cue_time_not_understood", [place])
            else:
                yield _cue(place, _clock(times.groups()[:4]), _clock(times.groups()[4:]), lines)


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not empty (YouTube writes a blank as a cue's line), with the number of their first."""
    block: list[str] = []
    for index, line in enumerate([*text.split("\n"), ""], 1):
        if line:
            block.append(line)
        elif block:
            yield index - len(block), block
            block = []


def _clock(fields: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (field or "0" for field in fields)
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + int(fraction) / 10 ** len(fraction)


def _cue(place: str, start: float, end: float, lines: list[str]) -> _Cue:
    marked_up = "\n".join(lines)
    texts = [_plain(piece) for piece in _TIME_INSIDE.split(marked_up)[::5]]
    times = [start, *(_clock(found.groups()) for found in _TIME_INSIDE.finditer(marked_up)), end]
    pieces = [TimedText(text, *interval) for text, interval in zip(texts, pairwise(times), strict=True)]
    spoken = with_own_blanks([piece for piece in pieces if piece.text.strip()])
    plain = [line for line in _plain(_TIME_INSIDE.sub("", marked_up)).split("\n") if line.strip()]
    return _Cue(place, start, end, marked_up, plain, spoken or pieces[:1])


def _plain(text: str) -> str:
    return html.unescape(_MARK_UP.sub("", _BREAK.sub(" ", text)))


def _highlights_joined(cues: list[_Cue], table: str, ledger: Ledger) -> Iterator[_Cue]:
    """Cues that follow each other with the same words and another of them marked, as one cue of timed words."""
    run: list[_Cue] = []
    marks: list[range] = []
    for cue in cues:
        mark = _marked_words(cue)
        same = bool(run) and cue.words == run[-1].words and cue.start <= run[-1].end + _TOUCHING_SECONDS
        if same and mark != marks[-1] and not (mark and any(mark.start < earlier.start for earlier in marks)):
            _repeated(cue, table, ledger)
        elif run:
            yield _timed_by_marks(run, marks)
            run, marks = [], []
        run, marks = [*run, cue], [*marks, mark]
    if run:
        yield _timed_by_marks(run, marks)


def _marked_words(cue: _Cue) -> range:
    """Which of the cue's words stand in a tag, empty for none and where the cue has times of its own."""
    found = _MARKED.search(cue.marked_up)
    if found is None or len(cue.parts) > 1:
        return range(0)
    before = _plain(cue.marked_up[: found.start()])
    first = len(before.split()) - (before.strip() != "" and not before[-1].isspace())
    return range(first, first + len(_plain(found[2]).split()))


def _timed_by_marks(run: list[_Cue], marks: list[range]) -> _Cue:
    if len(run) == 1:
        return run[0]
    words = [TimedText(word, None, None) for word in run[0].words]
    for cue, mark in zip(run, marks, strict=True):
        for index in mark:
            start = words[index].start_seconds
            words[index] = words[index]._replace(
                start_seconds=cue.start if start is None else start, end_seconds=cue.end
            )
    return run[0]._replace(end=run[-1].end, parts=with_times_of_neighbours(words, run[0].start, run[-1].end))


def _words_shown(before: _Cue, cue: _Cue) -> int:
    """How many words at the beginning of a cue were shown at the end of the one before, in whole lines."""
    if cue.start > before.end + _TOUCHING_SECONDS:
        return 0
    is_said_again = cue.marked_up == before.marked_up and cue.end - cue.start > _FLASH_SECONDS
    for index in range(len(before.lines) if not is_said_again else 0):
        shown = " ".join(before.lines[index:]).split()
        if cue.words[: len(shown)] == shown:
            return len(shown)
    return 0


def _after(shown: int, parts: list[TimedText]) -> Iterator[TimedText]:
    """The parts without their first words."""
    for part in parts:
        words = part.text.split()
        if shown < len(words) or not words:
            yield part._replace(text=" ".join(words[shown:]), is_glued=None if shown else part.is_glued)
        shown = max(0, shown - len(words))


def _repeated(cue: _Cue, table: str, ledger: Ledger) -> None:
    ledger.enter(table, 1)
    ledger.drop(table, "shown_before", [cue.place])
