"""A REFLACX reading whose files are damaged: what can be kept is, and what is lost is said."""

from pathlib import Path
from typing import Any

import pytest

from dataset_scripts.schema import Reading
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert

WORDS = "word,timestamp_start_word,timestamp_end_word"
TEXT = "the heart is large. no effusion is seen."
TIMED = [f"{word},{i}.0,{i}.5" for i, word in enumerate(TEXT.replace(".", " .").split())]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = raw.reflacx_tree(tmp_path / "reflacx")
    folder = root / "main_data" / raw.PHASE_1
    raw.write_lines(folder / "timestamps_transcription.csv", [WORDS, *TIMED])
    (folder / "transcription.txt").write_text(TEXT)
    raw.write_lines(folder / "chest_bounding_box.csv", ["xmin,ymin,xmax,ymax", "0,0,100,100"])
    return root


def converted(tree: Path, tmp_path: Path) -> tuple[Reading, dict[str, Any]]:
    """The reading of phase 1, and the report."""
    images = raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")
    rows, report = convert("reflacx", tree, tmp_path / "out", images=images)
    return rows[raw.PHASE_1], report


def noted(report: dict[str, Any], reason: str) -> list[str]:
    """Where a note names the reading of phase 1."""
    return [where for where in report["notes"].get(reason, {"first": []})["first"] if raw.PHASE_1 in where]


def spans(row: Reading) -> list[tuple[str, float | None, float | None]]:
    return [(found["text"], found["start_seconds"], found["end_seconds"]) for found in row["sentences"]]


@pytest.mark.parametrize(
    ("word", "times"), [(0, '"0,5","1,5"'), (0, "nan,1.5"), (3, "2.5,NaN"), (0, ","), (3, "4.5,-1.0"), (3, "3.0,soon")]
)
def test_times_that_are_none_leave_the_sentence_untimed_and_are_noted(
    tree: Path, tmp_path: Path, word: int, times: str
) -> None:
    lines = [f"{line.partition(',')[0]},{times}" if at == word else line for at, line in enumerate(TIMED)]
    raw.write_lines(tree / "main_data" / raw.PHASE_1 / "timestamps_transcription.csv", [WORDS, *lines])
    row, report = converted(tree, tmp_path)
    assert spans(row) == [("the heart is large.", None, None), ("no effusion is seen.", 5.0, 8.5)]
    assert noted(report, "some_sentences_without_time") == [f"{raw.PHASE_1}: 1 of 2"]


def test_words_that_were_cut_off_come_from_the_transcription(tree: Path, tmp_path: Path) -> None:
    path = tree / "main_data" / raw.PHASE_1 / "timestamps_transcription.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    row, report = converted(tree, tmp_path)
    assert " ".join(text for text, _, _ in spans(row)) == TEXT
    assert spans(row)[0] == ("the heart is large.", 0.0, 3.5) and spans(row)[1][1:] == (None, None)
    assert noted(report, "text_goes_on_after_its_timed_words") and noted(report, "some_sentences_without_time")


def test_missing_ellipses_chest_box_and_optional_columns_are_noted(tree: Path, tmp_path: Path) -> None:
    folder = tree / "main_data" / raw.PHASE_1
    for name in ("anomaly_location_ellipses.csv", "chest_bounding_box.csv"):
        (folder / name).unlink()
    lines = (folder / "fixations.csv").read_text().splitlines()
    raw.write_lines(folder / "fixations.csv", [",".join(line.split(",")[:4]) for line in lines])
    row, report = converted(tree, tmp_path)
    assert row["fixations"] is not None and row["fixations"]["sigma_x"] is None and row["boxes"] == []
    for part in ("ellipses", "chest_box", "degrees_per_pixel", "shown_rectangle"):
        assert noted(report, f"{part}_missing"), part


@pytest.mark.parametrize(("line", "kept"), [("0,1e300,9,9", 1), ("1000,1300,9,9", 1), ("3,2e13,9,9", 1)])
def test_fixations_of_impossible_length_are_dropped(tree: Path, tmp_path: Path, line: str, kept: int) -> None:
    path = tree / "main_data" / raw.PHASE_1 / "fixations.csv"
    rest = raw.fixation(0, 1, "10", "10").partition(",10,")[2].partition(",")[2]
    raw.write_lines(path, [raw.FIXATION_HEADER, raw.fixation(0, 1, "10", "10"), f"{line},{rest}"])
    row, report = converted(tree, tmp_path)
    assert row["fixations"] is None or len(row["fixations"]["x"]) == kept
    dropped = report["tables"]["REFLACX/fixations.csv"]["dropped"]
    assert noted({"notes": dropped}, "too_long_for_seconds") or noted({"notes": dropped}, "not_a_number")


