"""The quirks of the MIMIC-Eye tree, one test each."""

import json
import shutil
from pathlib import Path

import pytest

from dataset_scripts import build
from dataset_scripts.schema import FEATURES, Reading, UserError, load_readings
from tests.dataset_scripts import raw_trees as raw


def convert(source: Path, output: Path) -> dict[str, Reading]:
    """All readings by id."""
    report = build.build("mimic_eye", source, output, image_size=64, max_loss=1)
    return {row["reading_id"]: row for split in report["splits"] for row in load_readings(output, split)}


def report_of(output: Path) -> dict:
    return json.loads((output / "conversion_report.json").read_text())


@pytest.fixture
def tree(tmp_path):
    return raw.mimic_eye_tree(tmp_path / "raw")


@pytest.fixture
def patient(tree):
    return tree / "patient_10000001"


@pytest.fixture
def readings(tree, tmp_path):
    return convert(tree, tmp_path / "out")


@pytest.fixture
def report(readings, tmp_path):
    return report_of(tmp_path / "out")


def test_rows_have_the_schema(readings, tmp_path):
    rows = load_readings(tmp_path / "out", "validation")
    assert rows.features == FEATURES
    assert set(readings) == {raw.PHASE_3, raw.PHASE_1, raw.NO_GAZE, raw.EGD_IMAGE}


def test_ids_view_source_and_license(readings):
    row = readings[raw.PHASE_3]
    assert (row["image_id"], row["study_id"], row["subject_id"]) == (raw.REFLACX_IMAGE, raw.STUDY, "10000001")
    assert (row["view"], row["reader_id"], row["source"]) == ("PA", None, "mimic_eye/reflacx")
    assert "Credentialed" in row["license"]
    assert readings[raw.EGD_IMAGE]["source"] == "mimic_eye/egd"


def test_discarded_reading_is_dropped_and_counted(report):
    dropped = report["readings"]["dropped"]
    assert dropped == {"eye_tracking_data_discarded": {"count": 1, "first": [raw.DISCARDED]}}
    assert report["readings"]["rows_in"] == 5
    assert report["readings"]["rows_kept"] == 4


def test_every_table_adds_up(report):
    assert len(report["tables"]) == 11
    for tally in report["tables"].values():
        assert tally["rows_in"] == tally["rows_kept"] + tally["rows_dropped"]
        assert tally["rows_dropped"] == sum(reason["count"] for reason in tally["dropped"].values())


def test_reflacx_fixations_are_fractions_by_the_tables_size(readings):
    fixations = readings[raw.PHASE_3]["fixations"]
    assert fixations["x"] == [0.5, 0.25]
    assert fixations["y"] == [0.25, 0.5]
    assert fixations["start"] == [-0.25, 0.5]  # negative: the eyes were recorded before the audio
    assert fixations["duration"] == [0.5, 0.25]
    assert fixations["sigma_x"] == fixations["sigma_y"] == [0.1, 0.1]
    assert (fixations["x_max"], fixations["y_max"]) == ([1, 1], [0.5, 0.5])


def test_reflacx_invalid_fixations_are_counted_by_reason(report):
    dropped = report["tables"]["REFLACX/fixations.csv"]["dropped"]
    assert dropped["outside_image"]["first"] == [f"{raw.PHASE_3} row 3", f"{raw.PHASE_3} row 4", f"{raw.NO_GAZE} row 1"]
    assert dropped["not_a_number"] == {"count": 1, "first": [f"{raw.PHASE_3} row 5"]}
    assert dropped["no_duration"] == {"count": 1, "first": [f"{raw.PHASE_3} row 6"]}


def test_reflacx_words_become_sentences(readings):
    assert readings[raw.PHASE_3]["sentences"] == [
        {"text": "none, nan seen.", "start_seconds": 0.5, "end_seconds": 1.5},
        {"text": "heart normal", "start_seconds": 2.0, "end_seconds": 2.5},
    ]


def test_reflacx_labels_follow_the_phase(readings):
    phase_3 = {finding["name"]: finding["value"] for finding in readings[raw.PHASE_3]["findings"]}
    assert phase_3 == {"Atelectasis": 1, "Consolidation": 0, "Lung nodule or mass": -1, "Support devices": 1}
    phase_1 = {finding["name"]: finding["value"] for finding in readings[raw.PHASE_1]["findings"]}
    expected = {"Airway wall thickening": 1, "Atelectasis": -1, "Consolidation": 0}
    assert phase_1 == {**expected, "Quality issue": 1, "Support devices": 0}


