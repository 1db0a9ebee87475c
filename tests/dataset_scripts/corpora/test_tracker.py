"""A lab's folder: what is read from it, in which unit, and what happens to everything that is wrong with it."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts import build
from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import grey_picture, write_lines

WIDTH, HEIGHT = 100, 50
FIXATIONS = ["x,y,start,duration", "25,10,0.5,0.25", "75.5,40,1.0,0.5"]
WEBVTT = ["WEBVTT", "", "00:00.500 --> 00:01.500", "No effusion."]


def folder(root, rows, columns="reading_id,image,gaze,transcript", files=None):
    """A lab's folder with the picture a.png, gaze.csv, said.vtt and these readings."""
    root.mkdir()
    grey_picture(WIDTH, HEIGHT).save(root / "a.png")
    for name, lines in ({"gaze.csv": FIXATIONS, "said.vtt": WEBVTT} | (files or {})).items():
        write_lines(root / name, lines)
    write_lines(root / "readings.csv", [columns, *rows])
    return root


def one(tmp_path, columns="reading_id,image,gaze,transcript", row="r1,a.png,gaze.csv,said.vtt", files=None, **options):
    source = folder(tmp_path / "raw", [row], columns, files)
    rows, report = convert("tracker", source, tmp_path / "out", **options)
    assert list(rows) == ["r1"]
    return rows["r1"], report


def gaze(tmp_path, lines, columns="", cells="", **options):
    """The fixations of one reading with this gaze file, rounded, and the report."""
    row, report = one(
        tmp_path, f"reading_id,image,gaze,transcript{columns}", f"r1,a.png,gaze.csv,said.vtt{cells}",
        {"gaze.csv": lines}, **options,
    )  # fmt: skip
    return row["fixations"] and {k: v and np.round(v, 9).tolist() for k, v in row["fixations"].items()}, report


def refused(tmp_path, message, **changes):
    with pytest.raises(UserError, match=message):
        one(tmp_path, **changes)


def samples(time, x, y, columns="x,y,time"):
    return [columns, *(f"{a:g},{b:g},{t:.6g}" for t, a, b in zip(time, x, y, strict=True))]


# --- a good folder ---


def test_reading_with_everything(tmp_path):
    columns = "reading_id,image,gaze,transcript,subject_id,reader_id,study_id,split,view,license,findings,device"
    row, report = one(
        tmp_path, columns, "r1,a.png,gaze.csv,said.vtt,p1,dr-x,s1,val,PA,CC BY 4.0,Edema|Mass=0|Nodule = -1,Mouse"
    )
    assert {name: row[name] for name in ("image_id", "study_id", "subject_id", "reader_id", "view", "license")} == {
        "image_id": "a.png", "study_id": "s1", "subject_id": "p1", "reader_id": "dr-x", "view": "PA",
        "license": "CC BY 4.0",
    }  # fmt: skip
    assert (row["source"], row["width"], row["height"], list(report["splits"])) == (
        "tracker/mouse", WIDTH, HEIGHT, ["validation"],
    )  # fmt: skip
    assert row["sentences"] == [{"text": "No effusion.", "start_seconds": 0.5, "end_seconds": 1.5}]
    assert {finding["name"]: finding["value"] for finding in row["findings"]} == {"Edema": 1, "Mass": 0, "Nodule": -1}
    fixations = row["fixations"]
    assert fixations["x"] == [0.25, 0.755] and fixations["y"] == [0.2, 0.8]
    assert fixations["start"] == [0.5, 1.0] and fixations["duration"] == [0.25, 0.5]
    assert fixations["sigma_x"] is None and row["boxes"] == []
    assert np.array_equal(np.asarray(row["image"]).shape, (32, 64))
    assert report["notes"].keys() == {"positions_in_pixels_by_their_values", "times_in_seconds_by_their_values"}


def test_only_the_required_columns(tmp_path):
    row, report = one(tmp_path, "reading_id,image,gaze", "r1,a.png,gaze.csv")
    assert row["source"] == "tracker" and row["sentences"] == [] and row["subject_id"] is None
    assert {"no_text", "no_subject_id_split_by_image"} <= report["notes"].keys()


