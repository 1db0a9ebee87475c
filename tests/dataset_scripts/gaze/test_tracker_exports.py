"""Exports as trackers' programs write them, with invented values, against a conversion of the same values by hand."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts.schema import Fixations, UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import grey_picture

WIDTH, HEIGHT = 100, 50  # of the picture, which lies at (200, 100) on the screen, four times as large
LEFT, TOP, SCALE, SCREEN = 200, 100, 4, (1920, 1080)
# fractions of the picture, seconds since it came
SEEN = [(0.25, 0.2, 0.12, 0.24), (0.75, 0.8, 0.5, 0.3), (0.405, 0.61, 1.0, 0.18)]
ONSET = 12.5  # on the tracker's clock, in seconds
RATE = 100  # samples a second
STEP = 1 / RATE
EDGES = {"screen_left": 200, "screen_top": 100, "screen_right": 600, "screen_bottom": 300}
PACKED = gzip.compress(b"1\t2\t3\n", mtime=0)  # with no time in it


def read(tmp_path: Path, name: str, content: str | bytes, cells: dict[str, Any] | None = None, **options: Any):
    """The fixations of the reading r1 of a.png whose gaze is in this file, and the report."""
    source = tmp_path / "raw"
    source.mkdir(exist_ok=True)
    grey_picture(WIDTH, HEIGHT).save(source / "a.png")
    (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    row = {"reading_id": "r1", "image": "a.png", "gaze": name} | (cells or {})
    lines = [",".join(row), ",".join(map(str, row.values()))]
    (source / "readings.csv").write_text("\n".join(lines))
    rows, report = convert("tracker", source, tmp_path / f"out {name}", **options)
    return rows["r1"]["fixations"], report


def check(found: Fixations | None, report: dict[str, Any], note: str, seen=SEEN, within: float = 1e-6) -> None:
    """The fixations are those of the conversion by hand, and the report names the format."""
    assert found is not None
    for place, name in enumerate(("x", "y", "start", "duration")):
        assert found[name] == pytest.approx([one[place] for one in seen], abs=within), name  # type: ignore[literal-required]
    assert f"gaze_read_as_{note}" in report["notes"], report["notes"]


def samples(seen=SEEN) -> list[tuple[float, float, float] | tuple[None, None, float]]:
    """x, y, seconds: the eye rests as in `seen`, trembles by a thousandth, and is lost in between."""
    made: list[Any] = []
    for tick in range(130):
        time = tick * STEP
        here = [one for one in seen if one[2] - 1e-9 <= time <= one[2] + one[3] + 1e-9]
        tremble = (tick % 2) * 0.001
        made.append((here[0][0] + tremble, here[0][1] - tremble, time) if here else (None, None, time))
    return made


def by_hand(tmp_path: Path) -> list[tuple[float, ...]]:
    """What the samples are as a plain table of fractions and seconds."""
    lines = ["x_fraction,y_fraction,time_seconds"]
    lines += [f"{'' if x is None else x},{'' if y is None else y},{time}" for x, y, time in samples()]
    found, _ = read(tmp_path, "plain.csv", "\n".join(lines))
    assert found is not None
    assert [round(start, 9) for start in found["start"]] == [one[2] for one in SEEN]
    return list(zip(*(found[name] for name in ("x", "y", "start", "duration")), strict=True))


def on_screen(x: float | None, y: float | None) -> tuple[float | None, float | None]:
    return (None, None) if x is None or y is None else (LEFT + SCALE * WIDTH * x, TOP + SCALE * HEIGHT * y)


def table(names: list[str], rows: list[list[Any]], delimiter: str = "\t", comma: bool = False) -> str:
    def cell(value: Any) -> str:
        text = "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
        return text.replace(".", ",") if comma and isinstance(value, float) else text

    return "\n".join(delimiter.join(cell(value) for value in row) for row in [names, *rows]) + "\n"


# --- Tobii ---

TOBII = ["Recording timestamp [{}]", "Sensor", "Participant name", "Recording name",
         "Presented Stimulus name", "Presented Media position X [DACS px]", "Presented Media position Y [DACS px]",
         "Presented Media width", "Presented Media height", "Eye movement type", "Eye movement type index",
         "Gaze event duration [ms]"]  # fmt: skip
POSITIONS = {"DACS px": lambda x, y: on_screen(x, y), "MCS px": lambda x, y: (x * WIDTH, y * HEIGHT),
             "MCS norm": lambda x, y: (x, y)}  # fmt: skip


def tobii(positions: tuple[str, ...], unit: str, comma: bool = False, who: str = "anna") -> str:
    """Samples every 10 ms, with the fixation of each, after a calibration and before another picture."""
    factor = {"ms": 1e3, "μs": 1e6}[unit]
    names = [name.format(unit) for name in TOBII]
    names += [f"{kind} point {axis} [{place}]" for kind in ("Gaze", "Fixation") for place in positions for axis in "XY"]
    names += ["Validity left", "Validity right"]
    rows: list[list[Any]] = []
    nowhere = [None] * 4 * len(positions)
    told = [who, "Recording1"]
    edges = [LEFT, TOP, SCALE * WIDTH, SCALE * HEIGHT]
    rows.append([0, "", *told, "Eyetracker Calibration", *[None] * 4, "", "", None, *nowhere, "", ""])
    for x, y, time in samples():
        at = round((ONSET + time) * factor)
        index = next((n for n, one in enumerate(SEEN, 1) if one[2] - 1e-9 <= time < one[2] + one[3] - 1e-9), None)
        if x is None or y is None or index is None:
            gaze = [] if x is None else [value for place in positions for value in POSITIONS[place](x, y)]
            cells = [*gaze, *nowhere][: len(nowhere)]
            valid = ["Invalid", "Invalid" if x is None else "Valid"]
            rows.append([at, "Eye Tracker", *told, "a.png", *edges, "Unclassified", 1, 40, *cells, *valid])
            continue
        one = SEEN[index - 1]
        gaze = [value for place in positions for value in POSITIONS[place](x, y)]
        fixation = [value for place in positions for value in POSITIONS[place](*one[:2])]
        event = ["Fixation", index, round(one[3] * 1000)]
        rows.append([at, "Eye Tracker", *told, "a.png", *edges, *event, *gaze, *fixation, "Valid", "Invalid"])
        rows.append([at + 1, "Mouse", *told, "a.png", *edges, "", None, None, *nowhere, "", ""])
    rows.append([round(20 * factor), "", *told, "b.png", *[None] * 4, "", "", None, *nowhere, "", ""])
    return table(names, rows, comma=comma)


@pytest.mark.parametrize("unit", ["ms", "μs"])
@pytest.mark.parametrize(
    ("positions", "comma"),
    [(("DACS px",), False), (("MCS px",), True), (("MCS norm",), False), (("DACS px", "MCS norm"), True)],
)
def test_tobii_pro_lab_fixations(tmp_path, positions, unit, comma):
    found, report = read(tmp_path, "export.tsv", tobii(positions, unit, comma), {"stimulus": "a.png"})
    check(found, report, "tobii_pro_lab_fixations")
    assert ("decimal_commas_read" in report["notes"]) == comma
    (told,) = report["notes"]["gaze_read_as_tobii_pro_lab_fixations"]["first"]
    assert "a.png, anna, Recording1, 0 s is 12500" in told


def test_tobii_in_utf_16_as_windows_programs_write_it(tmp_path):
    found, report = read(tmp_path, "export.tsv", tobii(("MCS norm",), "ms").encode("utf-16"))
    check(found, report, "tobii_pro_lab_fixations")


def test_tobii_samples(tmp_path):
    whole = [line.split("\t") for line in tobii(("MCS px", "DACS px"), "μs").splitlines()]
    kept = [place for place, name in enumerate(whole[0]) if "ixation" not in name and "ovement" not in name]
    lines = ["\t".join(row[place] for place in kept) for row in whole]
    found, report = read(tmp_path, "export.tsv", "\n".join(lines))
    check(found, report, "tobii_pro_lab_samples", by_hand(tmp_path))


# --- EyeLink ---


def asc(imgload: str = "TOP_LEFT a.png 200 100 400 200") -> str:
    lines = ["** CONVERTED FROM x.edf", "MSG\t900 DISPLAY_COORDS 0 0 1919 1079",
             "MSG\t950 !CAL VALIDATION HV9 LR LEFT  POOR ERROR 1.90 avg. 3.0 max  OFFSET 1.0 deg. 1,1 pix.",
             "MSG\t950 !CAL VALIDATION HV9 LR RIGHT GOOD ERROR 0.40 avg. 0.8 max  OFFSET 0.2 deg. 1,1 pix.",
             "MSG\t1000 TRIALID 1", "START\t1010 \tLEFT\tRIGHT\tSAMPLES\tEVENTS", "12000\t300.0\t150.0\t900.0\t...",
             "MSG\t12508 8 SYNCTIME", f"MSG\t12510 !V IMGLOAD {imgload}"]  # fmt: skip
    for x, y, start, duration in SEEN:
        begin, end = round((ONSET + start) * 1000), round((ONSET + start + duration) * 1000)
        for eye, (a, b) in (("L", (5.0, 6.0)), ("R", on_screen(x, y))):
            lines.append(f"EFIX {eye}   {begin}\t{end - 2}\t{end - begin}\t  {a:.4f}\t  {b:.4f}\t    900")
    return "\n".join([*lines, "END\t20000", "MSG\t30000 TRIALID 2", "EFIX R 30010 30200 192 300.0 150.0 900"])


@pytest.mark.parametrize("imgload", ["TOP_LEFT a.png 200 100 400 200", "CENTER ../pics/a.png 400 200 400 200"])
def test_eyelink_asc_takes_the_better_calibrated_eye(tmp_path, imgload):
    found, report = read(tmp_path, "x.asc", asc(imgload), {"stimulus": imgload.split()[1]})
    check(found, report, "eyelink_asc_fixations")


def test_a_picture_that_fills_the_screen(tmp_path):
    found, report = read(tmp_path, "x.asc", asc("FILL a.png"), {"stimulus": "a.png"})
    places = [(*on_screen(*one[:2]), *one[2:]) for one in SEEN]
    check(found, report, "eyelink_asc_fixations", [(x / 1920, y / 1080, *rest) for x, y, *rest in places])


def test_eyelink_fixation_report(tmp_path):
    names = ["RECORDING_SESSION_LABEL", "TRIAL_INDEX", "image", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_START",
             "CURRENT_FIX_END", "CURRENT_FIX_DURATION"]  # fmt: skip
    rows: list[list[Any]] = [["s1", 1, "other.png", 3.0, 4.0, 10, 200, 190]]
    for x, y, start, duration in SEEN:
        begin, end = round(start * 1000), round((start + duration) * 1000)
        rows.append(["s1", 2, "a.png", *on_screen(x, y), begin, end, end - begin])
    found, report = read(tmp_path, "report.txt", table(names, rows, comma=True), EDGES)
    check(found, report, "eyelink_fixation_report")


def test_eyelink_sample_report(tmp_path):
    names = ["RECORDING_SESSION_LABEL", "TRIAL_LABEL", "TIMESTAMP", "LEFT_GAZE_X", "LEFT_GAZE_Y", "RIGHT_GAZE_X",
             "RIGHT_GAZE_Y"]  # fmt: skip
    rows = []
    for x, y, time in samples():
        a, b = on_screen(x, y)
        eye = [".", "."] if a is None else [a, b]
        rows.append(["s1", "Trial: 1", round((ONSET + time) * 1000), ".", ".", *eye])
    found, report = read(tmp_path, "report.tsv", table(names, rows), EDGES)
    check(found, report, "eyelink_sample_report", by_hand(tmp_path))


# --- Pupil Labs ---


def test_pupil_core_surface_fixations_count_from_the_lower_edge(tmp_path):
    """Seconds beside milliseconds, and a row for every frame of the world's camera."""
    names = ["world_timestamp", "world_index", "fixation_id", "start_timestamp", "duration", "dispersion",
             "norm_pos_x", "norm_pos_y", "x_scaled", "y_scaled", "on_surf"]  # fmt: skip
    rows: list[list[Any]] = []
    for place, (x, y, start, duration) in enumerate(SEEN, 7):
        for frame, aside in enumerate((-0.01, 0.01)):
            begin = ONSET + start
            rows.append([begin, frame, place, begin, duration * 1000, 1.0, x + aside, 1 - y + aside, 0.0, 0.0, "True"])
    rows.append([15.0, 99, 30, 15.0, 200.0, 1.0, 1.7, 0.5, 0.0, 0.0, "False"])
    found, report = read(tmp_path, "fixations_on_surface_xray.csv", table(names, rows, ","))
    shifted = [(x, y, start - SEEN[0][2], duration) for x, y, start, duration in SEEN]
    check(found, report, "pupil_core_fixations_on_a_surface", shifted)
    assert report["tables"]["fixations"]["dropped"] == {"marked_invalid": {"count": 1, "first": ["r1 row 4"]}}


