"""One recording under two rows of readings.csv is kept twice, but not without a word."""

from pathlib import Path

import pytest

from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.gaze.test_tracker_exports import tobii
from tests.dataset_scripts.raw_trees import grey_picture, write_lines

PLAIN = "x,y,start,duration\n25,10,0.5,0.25\n75.5,40,1.0,0.5\n"
ANNA = tobii(("MCS norm",), "ms", who="anna").replace("\tb.png", "\tPause")
BOTH = ANNA + tobii(("MCS norm",), "ms", who="ben").replace("\tb.png", "\tPause").partition("\n")[2]
BOTH_IMAGES = ANNA + ANNA.replace("a.png", "b.png").partition("\n")[2]


def noted(tmp_path: Path, rows: list[str], gaze: str) -> list[str]:
    source = tmp_path / "raw"
    source.mkdir()
    for name in ("a.png", "b.png"):
        grey_picture(100, 50).save(source / name)
    (source / "gaze.tsv").write_text(gaze)
    (source / "again.tsv").write_text(gaze)
    write_lines(source / "readings.csv", ["reading_id,image,gaze,stimulus,recording,reader_id", *rows])
    found, report = convert("tracker", source, tmp_path / "out")
    assert len(found) == len(rows)
    return list(report["notes"].get("recording_of_another_row", {"first": []})["first"])


@pytest.mark.parametrize(
    ("rows", "gaze"),
    [
        (["r1,a.png,gaze.tsv,,,", "r2,a.png,gaze.tsv,,,"], PLAIN),
        (["r1,a.png,gaze.tsv,,,", "r2,b.png,gaze.tsv,,,"], PLAIN),  # the file of the row above, left as it was
        (["r1,a.png,gaze.tsv,,,x", "r2,a.png,gaze.tsv,,,y"], PLAIN),
        (["r1,a.png,gaze.tsv,,,anna", "r2,a.png,gaze.tsv,,,anna"], BOTH),
        (["r0,a.png,gaze.tsv,,,ben", "r1,a.png,gaze.tsv,a.png,anna,", "r2,a.png,gaze.tsv,a.png,anna,"], BOTH),
    ],
)
def test_a_second_row_of_one_recording_is_noted(tmp_path: Path, rows: list[str], gaze: str) -> None:
    assert noted(tmp_path, rows, gaze) == ["r2: gaze.tsv, as r1"]


@pytest.mark.parametrize(
    ("rows", "gaze"),
    [
        (["r1,a.png,gaze.tsv,,,", "r2,a.png,again.tsv,,,"], PLAIN),
        (["r1,a.png,gaze.tsv,,,anna", "r2,a.png,gaze.tsv,,,ben"], BOTH),
        (["r1,a.png,gaze.tsv,,,", "r2,b.png,gaze.tsv,,,"], BOTH_IMAGES),
        (["r1,a.png,gaze.tsv,a.png,,", "r2,a.png,gaze.tsv,b.png,,"], BOTH_IMAGES),
    ],
)
def test_parts_of_one_file_are_recordings_of_their_own(tmp_path: Path, rows: list[str], gaze: str) -> None:
    assert noted(tmp_path, rows, gaze) == []
