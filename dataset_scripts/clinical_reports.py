"""MIMIC-CXR report texts: the part that describes the image.

Headings and their precedence follow MIMIC-CXR's own `section_parser.py` and `create_section_files.py`: a heading is a
line's beginning in capitals with a colon; findings and impression are wanted, else the last paragraph, else the
comparison. Unlike there, findings *and* impression are kept, in the report's order, and every one of several. The
three underscores that stand for removed names and dates stay: they are what the source says.
"""

import functools
import re
from difflib import get_close_matches
from typing import NamedTuple

_HEADING = re.compile(r"\n ?([A-Z][A-Z ()/,-]*):(?=\s|$)")
_RULE = re.compile(r"^[ \t]*_{5,}[ \t]*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_WANTED = ("FINDINGS", "IMPRESSION", "CONCLUSION", "CONCLUSIONS", "SUMMARY")
_SIMILARITY = 0.86  # finds IMPRSSION, FINIDNGS and FINDING, not INDICATION
_TITLE = re.compile(r"(WET READ|FINAL (REPORT|ADDENDUM)|ADDENDUM)", re.IGNORECASE)


class Description(NamedTuple):
    """The part of a report that describes the image, "" when there is none, and what it was taken from."""

    text: str
    section: str


def description(report: str) -> Description:
    """The findings and impression of a report with a blank line between them, or what stands in for them.

    A report is what lies below the last full-line rule of underscores that has text below it; above it are addenda.
    """
    parts = [part for part in _RULE.split(report.replace("\r\n", "\n").replace("\r", "\n")) if part.strip()]
    if not parts:
        return Description("", "nothing")
    described = [found for part in reversed(parts) if (found := _findings_and_impression(part))]
    if described:
        return Description(described[0], "findings_and_impression")
    preamble, *sections = _HEADING.split("\n" + parts[-1])
    last = _last_paragraph(sections[-1] if sections else preamble, is_whole=not sections)
    if last:
        return Description(last, "last_paragraph")
    comparison = [body.strip() for name, body in _named(sections) if "COMPARISON" in name]
    return Description(comparison[-1], "comparison") if comparison else Description("", "nothing")


def _findings_and_impression(part: str) -> str:
    _, *sections = _HEADING.split("\n" + part)
    return "\n\n".join(body.strip() for name, body in _named(sections) if body.strip() and _is_wanted(name))


def _named(sections: list[str]) -> list[tuple[str, str]]:
    return list(zip(sections[::2], sections[1::2], strict=True))


@functools.cache
def _is_wanted(heading: str) -> bool:
    return any(get_close_matches(word, _WANTED, n=1, cutoff=_SIMILARITY) for word in re.findall(r"[A-Z]+", heading))


def _last_paragraph(body: str, is_whole: bool) -> str:
    """What follows the first blank line of the last section; of a text without sections its last paragraph."""
    paragraphs = [
        text.strip() for text in _PARAGRAPH.split(body) if text.strip() and not _TITLE.fullmatch(text.strip())
    ]
    if is_whole:
        return paragraphs[-1] if paragraphs else ""
    first_is_own = bool(_PARAGRAPH.split(body)[0].strip())
    return "\n\n".join(paragraphs[1:] if first_is_own else paragraphs)