def test_words_without_gaze_are_a_reading(tmp_path):
    row, report = one(tmp_path, row="r1,a.png,,said.vtt")
    assert row["fixations"] is None and row["sentences"] and report["notes"]["no_gaze_file"]["first"] == ["r1"]


def test_one_json_file_can_hold_gaze_and_words(tmp_path):
    recorded = {
        "device": "mouse",
        "fixations": {"x": [0.5, 1.5, None], "y": [0.25, 0.5, 0.5], "start": [0, 1, 2], "duration": [1.0, 1, 1]},
        "sentences": [{"text": "Clear", "start_seconds": 0.0, "end_seconds": 1.0}],
    }
    row, report = one(tmp_path, row="r1,a.png,r1.json,r1.json", files={"r1.json": [json.dumps(recorded)]})
    assert row["fixations"]["x"] == [0.5] and row["sentences"][0]["text"] == "Clear"
    dropped = report["tables"]["fixations"]["dropped"]
    assert {reason: found["count"] for reason, found in dropped.items()} == {"outside_image": 1, "not_a_number": 1}


def test_audio_starts_later_than_the_tracker(tmp_path):
    row, _ = one(tmp_path, "reading_id,image,gaze,transcript,audio_start_seconds", "r1,a.png,gaze.csv,said.vtt,-2.5")
    assert row["sentences"][0]["start_seconds"] == -2.0 and row["sentences"][0]["end_seconds"] == -1.0


def test_speech_that_never_meets_the_gaze_is_noted(tmp_path):
    columns, row = "reading_id,image,gaze,transcript,audio_start_seconds", "r1,a.png,gaze.csv,said.vtt,100"
    _, report = one(tmp_path, columns, row)
    assert report["notes"]["speech_and_gaze_at_different_times"]["count"] == 1


def test_endless_sentence_is_noted(tmp_path):
    _, report = one(tmp_path, files={"said.vtt": [*WEBVTT[:3], "word " * 101]})
    assert report["notes"]["sentence_of_more_than_100_words"]["count"] == 1


def test_same_output_in_two_processes(tmp_path):
    rows = [f"r{n},a.png,gaze.csv,said.vtt" for n in range(12)] + ["r3,a.png,gaze.csv,", "r99,b.png,gaze.csv,"]
    source = folder(tmp_path / "raw", rows)
    for processes in (1, 2):
        build.build("tracker", source, tmp_path / f"out{processes}", num_proc=processes)
    first, second = (sorted(path for path in (tmp_path / f"out{n}").rglob("*") if path.is_file()) for n in (1, 2))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# --- units ---


@pytest.mark.parametrize(
    ("header", "options", "scale"),
    [
        ("x,y,start,duration", {}, (1, 1)),
        ("x_pixels,y_pixels,start_seconds,duration_seconds", {}, (1, 1)),
        ("X_px,Y_px,Start_s,Duration_s", {"coordinates": "fractions", "time_unit": "milliseconds"}, (1, 1)),
        ("x,y,start,duration", {}, (1, 1000)),
        ("x,y,start_ms,duration_milliseconds", {"coordinates": "pixels"}, (1, 1000)),
        ("x,y,start,duration", {"time_unit": "milliseconds"}, (1, 1000)),
        ("x,y,start,duration", {}, (0.01, 1)),
        ("x_fraction,y_fractions,start,duration", {}, (0.01, 1)),
        ("x,y,start,duration", {"coordinates": "fractions"}, (0.01, 1)),
    ],
)
def test_units_are_declared_or_detected_and_said(tmp_path, header, options, scale):
    of_position, of_time = scale
    down = 2 if of_position < 1 else 1  # the picture is half as high as wide
    lines = [header] + [
        f"{x * of_position:g},{y * of_position * down:g},{s * of_time:g},{d * of_time:g}"
        for x, y, s, d in ((25, 10, 0.5, 0.25), (75.5, 40, 1.0, 0.5))
    ]
    found, report = gaze(tmp_path, lines, **options)
    assert {name: found[name] for name in ("x", "y", "start", "duration")} == {
        "x": [0.25, 0.755], "y": [0.2, 0.8], "start": [0.5, 1.0], "duration": [0.25, 0.5],
    }  # fmt: skip
    names = header.lower().split(",")
    for kind, at, unit in (
        ("positions", 0, "pixels" if of_position == 1 else "fractions"),
        ("times", 2, "seconds" if of_time == 1 else "milliseconds"),
    ):
        how = "their_values"
        if "_" in names[at]:
            how = "column_name"
        elif options.get("coordinates" if kind == "positions" else "time_unit"):
            how = "flag"
        columns = ", ".join(header.split(",")[at : at + 2])
        assert report["notes"][f"{kind}_in_{unit}_by_{how}"]["first"] == [f"r1: {columns}"]


