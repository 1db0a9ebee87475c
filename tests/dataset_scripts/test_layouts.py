"""One generated session in three raw layouts: the converters must agree on it, reading for reading."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts.phantom import write_phantom
from dataset_scripts.phantom.corpus import LAYOUTS
from dataset_scripts.schema import Fixations, Reading
from tests.dataset_scripts.converting import convert

MIMIC_EYE, EGD, REFLACX, IMAGES = (tree.folder for tree in LAYOUTS["all"])
SEED, READINGS = 13, 80


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts") / "all"
    return write_phantom(folder, READINGS, SEED, num_proc=2, layout="all")


@pytest.fixture(scope="module")
def converted(session, tmp_path_factory) -> dict[str, tuple[dict[str, Reading], dict]]:
    output, images = tmp_path_factory.mktemp("converted"), session / IMAGES
    return {
        "mimic_eye": convert("mimic_eye", session / MIMIC_EYE, output / "eye"),
        "egd": convert("egd", session / EGD, output / "egd", images=images),
        "reflacx": convert("reflacx", session / REFLACX, output / "reflacx", images=images),
        "mimic_cxr": convert("mimic_cxr", images, output / "cxr"),
    }


def comparable(row: Reading) -> dict:
    image = row["image"]
    return {**row, "source": None, "image": (image.mode, image.size, image.tobytes())}


def test_three_layouts_give_the_same_rows(converted):
    eye, egd, reflacx = (converted[name][0] for name in ("mimic_eye", "egd", "reflacx"))
    assert len(egd) > 10 and len(reflacx) > 50
    assert eye.keys() == egd.keys() | reflacx.keys() and not egd.keys() & reflacx.keys()
    for reading_id, row in eye.items():
        other = egd.get(reading_id) or reflacx[reading_id]
        assert comparable(row) == comparable(other), reading_id
        assert row["source"] == other["source"] == ("phantom/egd" if reading_id in egd else "phantom/reflacx")


def test_everybody_has_a_sex_and_an_age(converted):
    for rows, report in converted.values():
        assert {row["sex"] for row in rows.values()} == {"F", "M"}
        assert all(20 <= row["age_years"] < 96 for row in rows.values())
        assert not {"age_not_possible", "sex_not_understood"} & set(report["notes"])
    decades = {int(row["age_years"] // 10) for row in converted["mimic_eye"][0].values()}
    assert len(decades) >= 5


def test_three_layouts_have_the_same_splits(converted):
    counts = [{name: s["readings"] for name, s in converted[c][1]["splits"].items()} for c in ("egd", "reflacx")]
    summed = {name: sum(count.get(name, 0) for count in counts) for name in ("train", "validation", "test")}
    eye = {name: s["readings"] for name, s in converted["mimic_eye"][1]["splits"].items()}
    assert summed == eye


def test_session_holds_every_quirk(converted):
    report = converted["egd"][1]
    assert report["notes"]["transcript_without_times"]["count"] >= 1
    assert report["tables"]["EyeGaze/fixations.csv"]["dropped"]["truncated_id"]["count"] >= 10
    phases = {reading_id[1] for reading_id in converted["reflacx"][0]}
    assert phases == {"1", "2", "3"}
    assert converted["reflacx"][1]["readings"]["dropped"]["eye_tracking_data_discarded"]["count"] >= 1


def test_phase_1_uses_its_own_labels(converted):
    rows = converted["reflacx"][0]
    first = {f["name"] for key, row in rows.items() if key[1] == "1" for f in row["findings"]}
    third = {f["name"] for key, row in rows.items() if key[1] == "3" for f in row["findings"]}
    assert {"Nodule", "Wide mediastinum", "Quality issue"} <= first - third
    assert {"Lung nodule or mass", "Abnormal mediastinal contour"} <= third - first


def test_images_tree_is_a_mimic_cxr_source(converted):
    rows, report = converted["mimic_cxr"]
    assert report["readings"]["rows_dropped"] == 0 and report["generated"] is True
    eye = converted["mimic_eye"][0]
    by_image = {row["image_id"]: row for row in eye.values()}
    assert rows.keys() >= by_image.keys()
    for image_id, row in by_image.items():
        same = ("subject_id", "study_id", "view", "width", "height", "license")
        assert [row[name] for name in same] == [rows[image_id][name] for name in same]
        assert row["image"].tobytes() == rows[image_id]["image"].tobytes()


def test_fixations_of_the_samples_are_those_of_the_table(tmp_path):
    """At 60 Hz a fixation ends up to two samples early, and the position shakes by a pixel or two."""
    raw = write_phantom(tmp_path / "raw", readings=40, seed=SEED, raw_samples=True, layout="egd")
    table_rows, _ = convert("egd", raw / EGD, tmp_path / "table", images=raw / IMAGES)
    (raw / EGD / "fixations.csv").unlink()
    sample_rows, _ = convert("egd", raw / EGD, tmp_path / "samples", images=raw / IMAGES)
    assert len(table_rows) == len(sample_rows) > 4
    for reading_id, row in table_rows.items():
        if row["fixations"] is not None:
            _compare(row["fixations"], sample_rows[reading_id]["fixations"])


def _compare(table: Fixations, sampled: Fixations) -> None:
    common, left, right = np.intersect1d(table["start"], sampled["start"], return_indices=True)
    assert len(common) >= 0.95 * len(table["start"])
    shorter = np.array(table["duration"])[left] - np.array(sampled["duration"])[right]
    assert shorter.min() > -1e-4 and shorter.max() < 2 / 60
    assert np.abs(np.array(table["x"])[left] - np.array(sampled["x"])[right]).max() < 6 / 400


@pytest.mark.parametrize("layout", ["egd", "reflacx", "mimic_eye"])
def test_a_layout_alone_has_the_bytes_of_all(tmp_path, layout):
    together = write_phantom(tmp_path / "all", readings=9, seed=SEED, layout="all")
    alone = write_phantom(tmp_path / layout, readings=9, seed=SEED, num_proc=2, layout=layout)
    folders = [MIMIC_EYE] if layout == "mimic_eye" else [tree.folder for tree in LAYOUTS[layout]]
    for own, folder in zip(LAYOUTS[layout], folders, strict=True):
        assert digests(alone / own.folder) == digests(together / folder)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "phantom.json")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_raw_forms(session):
    header = (session / EGD / "fixations.csv").read_text().partition("\n")[0].split(",")
    assert len(header) == 37
    assert len((session / EGD / "master_sheet.csv").read_text().partition("\n")[0].split(",")) == 59
    phase_1 = (session / REFLACX / "main_data" / "metadata_phase_1.csv").read_bytes()
    assert phase_1.startswith(b"id,split,") and phase_1.count(b"\r\n") == phase_1.count(b"\n") > 1
    metadata = gzip.decompress((session / IMAGES / "mimic-cxr-2.0.0-metadata.csv.gz").read_bytes())
    assert metadata.startswith(b"dicom_id,subject_id,study_id,")
    assert all((session / tree / "phantom.json").is_file() for tree in (MIMIC_EYE, EGD, REFLACX, IMAGES))
