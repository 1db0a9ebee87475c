"""`--propose` writes the table that says which reading is where in a tracker's exports; a person checks it."""

import csv
import re

import pytest

from dataset_scripts import build
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.gaze.test_tracker_exports import SEEN, asc, tobii
from tests.dataset_scripts.raw_trees import grey_picture


@pytest.fixture
def source(tmp_path):
    """Two readers of a.png in one file of Tobii, one of b.png in an .asc; a transcript, and files that are no gaze."""
    root = tmp_path / "raw"
    for folder in ("images", "gaze", "speech"):
        (root / folder).mkdir(parents=True)
    for name in ("a.png", "b.png"):
        grey_picture(100, 50).save(root / "images" / name)
    first, second = (tobii(("MCS norm",), "ms", who=who) for who in ("anna", "ben"))
    both = (first + second.partition("\n")[2]).replace("\tb.png", "\tPause")
    (root / "gaze" / "all.tsv").write_text(both)
    (root / "gaze" / "eve.asc").write_text(asc().replace("a.png", "b.png"))
    (root / "gaze" / "scene.csv").write_text("gaze_timestamp,norm_pos_x,norm_pos_y\n1,1,1\n")
    (root / "speech" / "a_ben.txt").write_text("No effusion.")
    (root / "notes.txt").write_text("nothing")
    return root


def table(source):
    with (source / "readings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_picture_and_reader(source, capsys):
    assert build.main(["tracker", "--source", str(source), "--propose"]) == 0
    rows = table(source)
    assert [(row["reading_id"], row["image"], row["gaze"], row["stimulus"], row["reader_id"]) for row in rows] == [
        ("a_anna", "images/a.png", "gaze/all.tsv", "a.png", "anna"),
        ("a_ben", "images/a.png", "gaze/all.tsv", "a.png", "ben"),
        ("b", "images/b.png", "gaze/eve.asc", "b.png", ""),
    ]
    assert [row["transcript"] for row in rows] == ["", "speech/a_ben.txt", ""]
    said = capsys.readouterr().out
    assert "3 readings, 0 of them without an image: check every row" in said and "passed over scene.csv" in said


def test_what_is_proposed_converts(source, tmp_path):
    build.main(["tracker", "--source", str(source), "--propose"])
    rows, report = convert("tracker", source, tmp_path / "out")
    assert rows.keys() == {"a_anna", "a_ben", "b"} and report["readings"]["rows_dropped"] == 0
    for row in rows.values():
        assert row["fixations"]["x"] == pytest.approx([one[0] for one in SEEN], abs=1e-6)
        assert row["fixations"]["start"] == pytest.approx([one[2] for one in SEEN], abs=1e-6)
    assert rows["a_ben"]["sentences"][0]["text"] == "No effusion."


def test_the_name_of_the_file_can_say_the_picture(source):
    (source / "gaze" / "all.tsv").unlink()
    (source / "gaze" / "eve.asc").unlink()
    header = "gaze_timestamp,x_norm,y_norm,on_surf,confidence\n1,0.5,0.5,True,1\n"
    for name in ("b_eve.csv", "whatever.csv"):
        (source / "gaze" / name).write_text(header)
    build.main(["tracker", "--source", str(source), "--propose"])
    assert [(row["reading_id"], row["image"]) for row in table(source)] == [("b", "images/b.png"), ("whatever", "")]


def test_a_table_that_is_there_is_never_overwritten(source, capsys):
    (source / "readings.csv").write_text("mine")
    assert build.main(["tracker", "--source", str(source), "--propose"]) == 2
    assert (source / "readings.csv").read_text() == "mine" and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["egd", "--propose"], "--propose is not for egd; it is for tracker"),
        (["tracker"], "--output is missing"),
        (
            ["tracker", "--propose", "--source", "nowhere"],
            "nowhere: no such folder; expected the root of a tracker corpus",
        ),
        (["tracker", "--propose", "--columns", "x=a", "y=b", "time=c"], "no export .* all.tsv: 0 columns a"),
    ],
)
def test_what_cannot_be_proposed(source, capsys, arguments, message):
    assert build.main([arguments[0], "--source", str(source), *arguments[1:]]) == 2

    assert re.search(message, capsys.readouterr().err)


def test_stimuli_that_no_picture_is_named_as(source, capsys):
    for name in ("a.png", "b.png"):
        (source / "images" / name).unlink()
    assert build.main(["tracker", "--source", str(source), "--propose"]) == 2
    assert (
        "all.tsv: no picture is named as its stimuli (Eyetracker Calibration, Pause, a.png)" in capsys.readouterr().err
    )