def test_end_stands_in_for_duration(tmp_path):
    found, _ = gaze(tmp_path, ["end_ms,start_ms,y,x,fixation_id", "750,500,10,25,7", "1500,1000,40,75.5,8"])
    assert found["duration"] == [0.25, 0.5] and found["start"] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x,y,start,duration", "0,1,0.5,0.25", "1,1,1,0.5"], "gaze.csv: cannot tell pixels from fractions .100%"),
        (["x,y,start,duration", "0.5,0.5,1,0.2", "30,40,1.5,0.2"], "cannot tell pixels from fractions .50%"),
        (
            ["x,y,start,duration", "25,10,5,20", "75,40,6,20"],
            "cannot tell seconds from milliseconds .* duration is 20",
        ),
        (["x,y,time", "25,10,1000", "25,10,1200", "25,10,1400"], "cannot tell seconds .* median interval is 200"),
        (["x_px,y_fraction,start,duration", "1,1,1,1"], "columns x_px, y_fraction differ in their unit"),
        (["x,y,start,duration", "25,0.1,1,0.2", "30,0.5,2,0.2"], "columns x, y differ in their unit"),
        (
            ["x,y,start,duration", "25,10,12.5,0.2"],
            "there is but one start.; name the columns start_seconds or start_ms",
        ),
    ],
)
def test_units_that_nothing_tells_are_asked_for(tmp_path, lines, message):
    refused(tmp_path, message, files={"gaze.csv": lines})


def test_screen_positions_are_brought_to_the_image(tmp_path):
    columns = ",screen_left,screen_top,screen_right,screen_bottom"
    pixels, _ = gaze(tmp_path, ["x,y,start,duration", "700,300,1,0.2", "600,200,2,0.2", "599,200,3,0.2"],
                     columns, ",600,200,1000,400")  # fmt: skip
    assert pixels["x"] == [0.25, 0.0] and pixels["y"] == [0.5, 0.0]
    (tmp_path / "b").mkdir()
    fractions, _ = gaze(tmp_path / "b", ["x,y,start_s,duration", "0.3,0.4,1,0.2"], columns, ",0.2,0.2,0.6,0.6")
    assert fractions["x"] == [0.25] and fractions["y"] == [0.5]


def test_table_says_the_size_that_pixels_refer_to(tmp_path):
    found, report = gaze(tmp_path, ["x,y,start_s,duration", "500,250,1,0.2"], ",width,height", ",1000,500")
    assert found["x"] == [0.5] and found["y"] == [0.5]
    assert "100 x 50" in report["notes"]["image_size_differs_from_table"]["first"][0]
    (tmp_path / "b").mkdir()
    _, report = gaze(tmp_path / "b", ["x,y,start_s,duration", "50,25,1,0.2"], ",width,height", ",100,100")
    assert report["notes"]["image_shape_differs_from_table"]["count"] == 1


def test_one_degree_as_fractions_of_the_image(tmp_path):
    found, _ = gaze(tmp_path, FIXATIONS, ",image_width_degrees", ",20")
    assert found["sigma_x"] == [0.05, 0.05] and found["sigma_y"] == [0.1, 0.1]


# --- raw samples ---


