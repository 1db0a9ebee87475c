"""Another origin, scale or frame is suspected by where the fixations lie, and real recordings are not."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts.gaze.tracker_gaze import note_suspicion
from dataset_scripts.ledger import Ledger
from tests.dataset_scripts.corpora.test_tracker import gaze

REAL = Path(os.environ.get("EGMA_REAL_DATA", "/nowhere")) / "siim_gaze" / "cxr_gaze_data.json"


def spread(count=40):
    return np.random.default_rng(0).uniform(0.05, 0.95, (2, count))


def suspected(x, y):
    ledger = Ledger()
    note_suspicion(np.asarray(x, float), np.asarray(y, float), "r1", ledger)
    return [found.first[0] for found in ledger.notes.values()]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x, y: (x, y), None),
        (lambda x, y: (x / 2, y / 2), "r1: 40 fixations, 95 % in one quarter of the image on the left"),
        (lambda x, y: (x / 2, 1 - y / 2), "r1: 40 fixations, 95 % in one quarter of the image on the left"),
        (lambda x, y: (3 * x, 3 * y), "outside the image"),
        (lambda x, y: (x, -y), "r1: 40 fixations, 100% outside the image"),
        (lambda x, y: (0.9 + x / 12, y), r"r1: 40 fixations, centre at (0.9"),
    ],
)
def test_what_is_suspected(change, told):
    found = suspected(*change(*spread()))
    assert (found == []) if told is None else (told in found[0])


def test_too_few_fixations_say_nothing():
    assert suspected(*(spread(9) / 2)) == [] and suspected(np.full(50, np.nan), np.full(50, np.nan)) == []


def test_the_note_stands_in_the_report(tmp_path):
    x, y = spread(30)
    lines = [f"{a * 50:.3f},{b * 25:.3f},{place},0.3" for place, (a, b) in enumerate(zip(x, y, strict=True))]
    _, report = gaze(tmp_path, ["x_px,y_px,start_s,duration_s", *lines])
    assert "in one quarter" in report["notes"]["origin_or_scale_suspected"]["first"][0]


@pytest.mark.skipif(not REAL.is_file(), reason="needs the recordings of SIIM-ACR")
def test_real_recordings():
    """Their x is the vertical one."""
    paths = [(np.array(one["gaze_y"]), np.array(one["gaze_x"])) for one in json.loads(REAL.read_text())]
    assert [sum(bool(suspected(x * scale, y * scale)) for x, y in paths) for scale in (1, 0.5, 2)] == [1, 125, 108]
