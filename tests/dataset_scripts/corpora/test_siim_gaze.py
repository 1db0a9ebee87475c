"""The gaze of Saab et al.: swapped axes, lengths in samples, images that lie elsewhere."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.corpora import siim_gaze
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import grey_picture, write_lines

FIRST, SECOND, ABSENT = "1.2.3.111", "1.2.3.222", "1.2.3.333"


def recording(image_id=FIRST, gaze_x=(0.25, 0.5), gaze_y=(0.75, 0.125), time=(3, 1), **changes):
    return {"image_id": image_id, "gaze_x": list(gaze_x), "gaze_y": list(gaze_y), "time": list(time)} | changes


def tree(root, recordings, images=(FIRST, SECOND)):
    """Source and folder of images, which are half as wide as high."""
    (root / "raw").mkdir()
    (root / "raw" / "cxr_gaze_data.json").write_text(json.dumps(recordings))
    for image_id in images:
        path = root / "images" / "study" / "series" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey_picture(8, 16).save(path)
    return root / "raw"


def converted(root, recordings, **options):
    return convert("siim_gaze", tree(root, recordings), root / "out", images=root / "images", **options)


def dropped(report, table="cxr_gaze_data.json"):
    return {reason: found["count"] for reason, found in report["tables"][table]["dropped"].items()}


def test_axes_are_swapped_and_lengths_are_sixtieths_of_a_second(tmp_path):
    rows, _ = converted(tmp_path, [recording(gaze_x=(0.25, 0.5, 0.6), gaze_y=(0.75, 0.125, 0.2), time=(3, 1, 5))])
    row, fixations = rows[FIRST], rows[FIRST]["fixations"]
    assert fixations["x"] == [0.75, 0.125, 0.2] and fixations["y"] == [0.25, 0.5, 0.6]
    np.testing.assert_allclose(fixations["duration"], [3 / 60, 1 / 60, 5 / 60])
    np.testing.assert_allclose(fixations["start"], [0, 3 / 60, 4 / 60])
    assert row["sentences"] == [] and row["findings"] == [] and row["subject_id"] is None
    assert (row["image_id"], row["source"], row["width"], row["height"]) == (FIRST, "siim_gaze", 8, 16)


def test_positions_off_the_image_are_dropped_and_their_time_still_passes(tmp_path):
    values = recording(gaze_x=(0.5, 1.07, 0.5, 1.0), gaze_y=(0.5, 0.5, -0.01, 0.5), time=(1, 2, 3, 4))
    rows, report = converted(tmp_path, [values, recording(SECOND, gaze_x=(None, 0.5, 0.5), gaze_y=(0, 0, 0.5),
                                                          time=(5, 0, 6))])  # fmt: skip
    assert dropped(report, "fixations") == {"outside_image": 3, "not_a_number": 1, "no_duration": 1}
    assert rows[FIRST]["fixations"]["start"] == [0]
    assert rows[SECOND]["fixations"]["start"] == pytest.approx([5 / 60])


def test_recordings_that_yield_no_reading_are_counted(tmp_path):
    bad = [
        recording(ABSENT),
        recording(),
        recording(SECOND, gaze_x=(2,), gaze_y=(2,), time=(1,)),
        recording("1.5", gaze_x=(0.1,)),
        recording("1.6", time="ab"),
        recording("1.7", gaze_y=(0.5, "0.5")),
        recording("1.8", gaze_y=(0.5, 10**400)),
        recording("../1.9"),
        {"image_id": 7},
        {},
        None,
        [1],
    ]
    _, report = converted(tmp_path, [recording(), *bad])
    assert dropped(report) == {
        "image_missing": 2,
        "duplicate_reading_id": 1,
        "no_gaze_left": 1,
        "recording_not_understood": 4,
        "no_image_id": 4,
    }
    first = report["tables"]["cxr_gaze_data.json"]["dropped"]["image_missing"]["first"][0]
    assert ABSENT in first and "recording 2" in first


def test_masks_say_where_there_is_a_pneumothorax(tmp_path):
    source = tree(tmp_path, [recording(), recording(SECOND)])
    lines = ["ImageId, EncodedPixels", f"{FIRST}, 7 2 3 4", f"{FIRST},5 1", f"{SECOND}, -1", f"{ABSENT}, -1"]
    write_lines(source / "train-rle.csv", lines)
    rows, report = convert("siim_gaze", source, tmp_path / "out", images=tmp_path / "images", num_proc=2)
    assert rows[FIRST]["findings"] == [{"name": "Pneumothorax", "value": 1}]
    assert rows[SECOND]["findings"] == [{"name": "Pneumothorax", "value": 0}]
    assert report["tables"]["train-rle.csv"]["rows_in"] == 4
    assert dropped(report, "train-rle.csv") == {"image_without_gaze": 1}


def test_images_must_lie_in_their_folder_and_be_whole(tmp_path):
    source = tree(tmp_path, [recording(), recording(SECOND), recording(ABSENT)])
    grey_picture(8, 8).save(tmp_path / "outside.png")
    (tmp_path / "images" / f"{ABSENT}.png").symlink_to(tmp_path / "outside.png")
    path = tmp_path / "images" / "study" / "series" / f"{SECOND}.png"
    path.write_bytes(path.read_bytes()[:40])
    _, report = convert("siim_gaze", source, tmp_path / "out", images=tmp_path / "images")
    assert dropped(report) == {"path_leaves_source": 1, "image_not_decodable": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file; expected a JSON list of objects \(a pickle is never read\)"),
        (b"[", "expected JSON"),
        (b"\xff[]", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"{}", "expected a list of objects"),
        (b"[]", "expected a list of objects"),
    ],
)
def test_bad_gaze_file(tmp_path, content, message):
    source = tree(tmp_path, [])
    path = source / "cxr_gaze_data.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert("siim_gaze", source, tmp_path / "out", images=tmp_path / "images")


def test_images_are_needed(tmp_path):
    source = tree(tmp_path, [recording()])
    with pytest.raises(UserError, match="--images with the SIIM-ACR images is needed"):
        convert("siim_gaze", source, tmp_path / "out")
    with pytest.raises(UserError, match="no such folder"):
        convert("siim_gaze", source, tmp_path / "out", images=tmp_path / "nowhere")


numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=2))
columns = st.one_of(numbers, st.lists(numbers, max_size=4), st.lists(st.floats(0, 6), max_size=4))
recordings = st.lists(
    st.one_of(
        numbers,
        st.fixed_dictionaries(
            {}, optional={"image_id": st.sampled_from([FIRST, SECOND, "", "\ud800", 5]), "gaze_x": columns,
                          "gaze_y": columns, "time": columns}
        ),
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=150)
@given(st.one_of(recordings.map(lambda value: json.dumps(value).encode()), st.binary(max_size=30)))
def test_any_content_is_read_or_refused(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("fuzzed")
    source = tree(root, [])
    (source / "cxr_gaze_data.json").write_bytes(content)
    options = Options(image_size=8, seed=0, generated=False, images=root / "images")
    try:
        plan = siim_gaze.plan(source, options)
    except UserError:
        return
    total = Ledger()
    for unit in plan.units:
        for outcome in plan.convert(unit):
            total.merge(outcome.ledger)
            if outcome.reading is not None:
                assert np.isfinite([outcome.reading[1]["fixations"][name] for name in ("x", "y", "start")]).all()
    total.check()
    assert total.tables["cxr_gaze_data.json"].rows_in == len(json.loads(content))


def test_real_recordings(tmp_path, real_data):
    """Every fixation of the published file is kept or counted; where it goes is checked against the raw numbers."""
    raw = json.loads((real_data / "siim_gaze" / "cxr_gaze_data.json").read_text())
    images = tmp_path / "images"
    images.mkdir()
    for entry in raw:
        grey_picture(4, 4).save(images / f"{entry['image_id']}.png")
    rows, report = convert("siim_gaze", real_data / "siim_gaze", tmp_path / "out", images=images)
    assert report["readings"] == {"rows_in": 125, "rows_kept": 125, "rows_dropped": 0, "dropped": {}}
    tally = report["tables"]["fixations"]
    assert tally["rows_in"] == sum(len(entry["time"]) for entry in raw)
    kept = lost = 0
    for entry in raw:
        pairs = zip(entry["gaze_x"], entry["gaze_y"], entry["time"], strict=True)
        inside = [(right, down, length / 60) for down, right, length in pairs if down < 1 and right < 1]
        fixations = rows[entry["image_id"]]["fixations"]
        found = zip(fixations["x"], fixations["y"], fixations["duration"], strict=True)
        assert [tuple(values) for values in found] == inside
        kept, lost = kept + len(inside), lost + len(entry["time"]) - len(inside)
    assert (tally["rows_kept"], dropped(report, "fixations")) == (kept, {"outside_image": lost})


def test_masks_without_a_header_are_read_as_siim_acr_reads_them(tmp_path):
    source = tree(tmp_path, [recording(), recording(SECOND)])
    (source / "train-rle.csv").write_bytes(f"\ufeff{FIRST}, -1\r\n{SECOND},1 2\n".encode())
    rows, report = convert("siim_gaze", source, tmp_path / "out", images=tmp_path / "images")
    assert [rows[name]["findings"][0]["value"] for name in (FIRST, SECOND)] == [0, 1]
    assert report["tables"]["train-rle.csv"]["rows_kept"] == 2
