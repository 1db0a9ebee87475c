"""`--preview N`: pictures to look at, and a line a reader whose numbers are counted here by hand."""

import pytest
from PIL import Image

from dataset_scripts import build
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options
from dataset_scripts.preview import _figure, _with_gaze
from tests.dataset_scripts.corpora.test_tracker import folder

GAZE = ["x_px,y_px,start_s,duration_s", "25,10,1.0,0.25", "75.5,40,2.0,0.5", "500,10,3.0,0.5", "60,10,4.5,0.5"]
SAID = ["WEBVTT", "", "00:01.500 --> 00:02.500", "No effusion.", "", "00:09.000 --> 00:10.000", "Clear."]


@pytest.fixture
def source(tmp_path):
    rows = ["r1,a.png,gaze.csv,said.vtt,anna", "r2,a.png,,said.vtt,anna", "r3,a.png,gaze.csv,,ben",
            "r4,a.png,gaze.csv,,ben"]  # fmt: skip
    columns = "reading_id,image,gaze,transcript,reader_id"
    return folder(tmp_path / "raw", rows, columns, {"gaze.csv": GAZE, "said.vtt": SAID})


def test_a_line_a_reader(source, tmp_path, capsys):
    """anna: of four fixations one lies off the image; three in 4 s, from 1.0 on; one of two sentences has gaze."""
    output = tmp_path / "look"
    assert build.main(["tracker", "--source", str(source), "--output", str(output), "--preview", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: line.split()[1:] for line in said}
    assert lines["anna"] == ["1", "25%", "0.8", "0.417", "50%", "+0.5"]
    assert lines["ben"] == ["1", "25%", "0.8", "0.417", "-", "-"]
    assert said[-1] == f"2 pictures in {output}" and sorted(file.name for file in output.iterdir()) == [
        "preview_1.png", "preview_2.png",
    ]  # fmt: skip
    with Image.open(output / "preview_1.png") as picture:
        assert picture.width > 500 and picture.height > 500
    assert any(line.startswith("no_subject_id_split_by_image: 3, such as r1") for line in said)


def test_gaze_is_drawn_where_it_lies_in_the_colour_of_its_sentence(source, tmp_path):
    plan = build.CORPORA["tracker"].plan(source, Options(64, 0, False))
    (seen,) = _with_gaze(plan, 1, Ledger())
    above, below = _figure(seen).axes
    (points,) = above.collections
    assert points.get_offsets().tolist() == [[0.25, 0.2], [0.755, 0.8], [0.6, 0.2]]
    colours = [tuple(colour[:3]) for colour in points.get_facecolors()]
    assert colours[1] == pytest.approx((0x1F / 255, 0x77 / 255, 0xB4 / 255)) and colours[0] == colours[2] != colours[1]
    assert above.get_ylim() == (1, 0) and [text.get_text() for text in below.texts] == ["No effusion.", "Clear."]


def test_a_preview_needs_a_new_folder(source, tmp_path, capsys):
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "mine").write_text("x")
    assert build.main(["tracker", "--source", str(source), "--output", str(tmp_path / "look"), "--preview", "2"]) == 2
    assert "look" in capsys.readouterr().err