def test_pupil_core_surface_gaze(tmp_path):
    names = ["world_timestamp", "world_index", "gaze_timestamp", "x_norm", "y_norm", "x_scaled", "y_scaled", "on_surf",
             "confidence"]  # fmt: skip
    rows = [[ONSET + time, 0, ONSET + time, x or 0.2, 0.3 if y is None else 1 - y, 0, 0, "True", 0.9 if x else 0.3]
            for x, y, time in samples()]  # fmt: skip
    found, report = read(tmp_path, "gaze_positions_on_surface_xray.csv", table(names, rows, ","))
    check(found, report, "pupil_core_gaze_on_a_surface", by_hand(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["id", "start_timestamp", "duration", "norm_pos_x", "norm_pos_y", "dispersion"],
        ["gaze_timestamp", "world_index", "confidence", "norm_pos_x", "norm_pos_y", "base_data"],
        ["section id", "recording id", "timestamp [ns]", "gaze x [px]", "gaze y [px]", "worn"],
        ["section id", "fixation id", "start timestamp [ns]", "duration [ms]", "fixation x [px]", "fixation y [px]"],
    ],
)
def test_a_scene_camera_does_not_say_where_on_the_image(tmp_path, names):
    with pytest.raises(UserError, match=r"do not say where on the image .* expected the export of a surface"):
        read(tmp_path, "fixations.csv", table(names, [[1] * len(names)], ","))


