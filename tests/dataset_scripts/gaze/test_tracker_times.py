"""Clocks and units of a lab's table: every column its own, named, given or shown, else the reading is dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts import build
from dataset_scripts.gaze.tracker_columns import clock_seconds
from tests.dataset_scripts.corpora.test_tracker import WEBVTT, folder, gaze, refused

STARTS, DURATIONS = (0.5, 1.2, 2.0), (0.25, 0.6, 0.5)


def fixations(header, of_start=1, of_second=1, seconds=DURATIONS):
    rows = zip(STARTS, seconds, strict=True)
    return [header, *(f"25.5,10.5,{start * of_start:g},{second * of_second:g}" for start, second in rows)]


@pytest.mark.parametrize(
    ("header", "of_start", "of_second", "option"),
    [
        ("x,y,start,duration", 1, 1000, None),
        ("x,y,start,duration", 1000, 1, None),
        ("x,y,start_s,duration_ms", 1, 1000, None),
        ("x,y,start_ms,duration", 1000, 1, None),
        ("x,y,start_s,duration", 1, 1000, "milliseconds"),
        ("x,y,start,duration_ms", 1, 1000, "seconds"),
    ],
)
def test_start_and_duration_have_units_of_their_own(tmp_path, header, of_start, of_second, option):
    """A start in seconds beside a duration in milliseconds came out 1,000 times too small."""
    found, report = gaze(tmp_path, fixations(header, of_start, of_second), **({"time_unit": option} if option else {}))
    assert found["start"] == list(STARTS) and found["duration"] == list(DURATIONS)
    told = {name: note["first"] for name, note in report["notes"].items() if name.startswith("times_in")}
    columns = dict(zip(("start", "duration"), header.split(",")[2:], strict=True))
    for kind, factor in (("start", of_start), ("duration", of_second)):
        unit = "seconds" if factor == 1 else "milliseconds"
        (by,) = (name for name, first in told.items() if first == [f"r1: {columns[kind]}"])
        assert by.startswith(f"times_in_{unit}_by_")


@pytest.mark.parametrize(("of_start", "of_end"), [(1, 1000), (1000, 1)])
def test_start_and_end_have_units_of_their_own(tmp_path, of_start, of_end):
    ends = [start + duration for start, duration in zip(STARTS, DURATIONS, strict=True)]
    found, _ = gaze(tmp_path, fixations("x,y,start,end", of_start, of_end, ends))
    assert found["start"] == list(STARTS) and found["duration"] == pytest.approx(DURATIONS)


@pytest.mark.parametrize(
    ("header", "of_start", "of_second", "option"),
    [
        ("x,y,start,duration", 1, 1000, "milliseconds"),
        ("x,y,start,duration", 1, 1000, "seconds"),
        ("x,y,start,duration", 1000, 1, "milliseconds"),
        ("x,y,start,duration", 1000, 1, "seconds"),
        ("x,y,start,duration", 1, 1, "milliseconds"),
        ("x,y,start,duration", 1000, 1000, "seconds"),
        ("x,y,start_ms,duration_ms", 1, 1000, None),
        ("x,y,start_s,duration_s", 1, 1000, None),
    ],
)
def test_units_that_no_eye_can_have_are_refused_whoever_says_them(tmp_path, header, of_start, of_second, option):
    options = {"time_unit": option} if option else {}
    refused(tmp_path, "gaze.csv: fixations last .* which no eye does; name the unit of every column",
            files={"gaze.csv": fixations(header, of_start, of_second)}, **options)  # fmt: skip


def test_a_mouse_may_rest_longer_than_an_eye(tmp_path):
    lines = ["x,y,start_s,duration_s", "25.5,10.5,0,90"]
    refused(tmp_path, "fixations last 90 s", files={"gaze.csv": lines})
    (tmp_path / "mouse").mkdir()
    assert gaze(tmp_path / "mouse", lines, ",device", ",mouse")[0]["duration"] == [90.0]


def test_a_column_of_positions_that_shows_no_unit_takes_the_others(tmp_path):
    """Half the fixations lie on the image's upper edge, where pixels and fractions are both 0."""
    lines = ["x,y,start_s,duration_s", *(f"{30 + n},{20 * (n % 2)},{n},0.3" for n in range(8))]
    found, report = gaze(tmp_path, lines)
    assert found["y"] == [0.0, 0.4] * 4 and found["x"][0] == 0.3
    assert report["notes"]["positions_in_pixels_by_their_values"]["first"] == ["r1: x"]


def test_samples_in_a_unit_that_no_tracker_has_are_dropped(tmp_path):
    lines = ["x,y,time_ms", *(f"25.5,10.5,{n / 60:.4f}" for n in range(30))]
    refused(tmp_path, "samples_too_close: .*is the unit of the times right", files={"gaze.csv": lines})


CLOCKS = {
    "00:00:{:06.3f}": "milliseconds in a clock",
    "0:00:{:09.6f}": "one digit of hours",
    "00:{:06.3f}": "no hours",
    '"00:00:{:06.3f}"': "a decimal comma",
    "0 days 00:00:{:09.6f}": "as pandas writes a duration",
}


