"""Sentences from plain text, and timed sentences from timed words or phrases."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dataset_scripts.schema import Sentence

ABBREVIATIONS = frozenset(
    {
        *("al", "approx", "ca", "cf", "dr", "e.g", "etc", "fig", "figs", "i.e", "inc", "incl"),
        *("jr", "mr", "mrs", "ms", "prof", "resp", "sr", "st", "vol", "vs"),
    }
)

# a full stop with white space after it, or between two words that lack the blank ("clear.No effusion")
_STOP = re.compile(r"[.!?]+[\"')\]”’]*(?=\s|$)|(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_LIST_NUMBER = re.compile(r"\d{1,2}\.")
_PARAGRAPH = re.compile(r"\n\s*\n")
_CLOSING = "\"')]”’"


class TimedText(NamedTuple):
    """A word, a phrase or a punctuation mark with its interval in seconds on the gaze clock."""

    text: str
    start_seconds: float | None
    end_seconds: float | None


def split_sentences(text: str) -> list[str]:
    """Cut a text at the ends of sentences; decimals, common abbreviations, initials and list numbers do not end one."""
    pieces = (piece for paragraph in _PARAGRAPH.split(text) for piece in _cut(paragraph))
    return [piece for piece in pieces if _has_word(piece)]


def untimed_sentences(text: str) -> list[Sentence]:
    """The sentences of a text that nobody timed."""
    return [Sentence(text=piece, start_seconds=None, end_seconds=None) for piece in split_sentences(text)]


def timed_sentences(parts: Iterable[TimedText]) -> list[Sentence]:
    """Group words or phrases to sentences, each from the start of its first word to the end of its last.

    A full stop may be a part of its own (REFLACX) or lie inside a phrase (EGD); the sentences of a phrase that holds
    several share that phrase's interval, since nobody knows more. What follows the last full stop is a sentence too.
    A sentence that lacks the time of its first or last word, or that would end before it starts, is untimed.
    """
    sentences: list[Sentence] = []
    current: list[TimedText] = []
    for part in parts:
        for piece in _cut(part.text):
            current.append(part._replace(text=piece))
            if ends_sentence(_join(current)):
                sentences += _close(current)
                current = []
    return sentences + _close(current)


def ends_sentence(fragment: str) -> bool:
    """Whether the end of this fragment is the end of a sentence."""
    words = fragment.rstrip(_CLOSING + " ").split()
    if not words or words[-1][-1] not in ".!?":
        return False
    word = words[-1].lstrip("([\"'")
    is_initial = len(word) == 2 and word[0].isupper()
    is_list_number = len(words) == 1 and _LIST_NUMBER.fullmatch(word) is not None
    return not (is_initial or is_list_number or word.rstrip(".").lower() in ABBREVIATIONS)


def _cut(text: str) -> Iterator[str]:
    text = " ".join(text.split())
    start = 0
    for stop in _STOP.finditer(text):
        if ends_sentence(text[start : stop.end()]):
            yield text[start : stop.end()].strip()
            start = stop.end()
    if text[start:].strip():
        yield text[start:].strip()


def _has_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _join(parts: list[TimedText]) -> str:
    return re.sub(r" (?=[.,;:!?]+( |$))", "", " ".join(part.text for part in parts))


def _close(parts: list[TimedText]) -> list[Sentence]:
    spoken = [part for part in parts if _has_word(part.text)]
    if not spoken:
        return []
    start, end = spoken[0].start_seconds, spoken[-1].end_seconds
    if start is None or end is None or end < start:
        start = end = None
    return [Sentence(text=_join(parts), start_seconds=start, end_seconds=end)]