UTC = 1_766_745_600_123_456_789


@pytest.mark.parametrize(
    ("note", "detected", "x_name", "size"),
    [
        ("in_reference_image", "fixation detected in reference image", "fixation {} [px]", (WIDTH, HEIGHT)),
        ("on_surface", "fixation detected on surface", "fixation {} [normalized]", (1, 1)),
    ],
)
def test_neon_fixations(tmp_path, note, detected, x_name, size):
    names = ["section id", "recording id", "fixation id", "start timestamp [ns]", "end timestamp [ns]", "duration [ms]",
             detected, x_name.format("x"), x_name.format("y")]  # fmt: skip
    rows: list[list[Any]] = []
    for place, (x, y, start, duration) in enumerate(SEEN, 1):
        begin = UTC + round((start - SEEN[0][2]) * 1e9)
        told = [begin, begin + round(duration * 1e9), round(duration * 1000)]
        rows.append(["s", "r", place, *told, "True", x * size[0], y * size[1]])
    rows.append(["s", "r", 9, UTC + 5 * 10**9, UTC + 6 * 10**9, 1000, "False", None, None])
    found, report = read(tmp_path, "fixations.csv", table(names, rows, ","))
    shifted = [(x, y, start - SEEN[0][2], duration) for x, y, start, duration in SEEN]
    check(found, report, f"pupil_neon_fixations_{note}", shifted, within=1e-9)
    (told,) = report["notes"][f"gaze_read_as_pupil_neon_fixations_{note}"]["first"]
    assert f"0 s is {UTC} in its start timestamp [ns]" in told


