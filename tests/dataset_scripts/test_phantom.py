import csv
import hashlib
import io
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dataset_scripts.phantom import write_phantom
from dataset_scripts.phantom.__main__ import main
from dataset_scripts.phantom.anatomy import Exposure, blank_canvas, sample_body
from dataset_scripts.phantom.findings import KINDS, LABELS, draw_density, sample_finding
from dataset_scripts.phantom.gaze import sample
from dataset_scripts.phantom.geometry import PixelBox, sample_pose
from dataset_scripts.phantom.labels import ALL_PHASES_LABELS, PHASE_LABELS
from dataset_scripts.phantom.report import ABNORMAL, transcript
from dataset_scripts.phantom.session import (
    Patient,
    Radiograph,
    SpokenReading,
    Study,
    generate_patient,
    plan_patients,
    render,
)
from dataset_scripts.phantom.wording import SHORT
from dataset_scripts.phantom.world import FRAMINGS, World
from dataset_scripts.schema import UserError

Shown = tuple[Patient, Study, Radiograph]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "tree", readings=120, seed=3, num_proc=2)


def _radiographs(readings: int, seed: int) -> list[Shown]:
    patients = (generate_patient(plan, World(seed)) for plan in plan_patients(readings, seed))
    return [(patient, study, shown) for patient in patients for study in patient.studies for shown in study.radiographs]


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


# --- the same seed writes the same bytes ---


