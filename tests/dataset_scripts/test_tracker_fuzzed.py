"""Whatever a lab's files hold: a reading, or a reason; no other exception, and every row accounted for."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_scripts.corpora import tracker
from dataset_scripts.gaze.tracker_columns import Frame, Shown, Source
from dataset_scripts.gaze.tracker_gaze import read_gaze
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts.raw_trees import grey_picture
from tests.dataset_scripts.test_parsers_fuzzed import check_fixations, contents, table

pytestmark = pytest.mark.filterwarnings("error")
CASES = settings(max_examples=300)
HEADERS = (
    "x,y,start,duration",
    "x,y,start_ms,end_ms",
    "x_px,y_px,time_s",
    "x,y,time,valid",
    "x_fraction,y_fraction,timestamp_ms,valid,pupil",
    "x,y,end,start,duration",
    "y,x,time,duration",
)
EXPORTS = (
    "Fixation point X,Fixation point Y [MCSnorm],Recording timestamp,Gaze event duration,Eye movement type,"
    "Eye movement type index,Presented Stimulus name,Participant name",
    "Gaze point X [DACS px],Gaze point Y,Recording timestamp [us],Validity left,Presented Media width",
    "CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_START,CURRENT_FIX_END,image",
    "LEFT_GAZE_X,LEFT_GAZE_Y,RIGHT_GAZE_X,RIGHT_GAZE_Y,TIMESTAMP",
    "norm_pos_x,norm_pos_y,start_timestamp,duration,on_surf,fixation_id",
    "FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV,MEDIA_ID",
)
ASC = ["EFIX L 1 2 3 4 5 6", "EFIX R 100 300 200 4.5 1e9 .", "EFIX", "EFIX L", "START", "START 5", "MSG", "7 8 9",
       "MSG 1 SYNCTIME", "MSG 1 -3 TRIALID", "MSG 4 !V IMGLOAD FILL a.png", "MSG 4 !V IMGLOAD CENTER a.png 1 x 2 3",
       "MSG 4 !V IMGLOAD TOP_LEFT a.png 1 1 4 5", "MSG 1 GAZE_COORDS 0 x 3 4",
       "MSG 1 !CAL VALIDATION x LEFT ERROR 1.2.3"]  # fmt: skip
ROWS = ["reading_id,image,gaze", "reading_id,image,gaze,transcript,split,subject_id,device",
        "reading_id,image,gaze,width,height,screen_left,screen_top,screen_right,screen_bottom,image_width_degrees",
        "reading_id,image,gaze,transcript,audio_start_seconds,findings"]  # fmt: skip
units = st.tuples(st.sampled_from([None, "pixels", "fractions"]), st.sampled_from([None, "seconds", "milliseconds"]))
options = units.map(lambda given: Options(8, 0, False, coordinates=given[0], time_unit=given[1]))
EDGES = (0.1, 0.2, 0.9, 0.8), (10.0, 20.0, 900.0, 800.0)
MOVED = (Shown(0.0, EDGES[1]), Shown(0.2, None), Shown(0.3, (-500.0, 0.0, 5000.0, 800.0)))
frames = st.builds(
    Frame,
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    screen=st.sampled_from([(), *((Shown(-math.inf, edges),) for edges in EDGES), MOVED]),
    width_degrees=st.sampled_from([None, 0.001, 25.0, 179.0]),
)
places = st.sampled_from([100, 100, 100, 101, 300, 900, -5])
plausible = st.lists(
    st.tuples(places, places, st.sampled_from([5, 10, 10, 20, 40, 80, 300, 0])), min_size=20, max_size=80
)


def as_samples(steps):
    lines = [f"{x},{y},{t},1" for (x, y, _), t in zip(steps, np.cumsum([step for *_, step in steps]), strict=True)]
    return "\n".join(["x_px,y_px,time_ms,valid", *lines]).encode()


def as_fixations(steps):
    return "\n".join(["x,y,start_ms,duration_ms", *(f"{x},{y},{10 * step},{step}" for x, y, step in steps)]).encode()


def as_asc(lines):
    return "\n".join(["** CONVERTED FROM a.edf", *lines]).encode()


def as_json(value):
    return json.dumps(value).encode()


columns = st.one_of(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))),
                    st.lists(st.floats(0, 3), min_size=2, max_size=2))  # fmt: skip
fixations = st.fixed_dictionaries({name: columns for name in ("x", "y", "start", "duration")})
coordinates = st.one_of(st.none(), st.floats(), st.text(max_size=2))
webgazer = st.one_of(
    st.integers(),
    st.lists(st.fixed_dictionaries({axis: coordinates for axis in "xyt"})),
    st.dictionaries(st.text(max_size=1), st.fixed_dictionaries(dict.fromkeys(("left", "top", "width"), st.integers()))),
)
names = st.sampled_from(["webgazer_data", "webgazer_targets", "stimulus"])
trials = st.lists(st.dictionaries(names, webgazer), max_size=3)
documents = st.one_of(trials, columns, st.fixed_dictionaries({"fixations": fixations}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab")
    grey_picture(8, 4).save(root / "a.png")
    (root / "good.csv").write_text("x,y,start,duration\n2,2,0,1\n")
    return root


@CASES
@given(
    st.one_of(
        st.tuples(contents, st.sampled_from([".csv", ".json", ".CSV", ".tsv"])),
        st.tuples(plausible.map(as_samples), st.just(".csv")),
        st.tuples(plausible.map(as_fixations), st.just(".csv")),
        st.tuples(st.sampled_from(HEADERS).flatmap(table), st.just(".csv")),
        st.tuples(documents.map(as_json), st.just(".json")),
        st.tuples(st.sampled_from(EXPORTS).flatmap(table), st.sampled_from([".csv", ".gz"])),
        st.tuples(st.sampled_from(EXPORTS).flatmap(table).map(lambda text: text.replace(b",", b"\t")), st.just(".tsv")),
        st.tuples(st.lists(st.sampled_from(ASC)).map(as_asc), st.just(".asc")),
    ),
    frames,
    units,
)
@example(
    (b"x_fraction,y_fraction,time_s\n1e308,-1e308,0\n1e308,1e308,1e308\n0,0,1.7e308\n", ".csv"),
    Frame(5000, 1, (), None),
    (None, None),
)
@example((b"x_px,y_px,start_s,end_s\n1,1,-1.7e308,1.7e308\n", ".csv"), Frame(8, 4, (), None), (None, None))
def test_gaze_file(folder, file, frame, units):
    content, suffix = file
    path, ledger = folder / f"gaze{suffix}", Ledger()
    path.write_bytes(content)
    try:
        fixations = read_gaze(Source(path, "r", frame, ledger, *units))
    except (UserError, Dropped):
        return
    check_fixations(fixations)
    ledger.check()


named = st.lists(
    st.tuples(
        st.sampled_from(["r1", "r2", ""]),
        st.sampled_from(["a.png", "b.png", "..", "x" * 300, "\x01"]),
        st.sampled_from(["good.csv", "", "a.png", "/", "good.csv/x"]),
    ),
    max_size=4,
).map(lambda rows: "\n".join(["reading_id,image,gaze", *(",".join(row) for row in rows)]).encode())


@CASES
@given(st.one_of(contents, named, st.sampled_from(ROWS).flatmap(table)), options)
def test_readings_table(folder, content, options):
    (folder / "readings.csv").write_bytes(content)
    try:
        plan = tracker.plan(folder, options)
    except UserError:
        return
    total = Ledger()
    for unit in plan.units:
        (outcome,) = plan.convert(unit)
        total.merge(outcome.ledger)
        if outcome.reading is not None:
            check_fixations(outcome.reading[1]["fixations"])
    total.check()
    assert total.tables["readings.csv"].rows_in == len(plan.units)