def test_reflacx_ellipse_gives_one_box_a_label(readings, report):
    boxes = readings[raw.PHASE_3]["boxes"]
    assert [box["label"] for box in boxes] == ["Atelectasis", "Lung nodule or mass", "Consolidation"]
    corners = {"x_min": 0.1, "y_min": 0.1, "x_max": 0.6, "y_max": 0.6}
    assert boxes[0] == {"label": "Atelectasis", "shape": "ellipse", **corners, "certainty": 5}
    assert boxes[2]["x_max"] == 1.25  # not clipped: that would be another ellipse
    assert report["tables"]["REFLACX/anomaly_location_ellipses.csv"]["dropped"]["no_label"]["count"] == 1


def test_empty_ellipse_table(readings):
    assert readings[raw.PHASE_1]["boxes"] == []


def test_reading_without_valid_fixations_is_kept(readings, report):
    assert readings[raw.NO_GAZE]["fixations"] is None
    assert report["notes"]["no_gaze_left"] == {"count": 1, "first": [raw.NO_GAZE]}
    assert report["splits"]["validation"]["readings_without_gaze"] == 1


def test_empty_transcript_falls_back_to_the_written_report(readings, report):
    texts = [sentence["text"] for sentence in readings[raw.NO_GAZE]["sentences"]]
    assert texts == ["The lungs are clear.", "Heart size is normal at 2.5 units.", "No acute process."]
    assert all(sentence["start_seconds"] is None for sentence in readings[raw.NO_GAZE]["sentences"])
    assert report["notes"]["text_from_written_report"]["first"] == [raw.NO_GAZE]


def test_egd_fixation_runs_from_fpogs_for_fpogd(readings):
    fixations = readings[raw.EGD_IMAGE]["fixations"]
    assert (fixations["x"], fixations["y"]) == ([0.25, 0.75], [0.25, 0.75])
    assert (fixations["start"], fixations["duration"]) == ([0.25, 2.0], [0.5, 0.5])
    assert fixations["sigma_x"] is None


def test_egd_calibration_ids_and_negative_positions_are_dropped(report):
    dropped = report["tables"]["EyeGaze/fixations.csv"]["dropped"]
    assert dropped["truncated_id"] == {"count": 1, "first": [raw.CALIBRATION_ID]}
    assert dropped["outside_image"] == {"count": 1, "first": [f"{raw.EGD_IMAGE} row 2"]}


def test_egd_phrase_with_two_full_stops(readings):
    assert readings[raw.EGD_IMAGE]["sentences"] == [
        {"text": "The heart is enlarged.", "start_seconds": 0.5, "end_seconds": 2.0},
        {"text": "No effusion.", "start_seconds": 1.0, "end_seconds": 2.0},
        {"text": "Small opacity", "start_seconds": 1.0, "end_seconds": 2.5},
    ]


def test_egd_indication_with_line_breaks_is_one_row(report):
    assert report["tables"]["EyeGaze/master_sheet.csv"]["rows_in"] == 1


def test_egd_own_label_wins_over_chexpert(readings):
    findings = {finding["name"]: finding["value"] for finding in readings[raw.EGD_IMAGE]["findings"]}
    assert findings["Consolidation"] == 1  # consolidation 1, consolidation__chx 0.0
    assert findings["Pleural effusion"] == -1
    assert findings["Enlarged cardiac silhouette"] == 0
    assert "Edema" not in findings  # blank


def test_egd_boxes_are_clipped_at_the_image(readings, report):
    boxes = {box["label"]: box for box in readings[raw.EGD_IMAGE]["boxes"]}
    assert [boxes["cardiac silhouette"][side] for side in ("x_min", "y_min", "x_max", "y_max")] == [
        0.25,
        0.25,
        0.5,
        0.75,
    ]
    assert boxes["left lung"]["x_max"] == 1
    assert boxes["left lung"]["shape"] == "box" and boxes["left lung"]["certainty"] is None
    assert report["tables"]["EyeGaze/bounding_boxes.csv"]["dropped"]["no_area_in_image"]["count"] == 1