def test_samples_become_fixations(tmp_path):
    """Two rests of the eye at 100 Hz with a blink after the first; extent at most 2.8 pixels, 2.5 % of the diagonal."""
    time = 5 + np.arange(100) / 100
    x, y = np.where(np.arange(100) < 40, 20.5, 60.0), np.full(100, 30.0)
    lines = samples(time, x, y)
    for row in range(41, 61):
        lines[row] = f",,{time[row - 1]:.2f}"
    found, report = gaze(tmp_path, lines)
    assert found["x"] == [0.205, 0.6] and found["y"] == [0.6, 0.6]
    assert found["start"] == [5.0, 5.6] and found["duration"] == [0.39, 0.39]
    tally = report["tables"]["samples"]
    assert (tally["rows_in"], tally["rows_kept"]) == (100, 80)
    assert tally["dropped"]["no_position"]["first"][0] == "r1 row 41"
    assert report["tables"]["fixations found in samples"]["rows_kept"] == 2
    assert (
        "100 Hz; extent at most 3 pixels (2.5 % of the image's diagonal), at least 100 ms, dropouts of at most "
        in (report["notes"]["fixations_found_by_dispersion"]["first"][0])
    )


def test_dispersion_is_a_degree_where_it_is_known(tmp_path):
    """The eye swings over 4 pixels: a fixation when a degree is 5, none when it is 2.5 (or by the diagonal, 2.8)."""
    time = np.arange(60) / 100
    lines = samples(time, 50 + 2.0 * (-1) ** np.arange(60), np.full(60, 25.5))
    found, report = gaze(tmp_path, lines, ",image_width_degrees", ",20")
    assert (
        len(found["x"]) == 1 and "5 pixels (1 degree)" in report["notes"]["fixations_found_by_dispersion"]["first"][0]
    )
    for name, degrees in (("b", ",40"), ("c", ",")):
        (tmp_path / name).mkdir()
        assert gaze(tmp_path / name, lines, ",image_width_degrees", degrees)[0] is None


@pytest.mark.parametrize("axis", ["x", "y"])
def test_extent_is_measured_alike_on_both_axes(tmp_path, axis):
    """A swing of 2 pixels is 2 % of the width but 4 % of the height: a fixation on either axis."""
    swing, rest = (-1.0) ** np.arange(60), np.zeros(60)
    x, y = (swing, rest) if axis == "x" else (rest, swing)
    found, _ = gaze(tmp_path, samples(np.arange(60) / 100, (50 + x) / WIDTH, (25 + y) / HEIGHT))
    assert len(found["x"]) == 1


def test_marked_duplicate_and_untimed_samples_are_counted(tmp_path):
    lines = ["x_px,y_px,timestamp_ms,valid,pupil", *(f"50,25,{10 * n},1,3.1" for n in range(30))]
    lines[5] = "50,25,30,1,3.1"
    lines[8:10] = ["90,25,70,0,3.1", "90,25,80,FALSE,3.1"]
    lines[12] = "50,25,,1,"
    found, report = gaze(tmp_path, lines)
    assert found["x"] == [0.5] and found["start"] == [0.0] and found["duration"] == [0.29]
    dropped = report["tables"]["samples"]["dropped"]
    assert {reason: found["count"] for reason, found in dropped.items()} == {
        "duplicate_time": 1, "marked_invalid": 2, "no_time": 1,
    }  # fmt: skip
    assert dropped["duplicate_time"]["first"] == ["r1 row 5"]
    assert report["notes"]["gaze_columns_not_read"]["first"] == ["r1: pupil"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x,y,time", "50,25,0", "50,25,0.02", "50,25,0.01"], "times_run_backwards: row 1 r1 .gaze.csv row 3"),
        (["x,y,time_s", *(f"50,25,{0.1 * n}" for n in range(20))], "samples_too_far_apart: .*0.1 s; expected 0.05"),
        (["x,y,time,valid", "50,25,0,4"], "row 1: valid is '4'; expected 1 or 0"),
        (["x,y,time,validity", "50,25,0,4"], "column validity differs by vendor"),
    ],
)
def test_samples_that_cannot_be_used(tmp_path, lines, message):
    refused(tmp_path, message, files={"gaze.csv": lines})


