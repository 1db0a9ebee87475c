"""Signs of a lost eye make no fixation, in samples as in tables of fixations, and their share is told."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.lost_eye import frozen_samples, lost_eye
from dataset_scripts.report import Ledger
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import egd_tree, fixation, mimic_cxr_tree, mimic_eye_tree
from tests.dataset_scripts.test_tracker import gaze, one, samples

SIGNS = [(0, 0), (-1, -1), (-9999, -9999), (1e8, 1e8), (-32768, -32768), (1e8, 300)]
SCREEN = ",screen_left,screen_top,screen_right,screen_bottom"


def trembling(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.2, count)


def recording(lost, count=100, rate=60.0):
    """Samples of an eye at (60, 30) that is lost from the 40th to the 64th, as (x, y), which a tracker writes then."""
    time, x, y = np.arange(count) / rate, 60 + trembling(count), 30 + trembling(count, 1)
    x[40:64], y[40:64] = lost
    return samples(time, x, y)


@pytest.mark.parametrize("sign", SIGNS)
def test_samples_of_a_lost_eye_are_no_fixation(tmp_path, sign):
    """24 samples at (0, 0) were a fixation of 0.38 s in the corner."""
    found, report = gaze(tmp_path, recording(sign))
    assert all(abs(x - 0.6) < 0.02 for x in found["x"]) and all(abs(y - 0.6) < 0.02 for y in found["y"])
    assert report["tables"]["samples"]["dropped"]["lost_eye"]["count"] == 24
    assert report["notes"]["lost_eye"]["first"][0].startswith("r1: 24.0% of 100 samples: 24 ")
    assert report["notes"]["positions_in_pixels_by_their_values"]["count"] == 1  # the signs tell no unit


def test_signs_are_those_of_the_screen_where_gaze_refers_to_it(tmp_path):
    """The screen's (0, 0) is no corner of this image, which begins left of and above it."""
    found, report = gaze(tmp_path, recording((0, 0)), SCREEN, ",-50,-25,150,75")
    assert all(x > 0.5 for x in found["x"])
    assert report["tables"]["samples"]["dropped"]["lost_eye"]["count"] == 24


def test_samples_near_the_corner_are_a_fixation(tmp_path):
    count = 40
    lines = samples(
        np.arange(count) / 60, np.abs(trembling(count)) + 1e-4, np.abs(trembling(count, 1)), "x_px,y_px,time"
    )
    found, report = gaze(tmp_path, lines)
    assert len(found["x"]) == 1 and found["x"][0] < 0.01 and "lost_eye" not in report["notes"]


@pytest.mark.parametrize("sign", SIGNS)
def test_fixations_of_a_lost_eye_are_dropped(tmp_path, sign):
    lines = [
        "x,y,start,duration",
        *(f"{50.5 + n},20.5,{n},0.3" for n in range(8)),
        f"{sign[0]:.0f},{sign[1]:.0f},8,0.9",
    ]
    found, report = gaze(tmp_path, lines)
    assert len(found["x"]) == 8 and max(found["duration"]) == 0.3
    assert report["tables"]["fixations"]["dropped"]["lost_eye"]["first"] == ["r1 row 9"]
    assert report["notes"]["lost_eye"]["first"][0].startswith("r1: 11.1% of 9 fixations: 1 ")


def test_fixations_of_a_lost_eye_in_json_are_dropped(tmp_path):
    recorded = {"fixations": {"x": [0.5, 0, -1], "y": [0.25, 0, -1], "start": [0, 1, 2], "duration": [0.5, 0.5, 0.5]}}
    row, report = one(tmp_path, row="r1,a.png,r1.json,said.vtt", files={"r1.json": [json.dumps(recorded)]})
    assert row["fixations"]["x"] == [0.5] and report["tables"]["fixations"]["dropped"]["lost_eye"]["count"] == 2


