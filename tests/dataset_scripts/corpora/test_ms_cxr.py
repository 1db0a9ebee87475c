"""MS-CXR: phrases and their boxes, as CSV and as COCO."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora import ms_cxr
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.evaluation_trees import MS_CXR_HEADER, as_coco, ms_cxr_line

TABLE, JSON_TABLE = "MS_CXR_Local_Alignment_v1.1.0.csv", "MS_CXR_Local_Alignment_v1.1.0.json"
LINES = (
    ms_cxr_line(raw.REFLACX_IMAGE, "Pneumonia", "patchy opacity, on both sides", "20,40,60,80"),
    ms_cxr_line(raw.EGD_IMAGE, "Edema", "mild edema", "0,0,200,400"),
    ms_cxr_line(raw.REFLACX_IMAGE, "Pneumonia", "patchy opacity, on both sides", "120,40,60,80"),
    ms_cxr_line(raw.REFLACX_IMAGE, "Pneumothorax", "a small apical pneumothorax", "100,0,50,100"),
)


@pytest.fixture
def images(tmp_path):
    return raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")


def written(folder, lines, header=MS_CXR_HEADER, line_end="\n"):
    raw.write_lines(folder / TABLE, [header, *lines], line_end)
    return folder


def dropped(report, table):
    return {reason: found["count"] for reason, found in report["tables"][table]["dropped"].items()}


def corners(row):
    return [tuple(box[name] for name in ("x_min", "y_min", "x_max", "y_max")) for box in row["boxes"]]


def test_a_row_is_a_phrase_with_its_boxes(tmp_path, images):
    rows, report = convert("ms_cxr", written(tmp_path / "raw", LINES), tmp_path / "out", images=images)
    assert set(rows) == {f"{raw.REFLACX_IMAGE}#1", f"{raw.REFLACX_IMAGE}#2", f"{raw.EGD_IMAGE}#1"}
    row = rows[f"{raw.REFLACX_IMAGE}#1"]
    assert row["sentences"] == [{"text": "patchy opacity, on both sides", "start_seconds": None, "end_seconds": None}]
    assert corners(row) == [(0.1, 0.1, 0.4, 0.3), (0.6, 0.1, 0.9, 0.3)]
    assert {box["label"] for box in row["boxes"]} == {"Pneumonia"}
    assert row["findings"] == [{"name": "Pneumonia", "value": 1}]
    assert (row["subject_id"], row["study_id"]) == ("10000001", "50000001")
    assert (row["width"], row["height"], row["image_id"]) == (200, 400, raw.REFLACX_IMAGE)
    assert set(report["splits"]) == {"test"} and report["tables"][TABLE]["rows_kept"] == 4


def test_csv_and_coco_give_the_same_rows(tmp_path, images):
    from_csv, _ = convert("ms_cxr", written(tmp_path / "csv", LINES), tmp_path / "out1", images=images)
    raw.write_lines(tmp_path / "json" / JSON_TABLE, [as_coco(LINES)])
    from_json, report = convert("ms_cxr", tmp_path / "json", tmp_path / "out2", images=images)
    for rows in (from_csv, from_json):
        for row in rows.values():
            row["image"] = row["image"].tobytes()
    assert from_csv == from_json and report["tables"][JSON_TABLE]["rows_kept"] == 4


def test_the_column_split_decides(tmp_path, images):
    lines = [f"{line},{split}" for line, split in zip(LINES, ("val", "val", "val", "other"), strict=True)]
    source = written(tmp_path / "raw", lines, f"{MS_CXR_HEADER},split", "\r\n")
    _, report = convert("ms_cxr", source, tmp_path / "out", images=images)
    assert set(report["splits"]) == {"validation"}
    assert dropped(report, f"phrases of {TABLE}") == {"split_unknown": 1}
    written(source, [f"{LINES[0]},train", f"{LINES[1]},test"], f"{MS_CXR_HEADER},split")
    with pytest.raises(UserError, match="patient 10000001 lies in both train and test"):
        ms_cxr.plan(source, Options(image_size=64, seed=0, generated=False, images=images))


def test_bad_rows_are_counted(tmp_path, images):
    image = raw.REFLACX_IMAGE
    lines = [
        ms_cxr_line(image, "Edema", "one", "20,40,60,80"),
        ms_cxr_line(image, "Edema", "one", "20,40,60,80"),  # named twice
        ms_cxr_line(image, "Edema", "one", "190,390,60,80"),  # leaves the image
        ms_cxr_line(image, "Edema", "one", "10,10,0,80"),
        ms_cxr_line(image, "Edema", "two", "400,10,20,80"),  # beside the image, and the only box
        ms_cxr_line(image, "Edema", "", "20,40,60,80"),
        ms_cxr_line(image, "", "four", "20,40,60,80"),
        ms_cxr_line("c" * 44, "Edema", "five", "20,40,60,80"),  # no picture
        ms_cxr_line(image, "Edema", "six", "20,40,60,80").replace("s50000001", "elsewhere"),
        ms_cxr_line(image, "Edema", "seven", "10,10,20,20", size=","),
        ms_cxr_line("", "Edema", "eight", "10,10,20,20"),
    ]
    rows, report = convert("ms_cxr", written(tmp_path / "raw", lines), tmp_path / "out", images=images)
    assert {row["sentences"][0]["text"]: len(row["boxes"]) for row in rows.values()} == {"one": 2, "seven": 1}
    assert dropped(report, f"phrases of {TABLE}") == {
        "no_box_left": 1, "no_phrase": 1, "no_category": 1, "image_missing": 1, "patient_or_study_unknown": 1,
        "no_image_id": 1,
    }  # fmt: skip
    assert dropped(report, TABLE) == {
        "duplicate_box": 1, "no_area_in_image": 1, "reading_dropped": 6
    }  # fmt: skip
    assert report["notes"]["box_clipped_to_the_image"]["count"] == 1
    assert report["notes"]["image_size_from_the_file"]["count"] == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.csv", b"", "no MS_CXR_Local_Alignment_v"),
        (TABLE, MS_CXR_HEADER.encode(), "holds no box"),
        (TABLE, b"dicom_id;x\n", "looks separated by semicolons"),
        (JSON_TABLE, b"{", "expected JSON; it breaks at line 1, column 2"),
        (JSON_TABLE, b"[1]", "expected COCO's JSON"),
        (JSON_TABLE, b"[" * 100_000, "nested too deep"),
        (
            JSON_TABLE,
            b'{"images": {}, "annotations": [], "categories": []}',
            "JSON; images missing, or no list",
        ),
        (JSON_TABLE, b'{"images": [], "annotations": [], "categories": []}', "holds no box"),
        (JSON_TABLE, b"\xff\xfe", "expected JSON; it breaks at line 1"),
    ],
)
def test_bad_tables(tmp_path, images, name, content, message):
    source = tmp_path / "raw"
    source.mkdir()
    (source / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        ms_cxr.plan(source, Options(image_size=64, seed=0, generated=False, images=images))


def test_images_are_needed(tmp_path):
    with pytest.raises(UserError, match="--images with a MIMIC-CXR-JPG or MIMIC-CXR tree is needed"):
        ms_cxr.plan(written(tmp_path / "raw", LINES), Options(image_size=64, seed=0, generated=False))


odd = st.one_of(st.none(), st.booleans(), st.integers(-9, 500), st.floats(), st.text(max_size=6), st.lists(st.none()))
image_path = f"files/p10/p10000001/s{raw.STUDY}/{raw.EGD_IMAGE}.jpg"


def objects(**values):
    return st.fixed_dictionaries({}, optional={name: st.one_of(odd, st.just(value)) for name, value in values.items()})


coco_files = st.fixed_dictionaries(
    {
        "images": st.lists(st.one_of(odd, objects(id=1, path=image_path, width=200, height=400)), max_size=2),
        "categories": st.lists(st.one_of(odd, objects(id=1, name="Edema")), max_size=2),
        "annotations": st.lists(
            st.one_of(
                odd,
                objects(image_id=1, category_id=1, bbox=[10, 10, 20, 30], label_text="x", width=200, height=400),
                st.just({"image_id": 1, "category_id": 1, "bbox": [10, 10, 1e308, 1e308], "label_text": "x"}),
            ),
            max_size=5,
        ),
    }
)


@given(st.one_of(coco_files, odd))
def test_any_coco_file_adds_up(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("ms_cxr")
    images = raw.mimic_cxr_tree(folder / "images")
    (folder / JSON_TABLE).write_text(json.dumps(content))
    try:
        plan = ms_cxr.plan(folder, Options(image_size=64, seed=0, generated=False, images=images))
    except UserError:
        return
    ledger = Ledger()
    for outcome in (outcome for unit in plan.units for outcome in plan.convert(unit)):
        ledger.merge(outcome.ledger)
        for box in outcome.reading[1]["boxes"] if outcome.reading else []:
            assert 0 <= box["x_min"] < box["x_max"] <= 1 and 0 <= box["y_min"] < box["y_max"] <= 1
    ledger.check()
    assert ledger.tables[JSON_TABLE].rows_in == len(content["annotations"])