@pytest.mark.parametrize("form", CLOCKS)
def test_clock_times_of_samples_are_read(tmp_path, form):
    """Each sample was dropped, and the reading kept without gaze."""
    times = [form.format(2 + n / 100) for n in range(40)]
    times = [time.replace(".", ",") for time in times] if form.startswith('"') else times
    found, report = gaze(tmp_path, ["x_px,y_px,time", *(f"50.5,25.5,{time}" for time in times)])
    assert found["start"] == [2.0] and found["duration"] == [0.39]
    assert report["notes"]["times_in_seconds_by_clock_times"]["first"] == ["r1: time"]


def test_clock_times_of_fixations_stand_beside_numbers(tmp_path):
    lines = ["x_px,y_px,start,duration", "50,25,00:01:00.500,250", "60,25,00:01:01,400", "60,25,,400"]
    found, report = gaze(tmp_path, lines)
    assert found["start"] == [60.5, 61.0] and found["duration"] == [0.25, 0.4]
    assert report["tables"]["fixations"]["dropped"]["not_a_number"]["first"] == ["r1 row 3"]


@pytest.mark.parametrize("column", ["x", "y", "start", "duration"])
@pytest.mark.parametrize("cell", ["2024-01-05T10:00:00.016", "PT0.2S", "0.2 s", "10:30", "nan", "-", ""])
def test_a_column_without_a_number_drops_the_reading(tmp_path, column, cell):
    """What was said is no excuse: a reading is never kept without the gaze that its file holds."""
    good = {"x": "25.5", "y": "10.5", "start": "1", "duration": "0.2"}
    rows = [",".join((good | {"start": start, column: cell}).values()) for start in ("1", "2")]
    message = f"gaze.csv: column {column} holds no number in 2 rows, but '{cell}'; expected numbers"
    refused(tmp_path, message, files={"gaze.csv": ["x,y,start,duration", *rows], "said.vtt": WEBVTT})


@pytest.mark.parametrize(
    ("header", "second"), [("x,y,start,duration_s", "2.5"), ("x,y,start_ms,duration_s", "00:00:02.5")]
)
def test_clock_times_mixed_with_numbers_are_refused(tmp_path, header, second):
    lines = [header, "25,10,00:00:01.5,0.2", f"25,10,{second},0.2"]
    refused(tmp_path, "mixes clock times and numbers, or says milliseconds", files={"gaze.csv": lines})


def test_a_growing_fixation_of_a_tracker_counts_once(tmp_path):
    """Reported at each of 24 samples, for 0.4 s: 5 s of dwell came of it."""
    lines = ["x_px,y_px,start_s,duration_s", *(f"50,25,2,{n / 60:.5f}" for n in range(1, 25)), "80,25,2.5,0.3"]
    found, report = gaze(tmp_path, lines)
    assert found["duration"] == [0.4, 0.3] and found["start"] == [2.0, 2.5]
    assert report["tables"]["fixations"]["dropped"]["within_another_fixation"]["count"] == 23


def test_one_reading_that_is_not_understood_costs_no_other(tmp_path):
    source = folder(tmp_path / "raw", ["r1,a.png,gaze.csv,said.vtt", "r2,a.png,b.csv,said.vtt"],
                    files={"b.csv": ["x,y,start,duration", "25,10,soon,0.2"]})  # fmt: skip
    report = build.build("tracker", source, tmp_path / "out", image_size=64, max_loss=1)
    assert (report["readings"]["rows_kept"], report["readings"]["rows_dropped"]) == (1, 1)
    assert "'soon'" in report["readings"]["dropped"]["table_not_understood"]["first"][0]


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_clock_seconds(hours, minutes, seconds, thousandths):
    expected = 3600 * hours + 60 * minutes + seconds + thousandths / 1000
    for text in (
        f"{hours:02}:{minutes:02}:{seconds:02}.{thousandths:03}",
        f"{hours}:{minutes}:{seconds},{thousandths:03}",
    ):
        assert clock_seconds(text) == pytest.approx(expected, abs=1e-9)
    assert clock_seconds(f"{minutes:02}:{seconds:02}.{thousandths:03}") == pytest.approx(expected - 3600 * hours)


@pytest.mark.parametrize(
    "text", ["", "1.5", "10:30", "00:00:60.0", "00:61:00", "1:2:3:4", "-00:00:01", "00:00:01.", "١:٢:٣"]
)
def test_what_is_no_clock_time(text):
    assert clock_seconds(text) is None


@pytest.mark.parametrize("seconds_first", [120, 200, 280])
def test_a_clock_that_changes_its_unit_on_the_way_drops_the_reading(tmp_path, seconds_first):
    """The median alone decided: two seconds of samples shrank to two milliseconds."""
    times = [n / 100 if n < seconds_first else n * 10 for n in range(400)]
    lines = ["x_pixels,y_pixels,time", *(f"{25 + n % 3},{10 + n % 2},{time:g}" for n, time in enumerate(times))]
    refused(tmp_path, "times_change_their_unit: .*expected one unit throughout", files={"gaze.csv": lines})