# --- bad input ---


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_with_decimal_commas_that_are_not_separated_by_commas(tmp_path, delimiter):
    """What a spreadsheet in a language with decimal commas writes."""
    lines = ["x,y,start,duration", "25,10,0.5,0.25", "75.5,40,1.0,0.5"]
    found, report = gaze(tmp_path, [line.replace(",", delimiter).replace(".", ",") for line in lines])
    assert found["x"] == [0.25, 0.755] and found["start"] == [0.5, 1.0] and found["duration"] == [0.25, 0.5]
    assert report["notes"]["decimal_commas_read"]["first"] == ["r1"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x|y|start|duration", "25|10|1|1"], r"it has x|y|start|duration \(it looks separated by pipes"),
        (["x,y,start,duration", "25,5,10,0,1,2"], "row 1 has 6 cells; expected 4"),
        (["x,y,start,duration", '"25,5","10,5",0.5,1'], "gaze.csv: column x, row 1: '25,5' has a comma"),
        (["x,y", "25,10"], "gaze.csv: expected the columns x, y and either time alone"),
        (["x,y,time,duration", "25,10,1,1"], "expected the columns x, y and either time alone"),
        (["x,y,start", "25,10,1"], "expected the columns x, y and either time alone"),
        (["x,start,duration", "25,10,1"], "expected the columns x, y and"),
        (["x,x_px,y,start,duration", "25,25,10,1,1"], "columns x and x_px say the same"),
        (["x,x,y,start,duration", "25,25,10,1,1"], "x occur more than once"),
    ],
)
def test_gaze_table_that_is_none(tmp_path, lines, message):
    refused(tmp_path, message, files={"gaze.csv": lines})


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"fixations": 1}', '{"fixations": {"x": [1], "y": [1], "start": [1]}}', "[" * 100_000,
     '{"fixations": {"x": ["1"], "y": [1], "start": [1], "duration": [1]}}',
     '{"fixations": {"x": [true], "y": [1], "start": [1], "duration": [1]}}',
     '{"fixations": {"x": [1, 2], "y": [1], "start": [1], "duration": [1]}}',
     '{"fixations": {"x": [1e400], "y": [1], "start": [1], "duration": [' + "9" * 400 + "]}}"],
)  # fmt: skip
def test_gaze_json_that_is_none(tmp_path, content):
    message = "g.json: (expected JSON|it has no fixations|(x|duration) is no list|columns differ)"
    refused(tmp_path, message, row="r1,a.png,g.json,", files={"g.json": [content]})


def test_bad_fixations_are_dropped_and_counted(tmp_path):
    lines = ["x,y,start,duration", "25,10,0.5,0.25", "25,10,0.5,0.25", "nan,10,1,0.3", "inf,10,1,0.3", "25,x,1,0.3",
             "25,10,1,0", "25,10,1,-0.3", "-1,10,1,0.3", "100,10,1,0.3", "25,50,1,0.3", "75,40,0.1,0.3"]  # fmt: skip
    found, report = gaze(tmp_path, lines)
    assert found["start"] == [0.1, 0.5] and report["notes"]["fixations_sorted_by_start"]["count"] == 1
    dropped = report["tables"]["fixations"]["dropped"]
    assert {reason: found["count"] for reason, found in dropped.items()} == {
        "within_another_fixation": 1, "not_a_number": 3, "no_duration": 1, "negative_duration": 1, "outside_image": 3,
    }  # fmt: skip
    assert dropped["outside_image"]["first"] == ["r1 row 8", "r1 row 9", "r1 row 10"]


def test_bom_crlf_and_further_columns(tmp_path):
    source = folder(tmp_path / "raw", [])
    text = "\ufeffgaze, image ,reading_id,mood,\r\ngaze.csv,a.png,r1,fine,\r\n\r\n"
    (source / "readings.csv").write_bytes(text.encode())
    (source / "gaze.csv").write_bytes(("\ufeff" + "\r\n".join(FIXATIONS)).encode())
    rows, _ = convert("tracker", source, tmp_path / "out")
    assert rows["r1"]["fixations"]["x"] == [0.25, 0.755]