def test_egd_empty_time_stamped_text_uses_the_full_text(tree, patient, tmp_path):
    raw.write_transcript(patient / "EyeGaze", [])
    sentences = convert(tree, tmp_path / "out")[raw.EGD_IMAGE]["sentences"]
    assert sentences == [{"text": "Heart is large.", "start_seconds": None, "end_seconds": None}]
    assert report_of(tmp_path / "out")["notes"]["transcript_without_times"]["count"] == 1


def test_egd_broken_transcript_falls_back(tree, patient, tmp_path):
    path = patient / "EyeGaze" / "audio_segmentation_transcripts" / raw.EGD_IMAGE / "transcript.json"
    path.write_text("{")
    assert convert(tree, tmp_path / "out")[raw.EGD_IMAGE]["sentences"][0]["text"] == "The lungs are clear."
    assert report_of(tmp_path / "out")["notes"]["transcript_not_understood"]["count"] == 1


def test_dropped_egd_reading_takes_its_rows_along(tree, patient, tmp_path):
    (patient / "CXR-JPG" / f"s{raw.STUDY}" / f"{raw.EGD_IMAGE}.jpg").unlink()
    assert raw.EGD_IMAGE not in convert(tree, tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert report["readings"]["dropped"]["image_missing"]["count"] == 1
    assert report["tables"]["EyeGaze/fixations.csv"]["dropped"]["reading_dropped"]["count"] == 3


def test_part_with_a_broken_table_is_lost_and_named(tree, patient, tmp_path):
    path = patient / "REFLACX" / "main_data" / raw.PHASE_1 / "fixations.csv"
    raw.write_lines(path, ["time,x", "1,2"])
    row = convert(tree, tmp_path / "out")[raw.PHASE_1]
    assert row["fixations"] is None and row["sentences"]
    noted = report_of(tmp_path / "out")["notes"]["fixations_not_understood"]["first"]
    assert noted[0].startswith(f"{raw.PHASE_1}: {path}: column(s) timestamp_start_fixation")


@pytest.mark.parametrize("edit", ["missing", "disagree"])
def test_split_by_hash_when_the_table_does_not_say(tree, patient, tmp_path, edit):
    path = patient / "CXR-JPG" / "cxr_split.csv"
    if edit == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("validate", "train", 1))
    convert(tree, tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert report["notes"]["patient_split_by_hash"]["count"] == 1
    assert len(report["splits"]) == 1


def test_generated_tree_is_marked_everywhere(tree, tmp_path):
    (tree / "phantom.json").write_text('{"generated": true}')
    rows = convert(tree, tmp_path / "out")
    assert {row["source"] for row in rows.values()} == {"phantom/reflacx", "phantom/egd"}
    assert report_of(tmp_path / "out")["generated"] is True
    text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)[2]
    assert "GENERATED" in text.strip().split("\n")[0] and "no patient exists" in text
    assert "must not be redistributed" not in text


def test_card_of_a_credentialed_source(readings, tmp_path):
    text = (tmp_path / "out" / "README.md").read_text()
    assert "must not be redistributed" in text and "GENERATED" not in text


def test_id_that_leads_out_of_the_source_is_dropped(tree, patient, tmp_path):
    path = patient / "REFLACX" / "metadata.csv"
    path.write_text(path.read_text().replace(raw.PHASE_1, "../../../elsewhere"))
    convert(tree, tmp_path / "out")
    assert report_of(tmp_path / "out")["readings"]["dropped"]["path_leaves_source"]["count"] == 1


def test_symbolic_link_out_of_the_source_is_dropped(tree, patient, tmp_path):
    picture = patient / "CXR-JPG" / f"s{raw.STUDY}" / f"{raw.EGD_IMAGE}.jpg"
    picture.rename(tmp_path / "elsewhere.jpg")
    picture.symlink_to(tmp_path / "elsewhere.jpg")
    assert raw.EGD_IMAGE not in convert(tree, tmp_path / "out")


def test_folder_without_patients(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="patient_"):
        convert(tmp_path / "raw", tmp_path / "out")


def test_reflacx_chest_box_is_cut_at_the_image(readings, report):
    assert readings[raw.NO_GAZE]["boxes"] == [
        {"label": "Chest", "shape": "box", "x_min": 0, "y_min": 0.1, "x_max": 0.75, "y_max": 1, "certainty": None}
    ]
    assert report["tables"]["REFLACX/chest_bounding_box.csv"]["rows_kept"] == 1