@pytest.mark.parametrize(
    ("note", "detected", "x_name", "size"),
    [
        (
            *("in_reference_image", "gaze detected in reference image"),
            *("gaze position in reference image {} [px]", (WIDTH, HEIGHT)),
        ),
        ("on_surface", "gaze detected on surface", "gaze position on surface {} [normalized]", (1, 1)),
    ],
)  # fmt: skip
def test_neon_gaze(tmp_path, note, detected, x_name, size):
    names = ["section id", "recording id", "timestamp [ns]", detected, x_name.format("x"), x_name.format("y"),
             "fixation id", "blink id"]  # fmt: skip
    rows = [["s", "r", UTC + round(time * 1e9), x is not None, x and x * size[0], y and y * size[1], "", ""]
            for x, y, time in samples()]  # fmt: skip
    found, report = read(tmp_path, "gaze.csv", table(names, rows, ","))
    check(found, report, f"pupil_neon_gaze_{note}", by_hand(tmp_path))


# --- Gazepoint, WebGazer, BIDS ---


def test_gazepoint_starts_its_clock_anew_with_every_picture(tmp_path):
    names = ["MEDIA_ID", "MEDIA_NAME", "CNT", "TIME(2026/01/02 10:11:12.123)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY",
             "FPOGS", "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", ""]  # fmt: skip
    rows: list[list[Any]] = []
    for media, name in enumerate(("z.png", "a.png")):
        for place, (x, y, start, duration) in enumerate(SEEN, 1):
            a, b = on_screen(x, y)
            for part in (0.4, 0.7, 1.0):  # the fixation grows, and settles
                settled = [a / SCREEN[0] + 0.01 * (1 - part) + 0.1 * (1 - media), b / SCREEN[1]]
                told = [start + part * duration, 0, *settled, start, part * duration, place, 1]
                rows.append([media, name, 0, *told, 0.1, 0.1, 1, ""])
            rows.append([media, name, 0, start + duration, 0, 0.9, 0.9, start, duration, place, 0, 0.1, 0.1, 0, ""])
    edges = {"screen_left": 200 / 1920, "screen_top": 100 / 1080, "screen_right": 600 / 1920,
             "screen_bottom": 300 / 1080}  # fmt: skip
    found, report = read(tmp_path, "User 0_all_gaze.csv", table(names, rows, ","), edges)
    check(found, report, "gazepoint")