def test_official_tables_are_held_against_the_same_signs(tmp_path):
    raw = mimic_eye_tree(tmp_path / "raw")
    table = raw / "patient_10000001" / "REFLACX" / "main_data" / "P300R000001" / "fixations.csv"
    table.write_bytes(table.read_bytes() + f"{fixation(4.0, 4.5, '0', '0')}\r\n".encode())
    rows, report = convert("mimic_eye", raw, tmp_path / "out")
    assert 0.0 not in rows["P300R000001"]["fixations"]["x"]
    assert report["tables"]["REFLACX/fixations.csv"]["dropped"]["lost_eye"]["first"] == ["P300R000001 row 7"]
    egd = egd_tree(tmp_path / "egd")
    lines = (egd / "fixations.csv").read_text().splitlines()
    lost = lines[-1].replace(",150,300", ",0,0").replace(",2.0,", ",4.0,")
    (egd / "fixations.csv").write_text("\n".join([*lines, lost, ""]))
    rows, report = convert("egd", egd, tmp_path / "egd_out", images=mimic_cxr_tree(tmp_path / "images"))
    assert report["tables"]["EyeGaze/fixations.csv"]["dropped"]["lost_eye"]["count"] == 1
    assert all(0.0 not in row["fixations"]["x"] for row in rows.values())


def test_a_position_written_again_and_again_is_a_lost_eye(tmp_path):
    """The tracker repeats what it saw last for 0.4 s; without that the eye's rest is cut in two."""
    count = 100
    x, y = 60 + trembling(count), 30 + trembling(count, 1)
    x[40:64], y[40:64] = x[39], y[39]
    found, report = gaze(tmp_path, samples(np.arange(count) / 60, x, y))
    assert report["tables"]["samples"]["dropped"]["frozen"]["count"] == 24
    assert report["notes"]["frozen_samples"]["first"] == ["r1: 24.0% of 100 samples"]
    assert sum(found["duration"]) == pytest.approx((39 + 35) / 60, abs=0.01)
    (tmp_path / "mouse").mkdir()
    found, report = gaze(tmp_path / "mouse", samples(np.arange(count) / 60, x, y), ",device", ",mouse")
    assert "frozen" not in report["tables"]["samples"]["dropped"] and sum(found["duration"]) > 1.5


def test_a_smoothed_recording_keeps_its_rests_and_is_noted(tmp_path):
    """Gaze that the tracker averages over a fixation repeats by nature."""
    x = np.repeat([20.25, 60.5, 80.75], 40)
    found, report = gaze(tmp_path, samples(np.arange(120) / 60, x, np.full(120, 30.5)))
    assert len(found["x"]) == 3 and "dropped" in report["tables"]["samples"]
    assert report["tables"]["samples"]["rows_dropped"] == 0
    assert report["notes"]["positions_repeat_too_often_to_tell_a_lost_eye"]["count"] == 1


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([60.0, 250.0, 1000.0]))
def test_only_repeats_are_frozen_and_only_of_a_trembling_eye(first, length, rate):
    time = np.arange(200) / rate
    x, y = trembling(200), trembling(200, 1)
    x[first + 1 : first + length], y[first + 1 : first + length] = x[first], y[first]
    frozen = frozen_samples(x, y, time, "r1", Ledger())
    lasts = (length - 1) / rate >= 0.1 - 1e-9
    assert set(np.flatnonzero(frozen)) == (set(range(first + 1, first + length)) if lasts else set())


@given(
    st.lists(st.tuples(st.sampled_from([0.0, -1.0, 0.4, 7.0, np.nan, np.inf, 1e8]), st.floats(-50, 50)), max_size=20)
)
def test_only_signs_on_both_axes_or_beyond_any_screen_are_lost(pairs):
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    lost = lost_eye(x, y, "samples", "r1", Ledger())
    assert lost.tolist() == [(a == b and a in (0, -1)) or abs(a) >= 1e8 for a, b in pairs]
