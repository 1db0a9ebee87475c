"""A trace of the mouse -> a reading -> a corpus -> a fine-tuned model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts import build
from dataset_scripts.schema import FEATURES, UserError, is_generated, load_readings
from egma.page.inputs import Picture
from egma.page.recorder import reading_of_trace
from egma.tools.processes import ROOT
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.page.hostile import encoded, noise

PICTURE = Picture("case_7", encoded(noise(200, 100), "PNG"), 200, 100)


def trace(places: list[tuple[float, float]], texts: list[str], seconds: float = 0.5) -> dict[str, Any]:
    """The pointer rests at each place in turn, at 60 Hz, while a sentence is said."""
    time = np.arange(0, seconds * len(places), 1 / 60)
    at = np.minimum((time / seconds).astype(int), len(places) - 1)
    x, y = (np.array(places)[at, axis] for axis in (0, 1))
    sentences = [
        {"text": text, "start_seconds": seconds * place, "end_seconds": seconds * (place + 1)}
        for place, text in enumerate(texts)
    ]
    return {"samples": {"x": x.tolist(), "y": y.tolist(), "time": time.tolist()}, "sentences": sentences}


def test_a_trace_becomes_a_reading_of_the_schema() -> None:
    given = trace([(0.2, 0.3), (0.8, 0.6)], ["no effusion", " the heart is normal "]) | {"reader_id": " anna "}
    reading = reading_of_trace(given, PICTURE)
    assert reading.keys() == FEATURES.keys()
    assert (reading["source"], reading["reader_id"], reading["subject_id"]) == ("tracker/mouse", "anna", None)
    assert (reading["image"], reading["width"], reading["height"]) == ("case_7.png", 200, 100)
    assert [sentence["text"] for sentence in reading["sentences"]] == ["no effusion", "the heart is normal"]
    fixations = reading["fixations"]
    assert np.allclose(fixations["x"], [0.2, 0.8]) and np.allclose(fixations["y"], [0.3, 0.6])
    assert np.allclose(fixations["start"], [0, 0.5]) and np.allclose(fixations["duration"], 0.5, atol=0.02)


def test_a_reading_has_the_size_of_the_picture_beside_it() -> None:
    shown = Picture("large", encoded(noise(200, 100), "PNG"), 2000, 1000)
    reading = reading_of_trace(trace([(0.2, 0.3)], ["no effusion"]), shown)
    assert (reading["width"], reading["height"]) == (200, 100)


def test_a_reading_over_a_generated_picture_says_so(tmp_path: Path) -> None:
    picture = Picture("example", encoded(noise(200, 100), "PNG"), 200, 100, generated=True)
    reading = reading_of_trace(trace([(0.2, 0.3)], ["no effusion"]), picture)
    assert reading["source"] == "phantom/tracker/mouse"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "reading.json").write_text(json.dumps(reading))
    (tmp_path / "raw" / "example.png").write_bytes(picture.png)
    assert build.main(["tracker", "--source", str(tmp_path / "raw"), "--output", str(tmp_path / "data")]) == 0
    assert is_generated(tmp_path / "data")
    assert load_readings(tmp_path / "data", "train")[0]["source"] == "phantom/tracker/mouse"


def test_two_readings_of_a_picture_have_different_names() -> None:
    given = trace([(0.2, 0.3)], ["no effusion"])
    assert reading_of_trace(given, PICTURE)["reading_id"] != reading_of_trace(given, PICTURE)["reading_id"]


def test_frames_of_the_same_time_are_one_sample() -> None:
    given = trace([(0.2, 0.3)], ["no effusion"])
    for values in given["samples"].values():
        values.insert(3, values[3])
    assert len(reading_of_trace(given, PICTURE)["fixations"]["x"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": None}, "no samples"),
        ({"samples": {"x": [0.1], "y": [0.1], "time": []}}, "differ in length"),
        ({"samples": {"x": [0.1, 0.9], "y": [0.1, 0.9], "time": [0, 0.02]}}, "rested nowhere"),
        ({"samples": {"x": [True], "y": [0.1], "time": [0]}}, "no lists of numbers"),
        ({"samples": {"x": [10**400], "y": [0.1], "time": [0]}}, "no lists of numbers"),
        ({"samples": {name: [0.5] * 100_001 for name in ("x", "y", "time")}}, "more than 100,000"),
        ({"sentences": "no effusion"}, "no sentences"),
        ({"sentences": []}, "no sentence has a word"),
        ({"sentences": [{"text": "a", "start_seconds": 2, "end_seconds": 1}]}, "not as expected"),
        ({"sentences": [{"text": "a", "start_seconds": -1, "end_seconds": 1}]}, "not as expected"),
        ({"sentences": [{"text": "a" * 500, "start_seconds": 1, "end_seconds": 2}]}, "500 characters"),
        ({"subject_id": ["x"]}, "patient is no text"),
        ({"reader_id": "x" * 61}, "reader is no text"),
    ],
)
def test_what_is_no_trace_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        reading_of_trace(trace([(0.2, 0.3)], ["no effusion"]) | change, PICTURE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_json_is_a_reading_or_refused(samples: Any, sentences: Any) -> None:
    for made in ({"samples": samples, "sentences": sentences}, {"samples": {"x": samples, "y": sentences}}):
        with pytest.raises(UserError):
            reading_of_trace(made | {"time": [0]}, PICTURE)


# --- from trace to model ---


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """What a person downloads: six readings of six patients beside their pictures."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    for number in range(6):
        picture = Picture(f"case_{number}", encoded(noise(120 + number, 90), "PNG"), 120 + number, 90)
        given = trace([(0.2, 0.3), (0.8, 0.6)], ["no pleural effusion", "the heart size is normal"])
        reading = reading_of_trace(given | {"subject_id": f"p{number}", "reader_id": "anna"}, picture)
        (folder / f"{reading['reading_id']}.json").write_text(json.dumps(reading))
        (folder / reading["image"]).write_bytes(picture.png)
    return folder


