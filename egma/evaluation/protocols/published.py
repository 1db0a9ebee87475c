"""What a protocol fixes for a corpus: its classes, its prompts, and the class that is what is left over."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dataset_scripts.schema import ABSENT, GENERATED_PREFIX, PRESENT, UNCERTAIN, Finding, Reading
from egma.inference.prompts import PROTOCOL_FOLDER, PromptFile, load_prompts, read_prompt_file

NO_FINDING = "No Finding"


class DistinctClasses(NamedTuple):
    """Classes, none of which is another's synonym, by the names that findings and boxes have (casefolded).

    Classes with fewer positive images than `least_positives` are not classified.
    """

    by_name: Mapping[str, str]
    least_positives: int

    def merged(self, reading: Reading) -> Reading:
        """The reading with classes in place of their names: present if one of them is, else uncertain if one is.

        What a reading does not list is unknown, so uncertain, except "No Finding" where all others are known.
        """
        values: dict[str, set[int]] = {}
        for finding in reading["findings"]:
            values.setdefault(self._class_of(finding["name"]), set()).add(finding["value"])
        found = {
            name: next(value for value in (PRESENT, UNCERTAIN, ABSENT) if value in of_name)
            for name, of_name in values.items()
        }
        others = {found.get(name, UNCERTAIN) for name in self.by_name.values() if name != NO_FINDING}
        left_over = UNCERTAIN if UNCERTAIN in others else ABSENT if PRESENT in others else PRESENT
        found = dict.fromkeys(self.by_name.values(), UNCERTAIN) | {NO_FINDING: left_over} | found
        findings = [Finding(name=name, value=value) for name, value in found.items()]
        boxes: Any = [box | {"label": self._class_of(box["label"])} for box in reading["boxes"]]
        return {**reading, "findings": findings, "boxes": boxes}

    def _class_of(self, name: str) -> str:
        return self.by_name.get(name.casefold(), name)


class CorpusProtocol(NamedTuple):
    """`prompts` is a file of `prompts/protocols`; `target` is the finding that "No Finding" is the absence of.

    `names` is a file of that folder with the names of each class, whose prompts are the package's.
    """

    prompts: str | None = None
    target: str | None = None
    names: str | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None if self.target is None else (NO_FINDING, self.target)

    def prompt_file(self) -> PromptFile | None:
        if self.names is not None:
            known = load_prompts()
            return PromptFile({name: known[name] for name in sorted(set(self.distinct.by_name.values()))}, None)
        return None if self.prompts is None else read_prompt_file(PROTOCOL_FOLDER / self.prompts)

    @property
    def distinct(self) -> DistinctClasses:
        """The classes of `names`; every name is its own class where there is no such file."""
        return DistinctClasses({}, 0) if self.names is None else _read_names(PROTOCOL_FOLDER / self.names)

    def apply(self, readings: list[Reading]) -> list[Reading]:
        """The readings with the classes of the protocol."""
        if self.names is not None:
            return [self.distinct.merged(reading) for reading in readings]
        return readings if self.target is None else with_no_finding(readings, self.target)


@cache
def _read_names(path: Path) -> DistinctClasses:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    pairs = [(name, of_class) for of_class, names in content["classes"].items() for name in (of_class, *names)]
    return DistinctClasses({name.casefold(): of_class for name, of_class in pairs}, content["least_positives"])


PHANTOM = CorpusProtocol(names="phantom.yaml")
# by the `source` that the conversion writes; RSNA and SIIM-ACR do not write their second class
PROTOCOLS = {
    "chexpert_5x200": CorpusProtocol(prompts="chexpert_5x200.yaml"),
    "chexpert_8x200": CorpusProtocol(prompts="chexpert_8x200.yaml"),
    "rsna": CorpusProtocol(target="Pneumonia"),
    "siim_acr": CorpusProtocol(target="Pneumothorax"),
    # what is drawn is known, so that names of both layouts of one corpus can be told to be the same
    "phantom/reflacx": PHANTOM,
    "phantom/egd": PHANTOM,
}


def protocol_of(readings: Sequence[Reading]) -> CorpusProtocol:
    """The protocol that all sources of the readings share; otherwise, and for any other corpus, none is fixed."""
    none = CorpusProtocol()
    found = {
        PROTOCOLS.get(source, PROTOCOLS.get(source.removeprefix(GENERATED_PREFIX), none))
        for source in {reading["source"] for reading in readings}
    }
    return found.pop() if len(found) == 1 else none


def few_positives(readings: Sequence[Reading], classes: Sequence[str], least: int) -> dict[str, int]:
    """How many images show a class, by name, of those that fewer than `least` show."""
    images: dict[str, set[str]] = {name: set() for name in classes}
    for reading in readings:
        for finding in reading["findings"]:
            if finding["value"] == PRESENT and finding["name"] in images:
                images[finding["name"]].add(reading["image_id"])
    return {name: len(found) for name, found in sorted(images.items()) if len(found) < least}


def with_no_finding(readings: Sequence[Reading], target: str) -> list[Reading]:
    """The readings with "No Finding" where they say whether `target` is present, and nothing of "No Finding"."""
    return [_with_no_finding(reading, target) for reading in readings]


def _with_no_finding(reading: Reading, target: str) -> Reading:
    values = {finding["name"]: finding["value"] for finding in reading["findings"]}
    if NO_FINDING in values or values.get(target) not in (PRESENT, ABSENT):
        return reading
    left_over = Finding(name=NO_FINDING, value=ABSENT if values[target] == PRESENT else PRESENT)
    findings = [*reading["findings"], left_over]
    return {**reading, "findings": findings}
