"""REFLACX as released: its quirks, one test each, with a MIMIC-CXR-JPG tree beside it."""

import shutil

import pytest

from dataset_scripts.schema import UserError
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert


@pytest.fixture
def tree(tmp_path):
    return raw.reflacx_tree(tmp_path / "reflacx")


@pytest.fixture
def images(tmp_path):
    return raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")


def replace(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def test_rows_of_the_release(tree, images, tmp_path):
    readings, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert set(readings) == {raw.PHASE_3, raw.PHASE_1, raw.NO_GAZE}
    row = readings[raw.PHASE_3]
    assert (row["image_id"], row["study_id"], row["subject_id"]) == (raw.REFLACX_IMAGE, raw.STUDY, "10000001")
    assert (row["source"], row["width"], row["height"], row["view"]) == ("reflacx", raw.WIDTH, raw.HEIGHT, "PA")
    assert row["fixations"]["start"] == [-0.25, 0.5]
    assert list(report["splits"]) == ["validation"]
    assert report["readings"]["dropped"] == {"eye_tracking_data_discarded": {"count": 1, "first": [raw.DISCARDED]}}
    assert report["notes"]["metadata_table_missing"]["first"] == ["main_data/metadata_phase_2.csv"]


def test_labels_are_those_of_the_phase(tree, images, tmp_path):
    readings, _ = convert("reflacx", tree, tmp_path / "out", images=images)
    names = [[finding["name"] for finding in readings[name]["findings"]] for name in (raw.PHASE_1, raw.PHASE_3)]
    phase_1 = ["Airway wall thickening", "Atelectasis", "Consolidation", "Quality issue", "Support devices"]
    assert names == [phase_1, ["Atelectasis", "Consolidation", "Lung nodule or mass", "Support devices"]]


def test_readings_of_one_image_share_its_picture(tree, images, tmp_path):
    readings, _ = convert("reflacx", tree, tmp_path / "out", images=images)
    pictures = {row["image"].tobytes() for row in readings.values()}
    assert len(pictures) == 1 and {row["image_id"] for row in readings.values()} == {raw.REFLACX_IMAGE}


def test_empty_transcript_falls_back_to_the_report_of_the_images(tree, images, tmp_path):
    readings, _ = convert("reflacx", tree, tmp_path / "out", images=images)
    assert readings[raw.NO_GAZE]["sentences"][0]["text"] == "The lungs are clear."


def test_without_a_metadata_table_there_is_nothing_to_read(tree, images, tmp_path):
    for path in (tree / "main_data").glob("*.csv"):
        path.unlink()
    with pytest.raises(UserError, match="metadata_phase_1"):
        convert("reflacx", tree, tmp_path / "out", images=images)


def test_patient_in_two_splits_is_refused(tree, images, tmp_path):
    replace(tree / "main_data" / "metadata_phase_1.csv", "validate", "test")
    with pytest.raises(UserError, match="patient 10000001 lies in both test and validation"):
        convert("reflacx", tree, tmp_path / "out", images=images)


def test_split_that_is_none_drops_the_reading(tree, images, tmp_path):
    replace(tree / "main_data" / "metadata_phase_1.csv", "validate", "held out")
    _, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert report["readings"]["dropped"]["split_unknown"]["count"] == 1


def test_split_that_is_not_mimic_cxrs_is_noted(tree, images, tmp_path):
    for phase in (1, 3):
        replace(tree / "main_data" / f"metadata_phase_{phase}.csv", "validate", "test")
    _, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert list(report["splits"]) == ["test"]
    assert report["notes"]["split_is_not_that_of_mimic_cxr"]["count"] == 3


def test_id_in_two_phases_is_dropped_the_second_time(tree, images, tmp_path):
    replace(tree / "main_data" / "metadata_phase_3.csv", raw.NO_GAZE, raw.PHASE_1)
    readings, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert set(readings) == {raw.PHASE_1, raw.PHASE_3}
    assert report["readings"]["dropped"]["duplicate_reading_id"]["first"] == [raw.PHASE_1]


def test_study_is_taken_from_the_metadata_of_the_images(tree, images, tmp_path):
    replace(tree / "main_data" / "metadata_phase_1.csv", f"/s{raw.STUDY}/", "/")
    readings, _ = convert("reflacx", tree, tmp_path / "out", images=images)
    assert readings[raw.PHASE_1]["study_id"] == raw.STUDY


def test_missing_reading_folder(tree, images, tmp_path):
    shutil.rmtree(tree / "main_data" / raw.PHASE_1)
    _, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert report["readings"]["dropped"]["reading_folder_missing"]["first"] == [raw.PHASE_1]


def test_start_equal_to_end_is_legal_for_a_word_not_for_a_fixation(tree, images, tmp_path):
    words = tree / "main_data" / raw.PHASE_1 / "timestamps_transcription.csv"
    header = "word,timestamp_start_word,timestamp_end_word"
    raw.write_lines(words, [header, "clear,1.0,1.0", ".,1.0,1.0"], "\r\n")
    readings, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert readings[raw.PHASE_1]["sentences"] == [{"text": "clear.", "start_seconds": 1.0, "end_seconds": 1.0}]
    assert report["tables"]["REFLACX/fixations.csv"]["dropped"]["no_duration"]["count"] == 1


def test_fixations_backwards_negative_and_repeated(tree, images, tmp_path):
    lines = [
        raw.fixation(2.0, 2.5, "10", "10"),
        raw.fixation(1.0, 1.5, "20", "20"),
        raw.fixation(1.0, 1.5, "20", "20"),
        raw.fixation(4.0, 3.5, "20", "20"),
        raw.fixation("inf", 9.0, "20", "20"),
        raw.fixation("1,5", "2,5", "20", "20").replace(",0.5,20,40,1.0,0.5,0,0,200,200", ""),  # decimal commas
    ]
    raw.write_lines(tree / "main_data" / raw.PHASE_1 / "fixations.csv", [raw.FIXATION_HEADER, *lines], "\r\n")
    readings, report = convert("reflacx", tree, tmp_path / "out", images=images)
    assert readings[raw.PHASE_1]["fixations"]["start"] == [1.0, 2.0]
    dropped = report["tables"]["REFLACX/fixations.csv"]["dropped"]
    assert dropped["within_another_fixation"]["first"] == [f"{raw.PHASE_1} row 2"]
    assert dropped["negative_duration"]["first"] == [f"{raw.PHASE_1} row 4"]
    assert {f"{raw.PHASE_1} row 5", f"{raw.PHASE_1} row 6"} <= set(dropped["not_a_number"]["first"])
    assert report["notes"]["fixations_sorted_by_start"]["count"] == 1


@pytest.mark.parametrize(("text", "is_noted"), [("there's a 2.5 cm nodule.", False), ("there is a nodule.", True)])
def test_words_stand_as_in_the_transcription_and_another_one_is_noted(tree, images, tmp_path, text, is_noted):
    folder = tree / "main_data" / raw.PHASE_1
    words = [f"{word},{i}.0,{i}.5" for i, word in enumerate(("there", "'s", "a", "2", ".", "5", "cm", "nodule", "."))]
    raw.write_lines(folder / "timestamps_transcription.csv", ["word,timestamp_start_word,timestamp_end_word", *words])
    (folder / "transcription.txt").write_text(text)
    readings, report = convert("reflacx", tree, tmp_path / "out", images=images)
    texts = [sentence["text"] for sentence in readings[raw.PHASE_1]["sentences"]]
    assert texts == ([text] if not is_noted else ["there 's a 2.", "5 cm nodule."])
    assert ("text_differs_from_its_timed_words" in report["notes"]) == is_noted