def test_same_seed_same_bytes_on_any_number_of_processes(tmp_path: Path) -> None:
    first = write_phantom(tmp_path / "one", readings=24, seed=5, num_proc=1)
    second = write_phantom(tmp_path / "two", readings=24, seed=5, num_proc=2)
    assert _digests(first) == _digests(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_another_seed_shares_no_picture(tmp_path: Path) -> None:
    first = _digests(write_phantom(tmp_path / "a", readings=6, seed=0))
    second = _digests(write_phantom(tmp_path / "b", readings=6, seed=1))
    pictures = [{digest for name, digest in tree.items() if name.endswith(".jpg")} for tree in (first, second)]
    assert pictures[0].isdisjoint(pictures[1])
    assert {name for name in first if "patient_" in name}.isdisjoint(second)


def test_plan_has_exactly_the_readings_asked_for() -> None:
    for readings in (1, 7, 250):
        plans = plan_patients(readings, seed=2)
        assert sum(len(image.readers) for plan in plans for image in plan.images) == readings
        assert all(plan.images for plan in plans)


# --- the tree ---


def test_tables_have_an_index_column_and_lf_line_ends(tree: Path) -> None:
    for name in ("cxr_meta.csv", "CXR-JPG/cxr_split.csv", "CXR-JPG/cxr_chexpert.csv", "REFLACX/metadata.csv"):
        content = (tree / "spreadsheets" / name).read_bytes()
        assert content.startswith(b",") and b"\r" not in content
        assert [row[""] for row in _table(tree / "spreadsheets" / name)[:3]] == ["0", "1", "2"]
    assert len(_table(tree / "spreadsheets/REFLACX/metadata.csv")[0]) == 35


def test_meta_tells_the_size_of_every_picture(tree: Path) -> None:
    rows = _table(tree / "spreadsheets/cxr_meta.csv")
    assert len(rows) == len(list(tree.rglob("*.jpg")))
    for row in rows:
        path = tree / f"patient_{row['subject_id']}/CXR-JPG/s{row['study_id']}/{row['dicom_id']}.jpg"
        with Image.open(path) as picture:
            assert picture.mode == "L"
            assert picture.size == (int(row["Columns"]), int(row["Rows"]))
            assert min(picture.size) >= 400 and max(picture.size) <= 700 and picture.width != picture.height
        assert re.fullmatch(r"([0-9a-f]{8}-){4}[0-9a-f]{8}", row["dicom_id"])
        assert re.fullmatch(r"1\d{7}", row["subject_id"])


def test_splits_are_by_patient(tree: Path) -> None:
    rows = _table(tree / "spreadsheets/CXR-JPG/cxr_split.csv")
    of_patient = {row["subject_id"]: row["split"] for row in rows}
    assert all(of_patient[row["subject_id"]] == row["split"] for row in rows)
    assert set(of_patient.values()) == {"train", "validate", "test"}


def test_reflacx_reading_files(tree: Path) -> None:
    rows = _table(tree / "spreadsheets/REFLACX/metadata.csv")
    discarded = 0
    for row in rows:
        folder = tree / f"patient_{row['subject_id']}/REFLACX/main_data/{row['id']}"
        names = {path.name for path in folder.iterdir()}
        if row["eye_tracking_data_discarded"] == "True":
            discarded += 1
            assert names == {"chest_bounding_box.csv", "anomaly_location_ellipses.csv"}
            continue
        assert (folder / "fixations.csv").read_bytes().count(b"\r\n") > 8
        words = _table(folder / "timestamps_transcription.csv")
        joined = " ".join(word["word"] for word in words).replace(" .", ".").replace(" ,", ",")
        assert joined == (folder / "transcription.txt").read_text() == joined.lower()
        assert words[-1]["word"] == "."
        starts = [float(word["timestamp_start_word"]) for word in words]
        assert starts == sorted(starts)
    assert discarded >= 1
    assert (len(rows), len(rows[0]["id"])) > (80, 0) and rows[0]["id"].startswith("P300R")


def test_reflacx_labels_are_the_truth_and_the_marks(tree: Path) -> None:
    for row in _table(tree / "spreadsheets/REFLACX/metadata.csv"):
        folder = tree / f"patient_{row['subject_id']}/REFLACX/main_data/{row['id']}"
        marked = set()
        for mark in _table(folder / "anomaly_location_ellipses.csv"):
            assert 0 <= int(mark["xmin"]) < int(mark["xmax"]) <= int(row["image_size_x"])
            assert 0 <= int(mark["ymin"]) < int(mark["ymax"]) <= int(row["image_size_y"])
            assert 1 <= int(mark["certainty"]) <= 5
            marked |= {label for label in PHASE_LABELS[int(row["id"][1])] if mark[label] == "True"}
        labels = PHASE_LABELS[int(row["id"][1])]
        assert marked == {label for label in labels if row[label] not in ("0", "False", "")}
        assert all(row[label] == "" for label in set(ALL_PHASES_LABELS) - set(labels))


def test_recordings_have_times_before_the_sound_and_points_off_the_picture(tree: Path) -> None:
    fixations = [row for path in tree.rglob("REFLACX/main_data/*/fixations.csv") for row in _table(path)]
    assert any(float(row["timestamp_start_fixation"]) < 0 for row in fixations)
    assert any(int(row["x_position"]) < 0 for row in fixations)
    assert any(int(row["x_position"]) > 700 for row in fixations)


def test_egd_tables(tree: Path) -> None:
    sheet = _table(tree / "spreadsheets/EyeGaze/master_sheet_with_updated_stayId.csv")
    assert len(sheet[0]) == 60 and any("\n" in row["cxr_exam_indication"] for row in sheet)
    assert all(int(row["Normal"]) + int(row["CHF"]) + int(row["pneumonia"]) <= 1 for row in sheet)
    fixations = _table(tree / "spreadsheets/EyeGaze/fixations.csv")
    assert len(fixations[0]) == 38
    assert {len(row["DICOM_ID"]) for row in fixations} == {39, 44}
    assert any(row["X_ORIGINAL"] == row["Y_ORIGINAL"] == "-2" for row in fixations)
    for row in fixations[:200]:
        assert float(row["Time (in secs)"]) == pytest.approx(float(row["FPOGS"]) + float(row["FPOGD"]), abs=2e-5)
    for row in sheet:
        folder = tree / f"patient_{row['patient_id']}/EyeGaze/audio_segmentation_transcripts/{row['dicom_id']}"
        speech = json.loads((folder / "transcript.json").read_text())
        joined = " ".join(phrase["phrase"] for phrase in speech["time_stamped_text"])
        assert joined in ("", speech["full_text"].strip().replace(",", ""))


def test_marker_and_readme_say_that_it_is_generated(tree: Path) -> None:
    marker = json.loads((tree / "phantom.json").read_text())
    assert marker["generated"] is True and marker["readings"] == 120 and marker["seed"] == 3
    assert "No patient" in (tree / "README.md").read_text()


def test_written_report_looks_like_mimic(tree: Path) -> None:
    for path in tree.rglob("CXR-DICOM/*.txt"):
        lines = path.read_text().splitlines()
        assert lines[0].strip() == "FINAL REPORT"
        assert all(line.startswith(" ") and len(line) <= 79 for line in lines)
        assert {"FINDINGS", "IMPRESSION"} <= {line.split(":")[0].strip() for line in lines}


def test_raw_samples_only_with_the_flag(tree: Path, tmp_path: Path) -> None:
    assert not list(tree.rglob("gaze.csv")) and not list(tree.rglob("eye_gaze.csv"))
    raw = write_phantom(tmp_path / "raw", readings=6, seed=1, raw_samples=True)
    plain = write_phantom(tmp_path / "plain", readings=6, seed=1)
    assert list(raw.rglob("REFLACX/gaze_data/*/gaze.csv"))
    assert (raw / "spreadsheets/EyeGaze/eye_gaze.csv").exists()
    with_samples, without = _digests(raw), _digests(plain)
    assert all(with_samples[name] == digest for name, digest in without.items() if name != "phantom.json")
    first = next(raw.rglob("gaze.csv"))
    rows = _table(first)
    assert float(rows[1000]["timestamp_sample"]) - float(rows[0]["timestamp_sample"]) == pytest.approx(1.0, abs=0.002)


# --- only the pixels show the labels ---


def _surface(shown: Shown) -> list[float]:
    """What can be known of a picture without looking at it: sizes, grey mean and standard deviation, file size, ids."""
    patient, study, radiograph = shown
    buffer = io.BytesIO()
    render(*shown, 0).save(buffer, "JPEG", quality=92)
    grey = np.asarray(Image.open(buffer), dtype=np.float64)
    height, width = grey.shape
    bytes_per_pixel = len(buffer.getvalue()) / grey.size
    ids = [patient.subject_id / 1e7, study.study_id / 1e7, int(radiograph.image_id[:8], 16) / 2**32]
    counts = [len(patient.studies), len(radiograph.readings)]
    return [width, height, width / height, grey.mean(), grey.std(), bytes_per_pixel, *ids, *counts]


def test_nothing_but_the_pixels_gives_the_labels_away() -> None:
    shown = _radiographs(420, seed=11)
    features = np.array([_surface(one) for one in shown])
    truths = {"any finding": np.array([bool(study.findings) for _, study, _ in shown])}
    for label in LABELS:
        truths[label] = np.array([label in {finding.label for finding in study.findings} for _, study, _ in shown])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    areas = {}
    for label, truth in truths.items():
        scores = cross_val_predict(model, features, truth, cv=5, method="predict_proba")[:, 1]
        positives = int(truth.sum())
        spread = np.sqrt((len(truth) + 1) / (12 * positives * (len(truth) - positives)))
        areas[label] = (roc_auc_score(truth, scores) - 0.5) / spread
    assert max(areas.values()) < 3.0, areas


def test_target_grey_values_are_met() -> None:
    for shown in _radiographs(12, seed=4):
        grey, exposure = np.asarray(render(*shown, 0), dtype=np.float64), shown[2].exposure
        assert isinstance(exposure, Exposure)
        assert grey.mean() == pytest.approx(exposure.grey_mean, abs=0.5)
        assert grey.std() == pytest.approx(exposure.grey_std, abs=0.5)


# --- findings ---


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_finding_changes_the_picture_inside_its_places_only(name: str) -> None:
    inside_shares = []
    for seed in range(4):
        rng = np.random.default_rng([1, seed])
        body, pose = sample_body(rng), sample_pose(rng, FRAMINGS["real"])
        finding = sample_finding(name, rng, body)
        healthy, ill = blank_canvas(pose, body, 0), blank_canvas(pose, body, 0)
        draw_density(healthy, body, ())
        draw_density(ill, body, (finding,))
        change = np.abs(ill.density - healthy.density)
        rows, columns = change.shape
        x = (np.arange(columns) + 0.5) * pose.width / columns
        y = ((np.arange(rows) + 0.5) * pose.height / rows)[:, None]
        inside = np.zeros(change.shape, dtype=bool)
        for place in finding.places:
            inside |= _in_ellipse(x, y, pose.pixel_box(place, 1.08))
        assert change.max() > 0.05
        inside_shares.append(float(change[inside].sum() / change.sum()))
    assert min(inside_shares) > 0.85, inside_shares


def _in_ellipse(x: np.ndarray, y: np.ndarray, box: PixelBox) -> np.ndarray:
    across, down = (x - (box.x_min + box.x_max) / 2), (y - (box.y_min + box.y_max) / 2)
    return (2 * across / (box.x_max - box.x_min)) ** 2 + (2 * down / (box.y_max - box.y_min)) ** 2 <= 1.0


def test_every_kind_has_five_wordings_that_fill_in() -> None:
    assert set(ABNORMAL) == set(KINDS) == set(SHORT)
    for name, wordings in ABNORMAL.items():
        assert len(set(wordings)) >= 5
        if not KINDS[name].has_side:
            assert not any("{side}" in wording for wording in wordings)
        if not KINDS[name].zones:
            assert not any("{zone}" in wording for wording in wordings)


def test_prevalence() -> None:
    shown = _radiographs(1500, seed=8)
    counts = np.array([len(study.findings) for _, study, _ in shown])
    assert 0.22 < (counts == 0).mean() < 0.36 and counts.max() == 4
    for label in LABELS:
        share = np.mean([label in {finding.label for finding in study.findings} for _, study, _ in shown])
        assert 0.04 < share < 0.2, (label, share)


# --- speech and gaze ---


def _readings(readings: int, seed: int) -> list[tuple[Shown, SpokenReading]]:
    return [(one, reading) for one in _radiographs(readings, seed) for reading in one[2].readings]


def test_words_come_at_speaking_pace_and_in_order() -> None:
    for _, reading in _readings(40, seed=6):
        words = [word for sentence in reading.words for word in sentence]
        spoken = [word for word in words if word.text not in ",."]
        seconds = sum(word.end_seconds - word.start_seconds for word in spoken)
        assert 1.5 < len(spoken) / seconds < 4.5
        assert all(later.start_seconds >= word.end_seconds for word, later in itertools.pairwise(words))
        assert "none" not in transcript(reading.words).split()


def test_gaze_dwells_on_the_finding_while_it_is_named() -> None:
    dwell, area = [], []
    for (_, _, radiograph), reading in _readings(200, seed=9):
        recording = reading.recording
        for sentence, words in zip(reading.sentences, reading.words, strict=True):
            if recording is None or sentence.finding is None:
                continue
            boxes = [mark.box for mark in reading.marks if mark.finding is sentence.finding]
            begin, end = (
                seconds - reading.reader.lead_seconds for seconds in (words[0].start_seconds, words[-1].end_seconds)
            )
            overlap = np.minimum(recording.end_seconds, end) - np.maximum(recording.start_seconds, begin)
            seconds = np.clip(overlap, 0.0, None)
            inside = np.any([_in_ellipse(recording.x, recording.y, box) for box in boxes], axis=0)
            dwell.append(float(seconds[inside].sum() / max(seconds.sum(), 1e-9)))
            ellipses = sum(np.pi / 4 * (box.x_max - box.x_min) * (box.y_max - box.y_min) for box in boxes)
            area.append(ellipses / (radiograph.pose.width * radiograph.pose.height))
    assert len(dwell) > 150
    assert 0.2 < np.mean(dwell) < 0.45 and np.mean(dwell) > 3 * np.mean(area), (np.mean(dwell), np.mean(area))


def test_raw_samples_follow_the_fixations_and_are_empty_in_blinks() -> None:
    recording = next(reading.recording for _, reading in _readings(5, seed=1) if reading.recording is not None)
    samples = sample(recording, 1000, np.random.default_rng(0))
    steady = samples.seconds <= recording.end_seconds[samples.fixation]
    assert np.abs(samples.x[steady] - recording.x[samples.fixation[steady]]).max() < 5.0
    assert np.isnan(samples.x).any() == recording.blink_after[:-1].any()


# --- mistakes of the user ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["--readings", "0"],
        ["--seed", "-1"],
        ["--num-proc", "0"],
        ["--gaze", "1.5"],
        ["--gaze", "nan"],
        ["--gaze", "blurred"],
        ["--places", "anywhere"],
        ["--wording", "none"],
        ["--style", "c"],
    ],
)
def test_bad_arguments_exit_with_2(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "out"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {arguments[0]}")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    assert main(["--output", str(tmp_path), "--readings", "1"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("dataset_scripts.phantom.corpus._write_patient", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_phantom(tmp_path / "out", readings=2, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_write_phantom_raises_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--readings"):
        write_phantom(tmp_path / "out", readings=0, seed=0)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sigterm_leaves_no_hidden_folder(tmp_path: Path, processes: str) -> None:
    argv = [sys.executable, "-m", "dataset_scripts.phantom", "--output", str(tmp_path / "out")]
    running = subprocess.Popen([*argv, "--readings", "2000", "--num-proc", processes], stderr=subprocess.PIPE)
    for _ in range(600):
        if any(path.suffix == ".jpg" for path in tmp_path.rglob("*")):
            break
        time.sleep(0.1)
    running.terminate()
    assert running.wait(60) == 130 and not list(tmp_path.iterdir())