def test_jspsych_with_webgazer(tmp_path):
    edges = {"x": LEFT, "y": TOP, "left": LEFT, "top": TOP, "width": SCALE * WIDTH, "height": SCALE * HEIGHT}
    trials: list[Any] = [{"trial_type": "webgazer-calibrate", "time_elapsed": 100}]
    for name, shift in (("img/z.png", 30), ("img/a.png", 0)):
        seen = []
        for x, y, time in samples():
            a, b = on_screen(x, y)
            seen.append({"x": a and a + shift, "y": b, "t": round(time * 1000)})
        trials.append({"trial_type": "image-keyboard-response", "stimulus": name, "webgazer_data": seen,
                       "webgazer_targets": {"#jspsych-image-keyboard-response-stimulus": edges}})  # fmt: skip
    found, report = read(tmp_path, "data.json", json.dumps(trials))
    check(found, report, "webgazer_in_jspsych", by_hand(tmp_path))


def bids(tmp_path, sidecar=None, events=True):
    source = tmp_path / "raw"
    source.mkdir()
    told = {"PhysioType": "eyetrack", "RecordedEye": "right", "SampleCoordinateSystem": "gaze-on-screen",
            "SamplingFrequency": 100, "StartTime": -0.5, "timestamp": {"Units": "ms"},
            "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"],
            "x_coordinate": {"Units": "pixel"}, "y_coordinate": {"Units": "pixel"}} | (sidecar or {})  # fmt: skip
    name = "sub-01_task-read_recording-eye1_physio"
    (source / f"{name}.json").write_text(json.dumps(told))
    if events:
        lines = ["onset\tduration\ttrial_type\tstim_file", "0.0\t0.9\tfix\tn/a", "1.0\t5.0\tread\ta.png",
                 "7.0\t2.0\tread\tb.png"]  # fmt: skip
        (source / "sub-01_task-read_events.tsv").write_text("\n".join(lines))
    lines = [f"{5000 + 10 * n}\tn/a\tn/a\t0" for n in range(150)]  # 1.5 s before the picture
    for x, y, time in samples():
        a, b = on_screen(x, y)
        lines.append("\t".join([f"{round(6500 + time * 1000)}", *(f"{v:.4f}" if v else "n/a" for v in (a, b)), "9"]))
    return f"{name}.tsv.gz", gzip.compress("\n".join(lines).encode())


