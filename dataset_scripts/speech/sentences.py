"""Sentences from plain text, and timed sentences from timed words or phrases."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import Sentence

ABBREVIATIONS = frozenset(
    {
        *("al", "approx", "ca", "cf", "dr", "e.g", "etc", "fig", "figs", "i.e", "inc", "incl"),
        *("jr", "mr", "mrs", "ms", "prof", "resp", "sr", "st", "vol", "vs"),
    }
)

# a full stop with white space after it, or between two words that lack the blank ("clear.No effusion")
_STOP = re.compile(r"[.!?]+[\"')\]”’]*(?=\s|$)|[。！？]+[”’」』]*|(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_LONE_MARK = re.compile(r" (?=[.,;:!?]+(?: |$))")
_NO_BLANK = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
)  # Thai to Chinese
_LIST_NUMBER = re.compile(r"\d{1,2}\.")
_PARAGRAPH = re.compile(r"\n\s*\n")
_CLOSING = "\"')]”’」』"


class TimedText(NamedTuple):
    """A word, a piece of one, a phrase or a punctuation mark, with its interval in seconds on the gaze clock.

    `is_glued`: whether it stands without a blank before it, None where nobody says. White space around it says nothing.
    """

    text: str
    start_seconds: float | None
    end_seconds: float | None
    is_glued: bool | None = None


def split_sentences(text: str) -> list[str]:
    """Cut a text at the ends of sentences; decimals, common abbreviations, initials and list numbers do not end one."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in _PARAGRAPH.split(text))
    pieces = (paragraph[start:end] for paragraph in paragraphs for start, end in _cut(paragraph))
    return [piece for piece in pieces if _has_word(piece)]


def untimed_sentences(text: str) -> list[Sentence]:
    """The sentences of a text that nobody timed."""
    return [Sentence(text=piece, start_seconds=None, end_seconds=None) for piece in split_sentences(text)]


def timed_sentences(parts: Iterable[TimedText]) -> list[Sentence]:
    """The sentences of the joined parts, each from the start of its first word to the end of its last.

    A full stop may be a part of its own (REFLACX) or lie inside a phrase (EGD); the sentences of a phrase that holds
    several share that phrase's interval, since nobody knows more. What follows the last full stop is a sentence too.
    A sentence that lacks the time of its first or last word, or that would end before it starts, is untimed.
    """
    parts = list(parts)
    text, places = joined(parts)
    starts, ends = [place.start for place in places], [place.stop for place in places]
    sentences = []
    for start, end in _cut(text):
        inside = range(bisect_right(ends, start), bisect_left(starts, end))
        spoken = [parts[i] for i in inside if _has_word(text[max(start, starts[i]) : min(end, ends[i])])]
        if spoken:
            sentences.append(timed_sentence(text[start:end], spoken[0].start_seconds, spoken[-1].end_seconds))
    return sentences


def timed_sentence(text: str, start: float | None, end: float | None) -> Sentence:
    """A sentence with its interval in seconds, untimed where that is none."""
    if start is None or end is None or end < start:
        start = end = None
    return Sentence(text=text, start_seconds=start, end_seconds=end)


def joined(parts: Sequence[TimedText]) -> tuple[str, list[slice]]:
    """The text of the parts, and where in it each lies.

    Where nobody says, a blank stands between two, unless one is in a script without blanks. None stands before a mark
    of punctuation.
    """
    pieces, places, length, last = list[str](), list[slice](), 0, ""
    for part in parts:
        piece = _LONE_MARK.sub("", f" {' '.join(part.text.split())}").rstrip()
        is_glued = _NO_BLANK.search(last + piece.strip()[:1]) if part.is_glued is None else part.is_glued
        piece = piece.lstrip() if is_glued or not length else piece
        places.append(slice(length + piece.startswith(" "), length + len(piece)))
        pieces.append(piece)
        length, last = length + len(piece), piece[-1:] or last
    return "".join(pieces), places


def dictated_sentences(text: str, parts: list[TimedText], where: str, ledger: Ledger) -> list[Sentence]:
    """The sentences of timed words or phrases and of the text that they spell, untimed where no time can be told.

    Parts in another order than that of their times are put in it where the text says so. All that is lost is noted.
    """
    starts = [part.start_seconds for part in parts if part.start_seconds is not None]
    if starts != sorted(starts):
        ledger.note("transcript_times_run_backwards", where)
        if len(starts) == len(parts) and spelled(text, parts) is None:
            ordered = sorted(parts, key=lambda part: part.start_seconds or 0.0)
            parts = parts if spelled(text, ordered) is None else ordered
    sentences = timed_sentences(with_blanks_of(text, parts, where, ledger)) or untimed_sentences(text)
    note_missing_times(sentences, where, ledger)
    return sentences