def test_gaze_file_without_a_row(tmp_path):
    found, report = gaze(tmp_path, ["x,y,start,duration"])
    assert found is None and report["notes"]["gaze_file_has_no_row"]["first"] == ["r1"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("r2,a.png,,", "neither_gaze_nor_words"),
        ("r2,a.png,empty.csv,empty.txt", "neither_gaze_nor_words"),
        ("r1,a.png,gaze.csv,", "duplicate_reading_id"),
        (",a.png,gaze.csv,", "no_reading_id"),
        ("r2,,gaze.csv,", "no_image"),
        ("r2,b.png,gaze.csv,", "image_missing"),
        ("r2,.,gaze.csv,", "image_missing"),
        ("r2,half.png,gaze.csv,", "image_not_decodable"),
        ("r2,a.png,g.csv,", "gaze_missing"),
        ("r2,a.png,gaze.csv,t.vtt", "transcript_missing"),
        ("r2,a.png," + "x" * 5000 + ".csv,", "gaze_missing"),
        ("r2,a.png,circle.csv,", "path_not_understood"),
        ("r2,a.png,link.csv,", "path_leaves_source"),
        ("r2,link.png,gaze.csv,", "path_leaves_source"),
        ("r2,a.png,gaze.csv,../outside.vtt", "path_leaves_source"),
        ("r2,a.png,/etc/hostname,", "path_leaves_source"),
        ("r2,a.png,a.png,", "table_not_understood"),
        ("r2,a.png,gaze.csv,gaze.csv", "table_not_understood"),
        ("r2,a.png,gaze.csv,half.json", "table_not_understood"),
    ],
)
def test_bad_row_is_dropped_and_named(tmp_path, row, reason):
    source = folder(tmp_path / "raw", ["r1,a.png,gaze.csv,", row])
    write_lines(source / "empty.csv", ["x,y,start,duration"])
    write_lines(source / "empty.txt", [""])
    write_lines(source / "half.json", ['{"segments": ['])
    (source / "half.png").write_bytes((source / "a.png").read_bytes()[:60])
    for name in ("csv", "png", "vtt"):
        write_lines(tmp_path / f"outside.{name}", FIXATIONS)
    (source / "link.csv").symlink_to(tmp_path / "outside.csv")
    (source / "link.png").symlink_to(tmp_path / "outside.png")
    (source / "circle.csv").symlink_to(source / "circle.csv")
    rows, report = convert("tracker", source, tmp_path / "out")
    dropped = report["tables"]["readings.csv"]["dropped"]
    assert list(rows) == ["r1"] and list(dropped) == [reason]
    assert dropped[reason]["first"][0].startswith(f"row 2 {row.partition(',')[0]}".strip())


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("width", "100", "width and height: expected both"),
        ("width,height", "100,-5", "width and height: expected both"),
        ("screen_left,screen_top", "1,2", "expected all four"),
        ("screen_left,screen_top,screen_right,screen_bottom", "5,0,5,9", "left before right"),
        ("screen_left,screen_top,screen_right,screen_bottom", "0,0,1,1", "positions are in pixels; expected the image"),
        ("image_width_degrees", "0", "image_width_degrees is 0; expected more than 0"),
        ("image_width_degrees", '"12,5"', "image_width_degrees is '12,5'; expected a number"),
        ("audio_start_seconds", "soon", "audio_start_seconds is 'soon'; expected a number"),
        ("audio_start_seconds", "1e300", "audio_start_seconds is 1e.300; expected seconds"),
        ("findings", "Edema=2", "findings: 'Edema=2'"),
        ("findings", "Edema|Edema=0", "findings: 'Edema=0'; expected each name once"),
        ("device", "a/b", "device is 'a/b'"),
    ],
)
def test_bad_cell_is_named(tmp_path, columns, cells, message):
    refused(tmp_path, message, columns=f"reading_id,image,gaze,{columns}", row=f"r1,a.png,gaze.csv,{cells}")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, r"readings\.csv: no such file; expected a table with the columns reading_id, image, gaze"),
        ([], r"reading_id, image, gaze missing"),
        (["reading_id,image,gaze"], "no row; expected one row a reading"),
        (["reading_id;image;gaze", "r1;a.png;gaze.csv"], "looks separated by semicolons"),
        (["reading_id,image,gaze", "r1,a.png,gaze.csv,x"], "row 1 has 4 cells; expected 3"),
        (["reading_id,image,gaze,split", "r1,a.png,gaze.csv,", "r2,a.png,gaze.csv,test"],
         "row 1 has the split ''"),
        (["reading_id,image,gaze,split", "r1,a.png,gaze.csv,fold1"], "row 1 has the split 'fold1'"),
        (["reading_id,image,gaze,split", "r1,a.png,gaze.csv,test", "r2,a.png,gaze.csv,train"],
         "readings.csv: patient image a.png lies in both test and train"),
        (["reading_id,image,gaze,split,subject_id", "r1,a.png,gaze.csv,test,p", "r2,b.png,gaze.csv,train,p"],
         "patient p lies in both"),
    ],
)  # fmt: skip
def test_bad_table_is_one_sentence_and_exit_code_2(tmp_path, capsys, lines, message):
    source = folder(tmp_path / "raw", [])
    (source / "readings.csv").unlink()
    if lines is not None:
        write_lines(source / "readings.csv", lines)
    with pytest.raises(UserError, match=message):
        convert("tracker", source, tmp_path / "out")
    assert build.main(["tracker", "--source", str(source), "--output", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_table_must_not_be_a_link_out_of_the_folder(tmp_path):
    source = folder(tmp_path / "raw", ["r1,a.png,gaze.csv,"])
    (source / "readings.csv").rename(tmp_path / "readings.csv")
    (source / "readings.csv").symlink_to(tmp_path / "readings.csv")
    with pytest.raises(UserError, match="a symbolic link out of"):
        convert("tracker", source, tmp_path / "out")


def test_readings_of_one_patient_share_a_split(tmp_path):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([f"r{n}", "a.png", "gaze.csv", "", f"p{n // 3}"] for n in range(45))
    columns = "reading_id,image,gaze,transcript,subject_id"
    source = folder(tmp_path / "raw", buffer.getvalue().split(), columns)
    rows, report = convert("tracker", source, tmp_path / "out")
    assert len(rows) == 45 and len(report["splits"]) > 1
    assert sum(counts["patients"] for counts in report["splits"].values()) == 15


def test_flags_of_other_corpora_are_refused(tmp_path):
    source = folder(tmp_path / "raw", ["r1,a.png,gaze.csv,"])
    with pytest.raises(UserError, match="--images is not for tracker"):
        convert("tracker", source, tmp_path / "out", images=tmp_path)


def blocks_of_the_page():
    """The examples of docs/tracker.md by their first line."""
    page = (Path(__file__).parents[3] / "docs" / "tracker.md").read_text()
    blocks = [block.split("\n")[1:] for block in f"\n{page}".split("\n```")[1::2]]
    return {block[0].partition(",")[0].partition(" ")[0]: block for block in blocks}


@pytest.mark.parametrize(("example", "suffix"), [("x_pixels", "csv"), ("x_fraction", "csv"), ('{"fixations":', "json")])
def test_examples_of_the_page_are_read(tmp_path, example, suffix):
    blocks = blocks_of_the_page()
    columns, row = blocks["reading_id"]
    lines = blocks[example]
    if example == "x_fraction":
        lines = lines[:1] + [f"0.512,0.334,{n / 250:.3f},1" for n in range(3)] + lines[3:] + [
            f"0.512,0.334,{n / 250:.3f},1" for n in range(3, 50)
        ]  # fmt: skip
    row = row.replace("gaze/case_7_anna.csv", f"gaze.{suffix}").replace("speech/case_7_anna.vtt", "said.vtt")
    source = folder(tmp_path / "raw", [row.replace("images/case_7.png", "b.png")], columns, {f"gaze.{suffix}": lines})
    grey_picture(1600, 900).save(source / "b.png")
    rows, report = convert("tracker", source, tmp_path / "out")
    assert rows["case_7_anna"]["reader_id"] == "anna" and rows["case_7_anna"]["subject_id"] == "patient_3"
    assert len(rows["case_7_anna"]["fixations"]["x"]) == (1 if example == "x_fraction" else 2)
    assert not any(name.endswith("their_values") for name in report["notes"])