def test_bids(tmp_path):
    found, report = read(tmp_path, *bids(tmp_path), EDGES)
    check(found, report, "bids_eye_tracking", by_hand(tmp_path))
    assert "a.png, 0 s is 6500" in report["notes"]["gaze_read_as_bids_eye_tracking"]["first"][0]


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({"SampleCoordinateSystem": "gaze-in-world"}, "gaze-in-world; expected PhysioType eyetrack"),
        ({"Columns": ["a"]}, "expected Columns with timestamp"),
        ({"timestamp": {}}, "needs StartTime in seconds and timestamp's Units"),
    ],
)
def test_bids_that_does_not_say_what_it_is(tmp_path, sidecar, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, *bids(tmp_path, sidecar), EDGES)


# --- anything else ---


def test_columns_of_any_table_can_be_named(tmp_path):
    names = ["when (ms)", "lasts (ms)", "Blick X [px]", "Blick Y [px]", "Bild"]
    rows: list[list[Any]] = [[1, 900, 5.0, 5.0, "other"]]
    rows += [[start * 1000, duration * 1000, x * WIDTH, y * HEIGHT, "a"] for x, y, start, duration in SEEN]
    named = ["x=Blick X [px]", "y=Blick Y [px]", "start=when (ms)", "duration=lasts (ms)", "stimulus=Bild"]
    found, report = read(tmp_path, "own.tsv", table(names, rows, ";", comma=True), columns=named)
    check(found, report, "a_table_of_the_lab_s_own")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["x=a", "time=b"], "expected x=NAME, y=NAME and time=NAME"),
        (["x=a", "y=b", "time=c", "pupil=d"], "each once, of x, y, "),
        (["x=a", "y=a", "time=c"], "each once, of x, y, "),
        (["x=nope", "y=b", "time=c"], "own.csv: 0 columns nope; expected one, of a, b, c"),
    ],
)
def test_named_columns_that_are_none(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "own.csv", "a,b,c\n1,2,3\n", columns=columns)


def test_an_origin_at_the_lower_edge_can_be_said(tmp_path):
    lines = ["x_px,y_px,start_s,duration_s"]
    lines += [f"{x * WIDTH},{HEIGHT - y * HEIGHT},{start},{duration}" for x, y, start, duration in SEEN]
    found, _ = read(tmp_path, "own.csv", "\n".join(lines), origin="bottom-left")
    assert found["y"] == pytest.approx([one[1] for one in SEEN])


