"""Zero-shot AUROC, pointing game and retrieval by groups of readings, each with the interval over its own patients.

No group is tested against another, so nothing here says that two differ. A mean AUROC is over the classes that are
present and absent in the group, whose number stands beside it; a retrieval query keeps the candidates of all groups.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dataset_scripts.schema import Reading, UserError
from egma.evaluation.metrics.ranking import held_share
from egma.evaluation.protocols.pointing import Target, peak_credit, target_maps
from egma.evaluation.protocols.retrieval import distinct_pairs, places_of_truth, report_scores
from egma.evaluation.protocols.zero_shot import auroc_figures, finding_labels
from egma.evaluation.statistics.bootstrap import PatientBootstrap, patient
from egma.inference.embeddings import ImageBank, TextBank
from egma.tools.arrays import Array

# where each ends; those of Seyyed-Kalantari et al., "CheXclusion: Fairness gaps in deep chest X-ray classifiers", 2021
AGE_BANDS = {"0-20": 20, "20-40": 40, "40-60": 60, "60-80": 80, "80+": math.inf}
UNKNOWN = "unknown"
GROUPS: Mapping[str, Callable[[Reading], str | None]] = {
    "sex": lambda reading: reading["sex"],
    "age": lambda reading: age_band(reading["age_years"]),
    "view": lambda reading: reading["view"],
    "reader": lambda reading: reading["reader_id"],
    "source": lambda reading: reading["source"],
}


class Part(NamedTuple):
    """The entries of a figure: readings (n), and credits (n,), or scores (n, C) of `classes` for an AUROC."""

    readings: Sequence[Reading]
    values: Array
    classes: Sequence[str] = ()


def hits(targets: Sequence[Target], images: ImageBank, texts: TextBank) -> Part:
    return Part([target.reading for target in targets], peak_credit(target_maps(targets, images, texts), targets))


def recalls(readings: Sequence[Reading], images: ImageBank, texts: TextBank, score: str) -> Part:
    pairs = distinct_pairs(readings)
    return Part(pairs, held_share(*places_of_truth(report_scores(pairs, images, texts)[score]), 1))


def age_band(years: float | None) -> str | None:
    return None if years is None else next(name for name, end in AGE_BANDS.items() if years < end)


def check_groups(groups: Sequence[str], readings: Sequence[Reading]) -> None:
    """Raise UserError unless each of the groups is one, and some reading says which of its values it has."""
    said = [name for name, value_of in GROUPS.items() if any(map(value_of, readings))]
    for group in groups:
        if group not in GROUPS:
            raise UserError(f"unknown group '{group}'; expected {', '.join(GROUPS)}")
        if group not in said:
            raise UserError(f"group '{group}': no reading here says it; they can be told by {', '.join(said)}")


def by_group(
    groups: Sequence[str], readings: Sequence[Reading], parts: Mapping[str, Part], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    """By group and value: `readings`, `patients`, and the figure of each part's entries that have the value."""
    found: dict[str, Any] = {group: {} for group in groups}
    for group in groups:
        for value in sorted({_value(group, reading) for reading in readings}):
            of_value = [reading for reading in readings if _value(group, reading) == value]
            counts = {"readings": len(of_value), "patients": len(set(map(patient, of_value)))}
            figures = {name: _figure(part, group, value, bootstrap) for name, part in parts.items()}
            found[group][value] = counts | figures
    return found


def _value(group: str, reading: Reading) -> str:
    return GROUPS[group](reading) or UNKNOWN


def _figure(part: Part, group: str, value: str, bootstrap: PatientBootstrap) -> dict[str, Any]:
    places = [place for place, reading in enumerate(part.readings) if _value(group, reading) == value]
    rows = [part.readings[place] for place in places]
    if not part.classes:
        return bootstrap.proportion(part.values[places], rows).to_json()
    found = auroc_figures(finding_labels(rows, part.classes), part.values[places], bootstrap)
    defined = [figure["value"] is not None for figure in found["auroc_per_class"].values()]
    return found["auroc"] | {"classes": sum(defined)}
