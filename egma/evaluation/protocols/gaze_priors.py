"""How well other people's gaze predicts a scanpath, in a corpus whose readings each look for what they call present.

    python -m egma.evaluation.protocols.gaze_priors CORPUS

`all` is the NSS of the mean heat map of all training recordings, `finding` that of the recordings for the same finding;
`gain` is their difference, which is what knowing the finding alone is worth. No image and no text is needed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.schema import PRESENT, Reading, UserError, load_readings
from egma.evaluation.metrics.saliency import nss
from egma.evaluation.protocols.gaze_agreement import Columns, counted, mean_drawn, recording_of
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import records
from modeling_egma.processing_egma import GAZE_DEFAULTS

FEWEST = 10  # training recordings for a finding


def gaze_priors(folder: str | Path, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Figures over the test split, by name; a finding with fewer than FEWEST training recordings is left out."""
    rows = (load_readings(folder, split, needs_images=False) for split in ("train", "test"))
    training, test = (_entries(records(of_split)) for of_split in rows)
    by_finding: dict[str, list[Columns]] = {}
    for finding, _, recording in training:
        by_finding.setdefault(finding, []).append(recording)
    maps = {name: mean_drawn(found) for name, found in by_finding.items() if len(found) >= FEWEST}
    test = [entry for entry in test if entry[0] in maps]
    if not test:
        raise UserError(f"{folder}: no test recording for a finding with {FEWEST} training recordings")
    fixations, everything = counted([one for *_, one in test]), mean_drawn([one for *_, one in training])
    every = nss(np.broadcast_to(everything, fixations.shape), fixations)
    own = nss(np.stack([maps[finding] for finding, *_ in test]), fixations)
    readings = [reading for _, reading, _ in test]
    values = {"all": every, "finding": own, "gain": own - every}
    means = PatientBootstrap(readings, bootstrap, seed).means(values, readings)
    return {name: {"value": of.value, "interval": of.interval, "n": of.n} for name, of in means.items()}


def _entries(readings: list[Reading]) -> list[tuple[str, Reading, Columns]]:
    """Finding, reading and recording of whatever is called present and was recorded."""
    recorded = ((reading, recording_of(reading, GAZE_DEFAULTS["sigma"])) for reading in readings)
    looked = [(reading, recording) for reading, recording in recorded if recording is not None]
    return [(one["name"], *pair) for pair in looked for one in pair[0]["findings"] if one["value"] == PRESENT]


if __name__ == "__main__":
    print(json.dumps(gaze_priors(sys.argv[1]), indent=2))
