"""EGD's tables and transcripts, damaged: what can be kept is, and what is lost is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts import build
from dataset_scripts.schema import Reading
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert

TEXT = "The heart is large. No effusion is seen."


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return raw.egd_tree(tmp_path / "egd-cxr")


def converted(tree: Path, tmp_path: Path) -> tuple[Reading, dict[str, Any]]:
    images = raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")
    rows, report = convert("egd", tree, tmp_path / "out", images=images)
    return rows[raw.EGD_IMAGE], report


def phrases(*times: tuple[Any, Any]) -> list[dict[str, object]]:
    texts = ("The heart", "is large.", "No effusion", "is seen.")
    return [
        {"phrase": text, "begin_time": begin, "end_time": end} for text, (begin, end) in zip(texts, times, strict=True)
    ]


@pytest.mark.parametrize("begin", ["0,5", None, float("nan"), "soon", True])
def test_times_that_are_none_leave_the_sentence_untimed_and_are_noted(tree: Path, tmp_path: Path, begin: Any) -> None:
    raw.write_transcript(tree, phrases((begin, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)), TEXT)
    row, report = converted(tree, tmp_path)
    found = [(s["text"], s["start_seconds"], s["end_seconds"]) for s in row["sentences"]]
    assert found == [("The heart is large.", None, None), ("No effusion is seen.", 2.0, 4.0)]
    assert report["notes"]["some_sentences_without_time"]["first"] == [f"{raw.EGD_IMAGE}: 1 of 2"]


def test_phrases_in_reverse_order_are_put_in_that_of_the_text(tree: Path, tmp_path: Path) -> None:
    ordered = phrases((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0))
    raw.write_transcript(tree, ordered[::-1], TEXT)
    row, report = converted(tree, tmp_path)
    found = [(s["text"], s["start_seconds"], s["end_seconds"]) for s in row["sentences"]]
    assert found == [("The heart is large.", 0.0, 2.0), ("No effusion is seen.", 2.0, 4.0)]
    assert report["notes"]["transcript_times_run_backwards"]["first"] == [raw.EGD_IMAGE]


def test_transcript_of_another_form_is_lost_and_noted(tree: Path, tmp_path: Path) -> None:
    path = tree / "audio_segmentation_transcripts" / raw.EGD_IMAGE / "transcript.json"
    path.write_text(json.dumps({"time_stamped_text": [5]}))
    row, report = converted(tree, tmp_path)
    assert row["sentences"] and report["notes"]["text_from_written_report"]["count"] == 1
    assert str(path) in report["notes"]["transcript_not_understood"]["first"][0]


@pytest.mark.parametrize("damage", ["missing", "ragged", "empty"])
def test_boxes_are_not_gaze(tree: Path, tmp_path: Path, damage: str) -> None:
    path = tree / "bounding_boxes.csv"
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_text("")
    else:
        raw.write_lines(path, [*path.read_text().splitlines(), f"{raw.EGD_IMAGE},heart,1,2,3,4,5"])
    row, report = converted(tree, tmp_path)
    assert row["fixations"] is not None
    if damage == "ragged":
        assert len(row["boxes"]) == 2
        where = report["tables"]["EyeGaze/bounding_boxes.csv"]["dropped"]["row_of_another_length"]["first"]
        assert where == [f"{path}: row 4 has 7 cells; expected 6, as in the header"]
    else:
        assert row["boxes"] == []
        assert report["notes"][f"boxes_{'missing' if damage == 'missing' else 'not_understood'}"]["count"] == 1


def test_one_ragged_line_of_fixations_costs_one_fixation(tree: Path, tmp_path: Path) -> None:
    path = tree / "fixations.csv"
    lines = path.read_text().splitlines()
    raw.write_lines(path, [*lines[:3], lines[2] + ",9", *lines[3:]])
    row, report = converted(tree, tmp_path)
    assert row["fixations"] is not None and row["fixations"]["start"] == [0.25, 2.0]
    tally = report["tables"]["EyeGaze/fixations.csv"]
    assert tally["rows_in"] == 5
    where = tally["dropped"]["row_of_another_length"]["first"]
    assert where == [f"{path}: row 3 has 12 cells; expected 11, as in the header"]


def test_decimal_commas_are_named_and_a_corpus_without_gaze_stops(tree: Path, tmp_path: Path, capsys: Any) -> None:
    path = tree / "fixations.csv"
    path.write_text(path.read_text().replace(",0.25,0.5,", ',"0,25","0,5",').replace(",2.0,0.5,", ',"2,0","0,5",'))
    images = raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")
    argv = ["egd", "--source", str(tree), "--output", str(tmp_path / "out"), "--images", str(images)]
    assert build.main(argv) == 2 and not (tmp_path / "out").exists()
    said = capsys.readouterr()
    assert f"decimal_comma, first {path}: column FPOGS: 0,25; expected a decimal point" in said.out
    assert "not_a_number" in said.out and "1 of 1 readings have lost their gaze" in said.err


def test_every_table_of_the_images_is_in_the_report(tree: Path, tmp_path: Path) -> None:
    _, report = converted(tree, tmp_path)
    metadata = report["tables"]["mimic-cxr-metadata.csv"]
    assert (metadata["rows_in"], metadata["rows_kept"]) == (2, 1)
    assert metadata["dropped"]["not_of_this_corpus"]["count"] == 1
    assert report["notes"]["table_of_the_images_missing"]["first"] == ["patients.csv"]
