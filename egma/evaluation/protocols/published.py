"""What a published protocol fixes for a corpus: its classes, its prompts, and the class that is what is left over."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from dataset_scripts.schema import ABSENT, PRESENT, Finding, Reading
from egma.inference.prompts import PROTOCOL_FOLDER, PromptFile, read_prompt_file

NO_FINDING = "No Finding"
PUBLISHED = Path(__file__).parent / "published.yaml"


class CorpusProtocol(NamedTuple):
    """`prompts` is a file of `prompts/protocols`; `target` is the finding that "No Finding" is the absence of."""

    prompts: str | None = None
    target: str | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None if self.target is None else (NO_FINDING, self.target)

    def prompt_file(self) -> PromptFile | None:
        return None if self.prompts is None else read_prompt_file(PROTOCOL_FOLDER / self.prompts)


# by the `source` that the conversion writes; RSNA and SIIM-ACR do not write their second class
PROTOCOLS = {
    "chexpert_5x200": CorpusProtocol(prompts="chexpert_5x200.yaml"),
    "chexpert_8x200": CorpusProtocol(prompts="chexpert_8x200.yaml"),
    "rsna": CorpusProtocol(target="Pneumonia"),
    "siim_acr": CorpusProtocol(target="Pneumothorax"),
}


def protocol_of(readings: Sequence[Reading]) -> CorpusProtocol:
    """The protocol of readings that are all of one corpus; otherwise, and for any other corpus, none is fixed."""
    sources = {reading["source"].removeprefix("phantom/") for reading in readings}
    return PROTOCOLS.get(sources.pop(), CorpusProtocol()) if len(sources) == 1 else CorpusProtocol()


def published_figures(readings: Sequence[Reading]) -> dict[str, dict[str, float]]:
    """What the paper prints for these readings' corpus: fractions by headline key and model (`published.yaml`)."""
    sources = {reading["source"] for reading in readings}
    known = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    of_corpus = known.get(sources.pop(), {}) if len(sources) == 1 else {}
    return {key: {name: value / 100 for name, value in row.items()} for key, row in of_corpus.items()}


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