def test_a_recording_in_milliseconds_has_no_gaze_and_says_why(tree: Path, tmp_path: Path) -> None:
    path = tree / "main_data" / raw.PHASE_1 / "fixations.csv"
    times = [(0, 40), (50, 350), (400, 650)]
    raw.write_lines(path, [raw.FIXATION_HEADER, *(raw.fixation(a, b, "10", "10") for a, b in times)])
    row, report = converted(tree, tmp_path)
    assert row["fixations"] is None and noted(report, "no_gaze_left")
    assert report["tables"]["REFLACX/fixations.csv"]["dropped"]["too_long_for_seconds"]["count"] == 3


def test_decimal_commas_cost_the_gaze_and_name_file_column_and_row(tree: Path, tmp_path: Path) -> None:
    path = tree / "main_data" / raw.PHASE_1 / "fixations.csv"
    line = raw.fixation(0, 1, "10", "10")
    raw.write_lines(path, [raw.FIXATION_HEADER, line, '"1,5"' + line[1:]])
    row, report = converted(tree, tmp_path)
    assert row["fixations"] is None and row["sentences"]
    said = "fixations.csv: column timestamp_start_fixation, row 2: '1,5' has a comma; expected a decimal point"
    assert noted(report, "fixations_not_understood") == [f"{raw.PHASE_1}: {said}"]


def test_yes_discards_the_eye_tracking(tree: Path, tmp_path: Path) -> None:
    path = tree / "main_data" / "metadata_phase_3.csv"
    path.write_text(path.read_text().replace(",True,physionet", ",yes,physionet"))
    _, report = converted(tree, tmp_path)
    assert report["readings"]["dropped"]["eye_tracking_data_discarded"]["first"] == [raw.DISCARDED]


@pytest.mark.parametrize("certainty", ["high", "7", "-1", ""])
def test_certainty_that_is_none_is_noted(tree: Path, tmp_path: Path, certainty: str) -> None:
    path = tree / "main_data" / raw.PHASE_1 / "anomaly_location_ellipses.csv"
    raw.write_lines(path, [raw.ELLIPSE_HEADER, f"20,40,120,240,{certainty},True,False,False,False"])
    row, report = converted(tree, tmp_path)
    assert [box["certainty"] for box in row["boxes"] if box["shape"] == "ellipse"] == [None]
    assert noted(report, "certainty_not_understood")


def test_other_findings_in_words_are_noted(tree: Path, tmp_path: Path) -> None:
    _, report = converted(tree, tmp_path)
    assert report["notes"]["other_findings_in_words_left_out"]["first"] == [f"{raw.PHASE_3}: scar|clip"]


@pytest.mark.parametrize(("encoding", "is_noted"), [("cp1252", True), ("utf-16", False), ("utf-8", False)])
def test_transcription_in_another_encoding(tree: Path, tmp_path: Path, encoding: str, is_noted: bool) -> None:
    folder = tree / "main_data" / raw.PHASE_1
    (folder / "timestamps_transcription.csv").unlink()
    (folder / "transcription.txt").write_bytes("a na\u00efve reading.".encode(encoding))
    row, report = converted(tree, tmp_path)
    assert [text for text, _, _ in spans(row)] == ["a na\u00efve reading."]
    assert bool(noted(report, "text_read_as_cp1252")) == is_noted


def test_transcription_that_is_no_text_is_lost_and_noted(tree: Path, tmp_path: Path) -> None:
    folder = tree / "main_data" / raw.PHASE_1
    (folder / "transcription.txt").write_bytes(b"a \x81 \xff reading")
    row, report = converted(tree, tmp_path)
    assert len(row["sentences"]) == 2 and noted(report, "transcription_not_understood")


def test_a_short_row_is_noted_as_its_findings_are_lost(tree: Path, tmp_path: Path) -> None:
    path = tree / "main_data" / "metadata_phase_1.csv"
    path.write_text(path.read_text().replace(",5,1,0,True,False", ",5"))
    row, report = converted(tree, tmp_path)
    assert [finding["name"] for finding in row["findings"]] == ["Airway wall thickening"]
    assert report["notes"]["row_lacks_cells_at_its_end"]["first"] == [f"{path}: row 1: 9 of 13"]
