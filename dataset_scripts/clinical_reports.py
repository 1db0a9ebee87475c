"""MIMIC-CXR report texts: the part that describes the image.

Names of sections, their precedence and the studies set by hand are those of MIMIC-CXR's own `section_parser.py` and
`create_section_files.py`: impression and findings, else the last paragraph, else the comparison. On purpose otherwise:
    findings *and* impression are kept, in the report's order, with every section of the last part that has any
    a heading may have small letters, digits and `&`, any indent, and stand directly below another; FINDINGS and
    IMPRESSION alone on a line need no colon
    an organ ("LUNGS:") heads findings and stays in the text; a heading that no rule knows ends nothing
    a summary is an impression, a clinical summary history; the reason for a "chest" is not its findings
    a report in which nothing of this is found gives the prose before its first heading
The three underscores that stand for removed names and dates stay: they are what the source says.
"""

import functools
import re
from difflib import get_close_matches
from typing import NamedTuple

from dataset_scripts.report import Ledger
from dataset_scripts.schema import Sentence
from dataset_scripts.sentences import untimed_sentences

_HEADING = re.compile(  # the colon of "5:30" ends none
    r"^[ \t]*(?:([A-Za-z](?:[\w ()/,&.#'-]|(?<=\d):(?=\d\d)){0,80}):(?!(?<=\d:)\d\d)"
    r"|(FINDINGS|IMPRESSION|FINDINGS AND IMPRESSION)[ \t]*$)",
    re.MULTILINE,
)
_RULE = re.compile(r"^[ \t]*_{5,}[ \t]*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_TITLE = re.compile(r"^[ \t]*(?:WET READ|FINAL REPORT|(?:FINAL )?ADDENDUM)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_WORD_OF_PROSE = re.compile("[a-z]{3}")
_SIMILARITY = 0.86  # finds imprssion, finidngs and finding

_NAMES = {
    **dict.fromkeys(("findings", "reference findings", "chest, two views"), "findings"),
    **dict.fromkeys(("impression", "conclusion", "summary", "mpression", "ndication"), "impression"),
    **dict.fromkeys(("findings and impression", "findings/impression", "findings/ impression"), "impression"),
    **dict.fromkeys(("comparison", "reference exam", "comparison exam", "comparison film"), "comparison"),
    **dict.fromkeys(("history", "clinical history", "clinical information", "patient history", "pfi"), "history"),
    **dict.fromkeys(("indication", "reason for examination", "reason for exam", "clinical indication"), "indication"),
    **dict.fromkeys(("examination", "exam", "type of examination"), "examination"),
    **dict.fromkeys(("recommendations", "recommendation", "recommendation(s)"), "recommendations"),
    **dict.fromkeys(("wet read", "wetread"), "wet read"),
    **{name: name for name in ("technique", "notification", "addendum")},
}
_NAMES_IN_CAPITALS = ("date", "comment", "note")
_PARTS_OF_NAMES = ("impression", "findings", "history", "comparison", "addendum")
_SPELLED = (*_PARTS_OF_NAMES, "conclusion", "indication")
_NO_FINDINGS = re.compile("clinical|reason|indication|technique")
_VIEW = re.compile(
    "chest|portable|pa and lateral|lateral and pa|ap and lateral|lateral and ap|frontal and|two views|frontal view"
    "|pa view|ap view|one view|lateral view|bone window|frontal upright|frontal semi-upright|ribs|pa and lat"
)
_ORGAN = re.compile(
    r"\b(?:lungs?|pulmonary|pleura\w*|heart|cardiac|cardiomediastin\w+|mediastin\w+|hila|hilar|hilum|aorta|vascul\w+"
    r"|airways?|trachea|thorax|abdomen|diaphragm\w*|bones?|bony|osseous|skelet\w+|spine|soft tissues?|lines|tubes"
    r"|devices|hardware)\b"
)
_OTHER = re.compile("exam|recommend|notif|procedure|study|wet read|dose|date|contrast|physician|radiologist|attending")
_KNOWN_WORDS = frozenset(
    re.findall("[a-z]+", f"{' '.join(_NAMES)} {_VIEW.pattern} of the view x ray radiograph radiographs")
)

# studies whose text stands under another heading, or from one character to another, by the official lists
_SECTION_BY_HAND = {
    **dict.fromkeys(
        ("50913680", "59768032", "59067458", "59087630", "58157373", "56482935", "58375018"), "recommendations"
    ),
    **dict.fromkeys(("57936451", "50058765", "51966317", "55124749", "54365831", "54654948"), "indication"),
    **dict.fromkeys(("59363654", "53356173", "50743547", "59215320", "55157853"), "examination"),
    **dict.fromkeys(("59279892", "53202765", "50808053"), "technique"),
    **{"56451190": "note", "51491012": "history"},
}
# fmt: off
_CHARACTERS_BY_HAND = {
    "50525523": (201, 349), "57564132": (233, 554), "59982525": (313, 717), "53488209": (149, 475),
    "54875119": (234, 988), "50196495": (59, 399), "56579911": (59, 218), "52648681": (292, 631),
    "59889364": (172, 453), "53514462": (73, 377), "59505494": (59, 450), "53182247": (59, 412),
    "51410602": (47, 320), "56412866": (522, 822), "54986978": (59, 306), "59003148": (262, 505),
    "57150433": (61, 394), "56760320": (219, 457), "59562049": (158, 348), "52674888": (145, 296),
    "55258338": (192, 568), "59330497": (140, 655), "52119491": (179, 454),
    **dict.fromkeys(("58235663", "50798377", "54168089", "53071062", "56724958", "54231141", "53607029", "52035334"),
                    (0, 0)),  # nothing in them describes the image
}
# fmt: on


class Description(NamedTuple):
    """The part of a report that describes the image, "" when there is none, and what it was taken from.

    `left_out` is prose before the first heading, which the official rules leave out.
    """

    text: str
    section: str
    left_out: str = ""


class _Section(NamedTuple):
    """`part` counts what full-line rules of underscores part: wet reads and addenda stand above the last rule."""

    part: int
    name: str
    text: str


def report_sentences(report: str, study_id: str | None, where: str, ledger: Ledger) -> list[Sentence]:
    """The untimed sentences of a report; what they were taken from and what was left out is noted at `where`."""
    found = description(report, study_id)
    sentences = untimed_sentences(found.text)
    if sentences and found.section != "findings_and_impression":
        ledger.note(f"text_from_{found.section}", where)
    if found.left_out:
        ledger.note("text_before_first_heading_left_out", f"{where}: {' '.join(found.left_out.split())[:80]}")
    return sentences


def description(report: str, study_id: str | None = None) -> Description:
    """The findings and impression of a report with a blank line between them, or what stands in for them."""
    report = report.replace("\r\n", "\n").replace("\r", "\n")
    sections = _sections(report)
    if study_id in _CHARACTERS_BY_HAND:
        return _found(("place_set_by_hand", report[slice(*_CHARACTERS_BY_HAND[study_id])]))
    if by_hand := [section.text for section in sections if section.name == _SECTION_BY_HAND.get(study_id or "")]:
        return _found(("place_set_by_hand", by_hand[-1]))
    own = [section for section in sections if section.part == sections[-1].part] or [_Section(0, "", "")]
    has_heading = len(own) > 1
    opening = (own[0].text if has_heading else _PARAGRAPH.split(own[0].text)[0]).strip()
    is_prose = opening.endswith((".", "!", "?")) and _WORD_OF_PROSE.search(opening) is not None
    found = _found(
        ("findings_and_impression", _findings_and_impression(sections)),
        ("last_paragraph", _later_paragraphs(own[-1].text)),
        ("comparison", next((section.text for section in reversed(sections) if section.name == "comparison"), "")),
        ("first_paragraph", opening if is_prose or not has_heading else ""),
    )
    return found._replace(left_out=opening if is_prose and found.section != "first_paragraph" else "")


@functools.lru_cache(1 << 14)
def section_name(heading: str) -> str:
    """The official name of the section that a heading begins; "organ" and "other" are ours, "" is no heading."""
    name = " ".join(heading.lower().replace("&", " and ").split())
    spelled = re.sub(
        "[a-z]+", lambda word: (get_close_matches(word[0], _SPELLED, 1, _SIMILARITY) or [word[0]])[0], name
    )
    if exact := _NAMES.get(name) or _NAMES.get(spelled):
        return exact
    if not heading.isupper() and not _KNOWN_WORDS.issuperset(re.findall("[a-z]+", _ORGAN.sub("", spelled))):
        return ""
    if name in _NAMES_IN_CAPITALS:
        return name
    if part := next((part for part in _PARTS_OF_NAMES if part in spelled), None):
        return part
    kinds = ((_NO_FINDINGS, "history"), (_VIEW, "findings"), (_ORGAN, "organ"), (_OTHER, "other"))
    return next((kind for pattern, kind in kinds if pattern.search(spelled)), "")


def _sections(report: str) -> list[_Section]:
    """What stands before the first heading of a part (its name is ""), then what stands below each."""
    sections = []
    for part, text in enumerate(filter(str.strip, _RULE.split(_TITLE.sub("", report)))):
        headings = [found for found in _HEADING.finditer(text) if section_name(found[1] or found[2])]
        starts = [*(found.start() for found in headings), len(text)]
        sections.append(_Section(part, "", text[: starts[0]]))
        for found, end in zip(headings, starts[1:], strict=True):
            name, body = section_name(found[1] or found[2]), text[found.end() : end]
            if name == "organ" and body.strip():
                name, body = "findings", found[0] + body
            sections.append(_Section(part, name, body))
    return sections


def _found(*candidates: tuple[str, str]) -> Description:
    """The first of sections and their texts that has a text."""
    return next(
        (Description(text.strip(), name) for name, text in candidates if text.strip()), Description("", "nothing")
    )


def _findings_and_impression(sections: list[_Section]) -> str:
    """Each from the last part that has it, in the report's order."""
    wanted = [section for section in sections if section.name in ("findings", "impression") and section.text.strip()]
    last_part = {section.name: section.part for section in wanted}
    return "\n\n".join(section.text.strip() for section in wanted if section.part == last_part[section.name])


def _later_paragraphs(text: str) -> str:
    return "\n\n".join(paragraph.strip() for paragraph in _PARAGRAPH.split(text)[1:] if paragraph.strip())