def test_the_tracker_takes_the_readings_as_they_are(recorded: Path, tmp_path: Path) -> None:
    assert build.main(["tracker", "--source", str(recorded), "--output", str(tmp_path / "data")]) == 0
    report = json.loads((tmp_path / "data" / "conversion_report.json").read_text())
    assert (report["readings"]["rows_in"], report["readings"]["rows_kept"]) == (6, 6)
    assert not is_generated(tmp_path / "data")
    rows = [row for split in ("train", "validation", "test") for row in load_readings(tmp_path / "data", split)]
    assert len(rows) == 6  # so few, and yet each split has its patients
    files = {path.stem: json.loads(path.read_text()) for path in recorded.glob("*.json")}
    for row in rows:
        written = files[row["reading_id"]]
        for name in ("sentences", "subject_id", "reader_id", "source", "width", "height", "findings", "boxes"):
            assert row[name] == written[name], name
        for name in ("x", "y", "start", "duration"):
            assert row["fixations"][name] == written["fixations"][name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no reading that the page recorded"),
        ("[1]", "no reading that the page recorded"),
        ('{"source": "reflacx"}', "whose source is tracker/"),
        ('{"source": "tracker/mouse", "reading_id": [1]}', "are texts or whole numbers"),
    ],
)
def test_another_json_beside_them_is_named(recorded: Path, tmp_path: Path, content: str, message: str) -> None:
    (recorded / "other.json").write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        build.build("tracker", recorded, tmp_path / "data")
    assert "other.json" in str(raised.value)


def test_a_model_is_fine_tuned_on_them(
    recorded: Path, tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor
) -> None:
    assert build.main(["tracker", "--source", str(recorded), "--output", str(tmp_path / "data")]) == 0
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    command = (
        *(sys.executable, ROOT / "train_egma.py", "--model", tmp_path / "model", "--data", tmp_path / "data"),
        *("--output_dir", tmp_path / "tuned", "--max_steps", 2, "--batch_size", 2, "--learning_rate", 0.001),
    )
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    tuned = EgmaModel.from_pretrained(tmp_path / "tuned")
    changed = [
        not before.equal(after) for before, after in zip(tiny_model.parameters(), tuned.parameters(), strict=True)
    ]
    assert any(changed)
    log = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert log[0]["gaze"] > 0  # the mouse counted as gaze