def second_patient(tree: Path) -> Path:
    """Another patient with one REFLACX reading, so that something is left when the first one's folder is broken."""
    other = tree / "patient_10000002"
    shutil.copytree(tree / "patient_10000001", other)
    shutil.rmtree(other / "EyeGaze")
    return other


@pytest.mark.parametrize(
    ("table", "lost", "reason"),
    [
        ("CXR-JPG/cxr_meta.csv", 5, "cxr_meta_not_understood"),
        ("CXR-JPG/cxr_split.csv", 1, "split_table_not_understood"),
        ("EyeGaze/master_sheet.csv", 2, "table_not_understood"),
        ("EyeGaze/fixations.csv", 1, "fixations_not_understood"),
        ("EyeGaze/bounding_boxes.csv", 1, "boxes_not_understood"),
        ("REFLACX/metadata.csv", 2, "table_not_understood"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"a;b\n1;2\n", b"\xff\xfe\x00dicom_id"])
def test_broken_table_costs_only_what_needs_it(tree, patient, tmp_path, table, lost, reason, content):
    second_patient(tree)
    (patient / table).write_bytes(content)
    build.build("mimic_eye", tree, tmp_path / "out", image_size=64, max_loss=1)
    report = report_of(tmp_path / "out")
    found = (report["notes"] | report["readings"]["dropped"])[reason]
    assert str(patient / table) in found["first"][0]
    assert report["readings"]["rows_dropped"] == lost + 1 if "cxr_meta" in table else lost
    assert report["readings"]["rows_kept"] >= 3
    for tally in report["tables"].values():
        assert tally["rows_in"] == tally["rows_kept"] + tally["rows_dropped"]


def test_reading_listed_twice_is_dropped_once(tree, patient, tmp_path):
    for name in ("REFLACX/metadata.csv", "EyeGaze/master_sheet.csv"):
        text = (patient / name).read_text()
        (patient / name).write_text(text + text.partition("\n")[2])
    assert len(convert(tree, tmp_path / "out")) == 4
    report = report_of(tmp_path / "out")
    assert report["readings"]["dropped"]["duplicate_reading_id"]["count"] == 4
    assert report["tables"]["EyeGaze/fixations.csv"]["rows_kept"] == 2


def test_ids_match_in_any_case(tree, patient, tmp_path):
    """The tables disagree about the case of an id; files are named in lower case."""
    for name in ("CXR-JPG/cxr_meta.csv", "EyeGaze/fixations.csv", "REFLACX/metadata.csv"):
        text = (patient / name).read_text()
        for image_id in (raw.EGD_IMAGE, raw.REFLACX_IMAGE):
            text = text.replace(image_id, image_id.upper())
        (patient / name).write_text(text)
    readings = convert(tree, tmp_path / "out")
    assert len(readings) == 4
    assert readings[raw.EGD_IMAGE]["fixations"]["start"] == [0.25, 2.0]
    assert {row["image_id"] for row in readings.values()} == {raw.EGD_IMAGE, raw.REFLACX_IMAGE}


def test_size_that_no_image_has_is_unknown(tree, patient, tmp_path):
    path = patient / "REFLACX" / "metadata.csv"
    path.write_text(path.read_text().replace(f",{raw.WIDTH},{raw.HEIGHT},5", f",1e12,{raw.HEIGHT},5"))
    assert raw.PHASE_1 not in convert(tree, tmp_path / "out")
    assert report_of(tmp_path / "out")["readings"]["dropped"]["image_size_unknown"]["count"] == 1


def test_picture_of_another_size_than_the_table_is_noted(report):
    assert report["notes"]["image_size_differs_from_table"]["first"][0].endswith("50 x 100, table 200 x 400")


def test_picture_of_another_shape_than_the_table_is_noted(tree, patient, tmp_path):
    raw.grey_picture(80, 100).save(patient / "CXR-JPG" / f"s{raw.STUDY}" / f"{raw.EGD_IMAGE}.jpg")
    convert(tree, tmp_path / "out")
    assert report_of(tmp_path / "out")["notes"]["image_shape_differs_from_table"]["count"] == 1


def test_endless_sentence_is_kept_and_noted(tree, patient, tmp_path):
    raw.write_transcript(patient / "EyeGaze", [], "and " * 300)
    sentences = convert(tree, tmp_path / "out")[raw.EGD_IMAGE]["sentences"]
    assert len(sentences) == 1 and len(sentences[0]["text"].split()) == 300
    assert report_of(tmp_path / "out")["notes"]["sentence_of_more_than_100_words"]["first"] == [raw.EGD_IMAGE]


def test_spreadsheets_are_not_read(tree, tmp_path):
    """Their eye_gaze.csv holds fixations by mistake."""
    raw.write_lines(tree / "spreadsheets" / "EyeGaze" / "eye_gaze.csv", ["nonsense"])
    assert len(convert(tree, tmp_path / "out")) == 4


def test_reflacx_split_that_is_not_the_patients_is_noted(report):
    assert report["notes"]["reflacx_split_is_not_the_patients"]["count"] == 3


def test_linked_table_out_of_the_source_is_not_followed(tree, patient, tmp_path):
    path = patient / "REFLACX" / "main_data" / raw.PHASE_1 / "fixations.csv"
    path.rename(tmp_path / "elsewhere.csv")
    path.symlink_to(tmp_path / "elsewhere.csv")
    assert raw.PHASE_1 not in convert(tree, tmp_path / "out")
    assert report_of(tmp_path / "out")["readings"]["dropped"]["path_leaves_source"]["count"] == 1


def test_egd_phrases_stand_as_in_the_full_text(tree, patient, tmp_path):
    phrases = [("there", 0.0, 1.0), ("'s a 2", 1.0, 2.0), (".5 cm nodule.", 2.0, 3.0)]
    timed = [dict(zip(("phrase", "begin_time", "end_time"), phrase, strict=True)) for phrase in phrases]
    raw.write_transcript(patient / "EyeGaze", timed, " there's a  2.5 cm nodule. ")
    readings = convert(tree, tmp_path / "out")
    sentence = {"text": "there's a 2.5 cm nodule.", "start_seconds": 0.0, "end_seconds": 3.0}
    assert readings[raw.EGD_IMAGE]["sentences"] == [sentence]


def test_written_report_that_stands_in_is_sectioned_as_in_mimic_cxr(tree, patient, tmp_path):
    raw.write_transcript(patient / "EyeGaze", [], " ")
    for path in patient.glob("CXR-DICOM/s*.txt"):
        path.write_text(" FINAL REPORT\n CHEST, TWO VIEWS:  The lungs are clear.\n")
    sentences = convert(tree, tmp_path / "out")[raw.EGD_IMAGE]["sentences"]
    assert [sentence["text"] for sentence in sentences] == ["The lungs are clear."]


def test_rows_of_cxr_meta_that_contradict_each_other_are_nobodys(tree, patient, tmp_path):
    path = patient / "CXR-JPG" / "cxr_meta.csv"
    lines = path.read_text().splitlines()
    raw.write_lines(path, [*lines, lines[1], lines[2].replace(f",{raw.HEIGHT},", ",999,")])
    assert set(convert(tree, tmp_path / "out")) == {raw.PHASE_3, raw.PHASE_1, raw.NO_GAZE}
    tally = report_of(tmp_path / "out")["tables"]["CXR-JPG/cxr_meta.csv"]
    assert tally["dropped"]["rows_of_one_id_differ"] == {"count": 2, "first": [raw.EGD_IMAGE]}
    assert tally["dropped"]["duplicate_row"]["first"] == [raw.REFLACX_IMAGE] and tally["rows_kept"] == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [("REFLACX/metadata.csv", "metadata_missing"), ("EyeGaze/master_sheet.csv", "master_sheet_missing")],
)
def test_missing_table_of_a_patients_readings_is_noted(tree, patient, tmp_path, name, reason):
    (patient / name).unlink()
    assert convert(tree, tmp_path / "out")
    assert report_of(tmp_path / "out")["notes"][reason]["count"] == 1


def test_folders_of_patients_in_capitals_are_read(tree, patient, tmp_path):
    patient.rename(tree / "Patient_10000001")
    rows = convert(tree, tmp_path / "out")
    assert len(rows) == 4 and {row["subject_id"] for row in rows.values()} == {"10000001"}