def test_screen_positions_need_the_place_of_the_picture(tmp_path):
    content = asc().replace("!V IMGLOAD", "picture")
    with pytest.raises(UserError, match="nothing tells where on it the image was; expected screen_left"):
        read(tmp_path, "x.asc", content, {"stimulus": "1"})


def test_an_origin_at_the_lower_edge_is_none_of_the_screen_s(tmp_path):
    with pytest.raises(UserError, match=r"x.asc: --origin bottom-left, but the export or .*; expected top-left"):
        read(tmp_path, "x.asc", asc(), origin="bottom-left")


def test_several_stimuli_or_readers_must_be_named(tmp_path):
    content = tobii(("MCS norm",), "ms")
    second = tobii(("MCS norm",), "ms", who="ben").partition("\n")[2]
    with pytest.raises(UserError, match=r"column stimulus is ''; expected one of the 3 in the file .Eyetracker"):
        read(tmp_path, "export.tsv", content.replace("a.png", "case one"))
    with pytest.raises(UserError, match=r"column recording is 'eve'; expected one of the 2 .* .anna, Recording1, ben"):
        read(tmp_path, "export.tsv", content + second, {"recording": "eve"})
    for cells in ({"reader_id": "ben"}, {"recording": "ben"}):
        source = tmp_path / next(iter(cells))
        source.mkdir()
        found, report = read(source, "export.tsv", content + second, cells)
        check(found, report, "tobii_pro_lab_fixations")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.edf", "SR_RESEARCH", "x.edf: a binary recording of EyeLink; expected what edf2asc"),
        ("x.asc", "** CONVERTED FROM x.edf\n12000\t1\t2\t3\n", "x.asc: no line EFIX; expected the events of edf2asc"),
        ("x.txt", "a\tb\n1\t2\n", "x.txt: expected the columns x, y and either"),
        ("x.asc", "", "x.asc: expected the columns .*; it has nothing"),
        ("x.tsv", b"\x81a\tb\n", "x.tsv: expected text in UTF-8, or in the encoding of its byte order mark"),
        ("x.tsv", "x_norm\ty_norm\tgaze_timestamp\ton_surf\n1\t2\t3\tTrue\t5\n", "row 1 has 5 cells; expected 4"),
        ("x.json", '[{"webgazer_data": [{"x": 1}]}]', "x.json: trial 1 is not as jsPsych writes it"),
        ("a_physio.tsv.gz", PACKED, "a_physio.json is missing; expected it to name the columns"),
    ],
)  # fmt: skip
def test_files_that_are_no_export(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, content)


@pytest.mark.parametrize(("factor", "unit"), [(1e6, "microseconds"), (1e9, "nanoseconds")])
def test_finer_units_are_shown_by_their_values(tmp_path, factor, unit):
    lines = ["x_px,y_px,start,duration,valid"]
    lines += [
        f"{x * WIDTH},{y * HEIGHT},{start * factor:.0f},{duration * factor:.0f},1" for x, y, start, duration in SEEN
    ]
    found, report = read(tmp_path, "own.csv", "\n".join([*lines, f"1,1,{3 * factor:.0f},{factor:.0f},0"]))
    assert found["start"] == pytest.approx([one[2] for one in SEEN]) and len(found["x"]) == len(SEEN)
    assert f"times_in_{unit}_by_their_values" in report["notes"]
    assert report["tables"]["fixations"]["dropped"]["marked_invalid"]["first"] == ["r1 row 4"]


def test_edges_that_are_not_used_are_noted(tmp_path):
    _, report = read(tmp_path, "export.tsv", tobii(("MCS px",), "ms"), EDGES)
    assert report["notes"]["screen_edges_not_used"]["first"] == ["r1: export.tsv has positions on the image"]
