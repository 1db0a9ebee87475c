"""MIMIC-CXR report texts: the sections that describe the image.

Section headings as in the official `section_parser.py`: a line of capitals that ends in a colon.
"""

import re

_HEADING = re.compile(r"\n ?([A-Z][A-Z ()/,-]*):\s")
_RULE = re.compile(r"^[ \t]*_{5,}[ \t]*$", re.MULTILINE)
_WANTED = ("FINDINGS", "IMPRESSION", "CONCLUSION")


def findings_and_impression(report: str) -> str:
    """The findings and impression, a blank line between them; the last paragraph of a report that has neither."""
    report = _RULE.sub("", report)
    _, *sections = _HEADING.split("\n" + report)
    named = zip(sections[::2], sections[1::2], strict=True)
    wanted = [body.strip() for name, body in named if any(word in name for word in _WANTED)]
    return "\n\n".join(wanted) if wanted else re.split(r"\n\s*\n", report.strip())[-1].strip()
