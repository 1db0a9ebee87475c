"""An image that moved on the screen: a table of its edges by time, and another image now and then."""

import numpy as np
import pytest

from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.corpora.test_tracker import folder

HEADER = "start_seconds,image,screen_left,screen_top,screen_right,screen_bottom"
# at first whole; enlarged twice about its middle; then another image; then whole again, moved to the right
MOVES = ["0,a.png,200,100,600,300", "2,a,0,0,800,400", "4,b.png,0,0,10,10", "6,,300,100,700,300"]
EDGES = {0: (200, 100, 600, 300), 2: (0, 0, 800, 400), 6: (300, 100, 700, 300)}
LOOKED = [(0.5, 400, 200), (1.5, 300, 120), (2.5, 400, 200), (3.0, 100, 300), (4.5, 400, 200), (6.5, 400, 150)]


def converted(tmp_path, moves=MOVES, gaze=None, columns="", cells="", **options):
    lines = gaze or ["x_px,y_px,start_s,duration_s", *(f"{x},{y},{start},0.25" for start, x, y in LOOKED)]
    files = {"gaze.csv": lines, "moves.csv": [HEADER, *moves]}
    row = f"r1,a.png,gaze.csv,said.vtt,moves.csv{cells}"
    source = folder(tmp_path / "raw", [row], f"reading_id,image,gaze,transcript,screen{columns}", files)
    rows, report = convert("tracker", source, tmp_path / "out", **options)
    return rows["r1"]["fixations"], report


def by_hand(start, x, y):
    left, top, right, bottom = EDGES[max(begin for begin in EDGES if begin <= start)]
    return (x - left) / (right - left), (y - top) / (bottom - top)


def test_fixations_follow_the_image(tmp_path):
    found, report = converted(tmp_path)
    seen = [one for one in LOOKED if not 4 <= one[0] < 6]
    assert np.allclose([found["x"], found["y"]], np.transpose([by_hand(*one) for one in seen]))
    assert np.allclose(found["start"], [start for start, *_ in seen])
    assert report["notes"]["image_not_on_the_screen"]["first"] == ["r1: 1 of 6 rows"]
    assert report["tables"]["fixations"]["dropped"]["not_a_number"]["count"] == 1


def test_before_the_first_row_nothing_is_shown(tmp_path):
    found, _ = converted(tmp_path, moves=["2.2,a.png,0,0,800,400"])
    assert np.allclose(found["start"], [start for start, *_ in LOOKED if start >= 2.2])


def test_a_degree_is_less_of_an_enlarged_image(tmp_path):
    found, _ = converted(tmp_path, columns=",image_width_degrees", cells=",20")
    assert np.allclose(found["sigma_x"], [1 / 20, 1 / 20, 1 / 40, 1 / 40, 1 / 20])
    assert np.allclose(np.divide(found["sigma_y"], found["sigma_x"]), 100 / 50)


def test_samples_follow_it_too(tmp_path):
    time = np.arange(0, 4, 0.01)
    # the eye rests on one place of the image while that is enlarged under it
    places = [(400, 150) if second < 2 else (400, 100) for second in time]
    lines = ["x_px,y_px,time_s", *(f"{x},{y},{t:.2f}" for t, (x, y) in zip(time, places, strict=True))]
    found, _ = converted(tmp_path, gaze=lines)
    assert np.allclose(found["x"], 0.5) and np.allclose(found["y"], 0.25)


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        (["0,a,200,100,600,300", "0,a,0,0,800,400"], "moves.csv: row 2: start_seconds is '0'; expected seconds"),
        (["soon,a,200,100,600,300"], "moves.csv: row 1: start_seconds is 'soon'"),
        (["0,a,200,100,600,"], "moves.csv: row 1: screen_left, .*expected all four"),
        (["0,a,600,100,200,300"], "left before right"),
        (["0,b,200,100,600,300"], "a.png is never on the screen"),
        (["0,a,,,,"], "a.png is never on the screen"),
    ],
)
def test_tables_that_place_nothing(tmp_path, moves, message):
    with pytest.raises(UserError, match=message):
        converted(tmp_path, moves=moves)


def test_edges_in_both_places(tmp_path):
    columns = "".join(f",screen_{side}" for side in ("left", "top", "right", "bottom"))
    with pytest.raises(UserError, match=r"expected there or in moves.csv, not in both"):
        converted(tmp_path, columns=columns, cells=",0,0,10,10")