def note_missing_times(sentences: Sequence[Sentence], where: str, ledger: Ledger) -> None:
    """Say how many sentences have no time."""
    untimed = sum(sentence["start_seconds"] is None for sentence in sentences)
    if untimed and untimed == len(sentences):
        ledger.note("transcript_without_times", where)
    elif untimed:
        ledger.note("some_sentences_without_time", f"{where}: {untimed} of {len(sentences)}")


def with_blanks_of(text: str, parts: list[TimedText], where: str, ledger: Ledger) -> list[TimedText]:
    """The parts of a text, as far apart as in the text if there is one; where it has other words, this is noted.

    What the text says after its last part becomes one without a time, as noted.
    """
    placed = spelled(text, parts) or _punctuated(text, parts)
    if placed is not None or not text.strip():
        return parts if placed is None else placed
    letters = [place for place, letter in enumerate(text) if not letter.isspace()]
    spoken = sum(not letter.isspace() for part in parts for letter in part.text)
    rest = letters[spoken] if 0 < spoken < len(letters) else None
    if rest is None or (placed := spelled(text[:rest], parts)) is None:
        ledger.note("text_differs_from_its_timed_words", where)
        return parts
    ledger.note("text_goes_on_after_its_timed_words", f"{where}: {text[rest:].strip()[:80]}")
    return [*placed, TimedText(text[rest:], None, None, letters[spoken - 1] == rest - 1)]


def spelled(text: str, parts: Sequence[TimedText]) -> list[TimedText] | None:
    """The parts with the white space of the text that they spell; None where they spell another."""
    letters = [place for place, letter in enumerate(text) if not letter.isspace()]
    bare = ["".join(part.text.split()) for part in parts]
    if "".join(bare) != "".join(text.split()):
        return None
    placed, at = [], 0
    for part, length in zip(parts, map(len, bare), strict=True):
        own = letters[at : at + length]
        is_glued = letters[at - 1] == own[0] - 1 if own and at else None
        placed.append(part._replace(text=text[own[0] : own[-1] + 1] if own else "", is_glued=is_glued))
        at += length
    return placed


def _punctuated(text: str, parts: Sequence[TimedText]) -> list[TimedText] | None:
    """The parts with the marks and the capitals of the text that has the same words; None where it has others."""
    words = [word for word in text.split() if _bare(word)]
    if [_bare(word) for word in words] != [_bare(part.text) for part in parts]:
        return None
    return [part._replace(text=word, is_glued=False) for part, word in zip(parts, words, strict=True)]


def _bare(word: str) -> str:
    return "".join(filter(str.isalnum, word)).lower()


def with_own_blanks(parts: list[TimedText]) -> list[TimedText]:
    """Glued where no white space is between two, in a source that writes white space at all."""
    blank = [before.text[-1:].isspace() or part.text[:1].isspace() for before, part in pairwise(parts)]
    if not any(blank):
        return parts
    later = [part._replace(is_glued=not has_blank) for part, has_blank in zip(parts[1:], blank, strict=True)]
    return [parts[0], *later]


def with_times_of_neighbours(words: list[TimedText], start: float | None, end: float | None) -> list[TimedText]:
    """A word without a time lasts from the end of the word before to the start of the next (WhisperX times no digits).

    `start` and `end` stand in before the first and after the last word.
    """
    timed: list[TimedText] = []
    for word in words:
        begin = start if word.start_seconds is None else word.start_seconds
        timed.append(word._replace(start_seconds=begin))
        start = begin if word.end_seconds is None else word.end_seconds
    for index, word in reversed(list(enumerate(words))):
        stop = end if word.end_seconds is None else word.end_seconds
        timed[index] = timed[index]._replace(end_seconds=stop)
        end = stop if word.start_seconds is None else word.start_seconds
    return timed


def ends_sentence(fragment: str) -> bool:
    """Whether the end of this fragment is the end of a sentence."""
    words = fragment.rstrip(_CLOSING + " ").split()
    if not words or words[-1][-1] not in ".!?。！？":
        return False
    word = words[-1].lstrip("([\"'")
    is_initial = len(word) == 2 and word[0].isupper()
    is_list_number = len(words) == 1 and _LIST_NUMBER.fullmatch(word) is not None
    return not (is_initial or is_list_number or word.rstrip(".").lower() in ABBREVIATIONS)


def _cut(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of a text lie whose white space is single blanks."""
    start = 0
    for stop in _STOP.finditer(text):
        if ends_sentence(text[start : stop.end()]):
            yield start, stop.end()
            start = stop.end() + text.startswith(" ", stop.end())
    if start < len(text):
        yield start, len(text)


def _has_word(text: str) -> bool:
    return any(character.isalnum() or character in "%°" for character in text)
