"""NIH ChestX-ray14: labels, boxes and the corpus's own split."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora import nih
from dataset_scripts.corpora.splits import hashed_split
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.evaluation_trees import NIH_BOX_HEADER, NIH_HEADER, nih_line, nih_tree, save_picture
from tests.dataset_scripts.raw_trees import write_lines

TABLE = "Data_Entry_2017_v2020.csv"
OPTIONS = Options(image_size=64, seed=0, generated=False)
LINES = (
    nih_line("1_000.png", "Cardiomegaly|Infiltration", "1"),
    nih_line("1_001.png", "No Finding", "1"),
    nih_line("2_000.png", "Hernia", "2"),
    nih_line("3_000.png", "Pleural_Thickening", "3"),
)
BOXES = (
    "1_000.png,Cardiomegaly,256.0,128.0,512.0,256.0,,,",
    "1_000.png,Infiltrate,0,0,1024,512,,,",
)


def present(row):
    assert {finding["value"] for finding in row["findings"]} <= {0, 1}
    assert [finding["name"] for finding in row["findings"]] == list(nih.LABELS)
    return {finding["name"] for finding in row["findings"] if finding["value"]}


def dropped(report, table):
    return {reason: found["count"] for reason, found in report["tables"][table]["dropped"].items()}


def test_labels_boxes_and_splits(tmp_path):
    source = nih_tree(tmp_path / "raw", LINES, BOXES, test=["2_000.png"], rgba="3_000.png")
    rows, report = convert("nih", source, tmp_path / "out", num_proc=2)
    assert {name: present(row) for name, row in rows.items()} == {
        "1_000.png": {"Cardiomegaly", "Infiltration"},
        "1_001.png": {"No Finding"},
        "2_000.png": {"Hernia"},
        "3_000.png": {"Pleural_Thickening"},
    }
    boxes = [
        (box["label"], *(box[name] for name in ("x_min", "y_min", "x_max", "y_max")))
        for box in rows["1_000.png"]["boxes"]
    ]
    # the list of boxes calls the label Infiltration "Infiltrate"
    assert boxes == [("Cardiomegaly", 0.25, 0.125, 0.75, 0.375), ("Infiltration", 0, 0, 1, 0.5)]
    assert (rows["1_000.png"]["view"], rows["1_000.png"]["subject_id"]) == ("PA", "1")
    # boxes are in 1024 x 1024, not in the size of the original, which the table names
    assert (rows["1_000.png"]["width"], rows["1_000.png"]["height"]) == (1024, 1024)
    assert np.array_equal(np.asarray(rows["3_000.png"]["image"])[..., 0], np.asarray(rows["1_000.png"]["image"]))
    assert report["splits"]["test"]["readings"] == 1
    assert report["tables"][nih.BOX_TABLE]["rows_kept"] == 2 and report["tables"][TABLE]["rows_kept"] == 4


def test_listed_patients_are_split_seven_to_one(tmp_path):
    lines = [nih_line(f"{patient}_{n}.png", "No Finding", str(patient)) for patient in range(40) for n in range(2)]
    listed = [f"{patient}_{n}.png" for patient in range(8) for n in range(2)]
    _, report = convert("nih", nih_tree(tmp_path / "raw", lines, test=listed), tmp_path / "out")
    expected = [hashed_split(str(patient), 0, 7 / 8, 1 / 8) for patient in range(8, 40)]
    assert "test" not in expected
    assert {split: counts["patients"] for split, counts in report["splits"].items()} == {
        "test": 8, "train": expected.count("train"), "validation": expected.count("validation")
    }  # fmt: skip


def test_without_lists_patients_are_split_by_a_hash(tmp_path):
    lines = [nih_line(f"{patient}_0.png", "No Finding", str(patient)) for patient in range(30)]
    _, report = convert("nih", nih_tree(tmp_path / "raw", lines), tmp_path / "out", seed=2)
    expected = [hashed_split(str(patient), 2, 0.7, 0.1) for patient in range(30)]
    assert {split: counts["readings"] for split, counts in report["splits"].items()} == {
        split: expected.count(split) for split in set(expected)
    }
    assert report["notes"]["no_lists_patients_split_by_hash"]["count"] == 1


def test_bad_rows_are_counted(tmp_path):
    lines = [
        *LINES,
        LINES[0],  # named twice
        nih_line("4_000.png", "", "4"),
        nih_line("4_001.png", "Cardiomegaly|Something", "4"),
        nih_line("4_002.png", "No Finding|Mass", "4"),
        nih_line("4_003.png", "Mass", ""),
        nih_line("lost.png", "Mass", "5"),
        nih_line("unlisted.png", "Mass", "6"),
        nih_line("linked.png", "Mass", "7"),
        nih_line("../1_000.png", "Mass", "8"),
        nih_line("broken.png", "Mass", "9"),
    ]
    boxes = [
        *BOXES,
        BOXES[0],
        "1_000.png,Cardiomegaly,1000,1000,100,100,,,",  # leaves the image
        "1_000.png,Cardiomegaly,1,1,0,9,,,",
        "1_000.png,Something,1,1,9,9,,,",
        "none.png,Mass,1,1,9,9,,,",
        "lost.png,Mass,1,1,9,9,,,",
        "2_000.png,Mass,1,1,9,9,,,",  # an image that is not labelled so
    ]
    source = nih_tree(tmp_path / "raw", lines[:-2], boxes, test=["2_000.png"])
    write_lines(source / TABLE, [NIH_HEADER, *lines], "\r\n")
    names = [line.split(",")[0] for line in lines if line.split(",")[0] not in ("unlisted.png", "2_000.png")]
    write_lines(source / "train_val_list.txt", names, "\r\n")
    for name in ("linked.png", "broken.png"):
        for path in source.rglob(name):
            path.unlink()
    (source / "images" / "linked.png").symlink_to(save_picture(tmp_path / "outside.png"))
    (source / "images" / "broken.png").write_bytes((source / "images" / "1_000.png").read_bytes()[:60])
    rows, report = convert("nih", source, tmp_path / "out")
    assert set(rows) == {"1_000.png", "1_001.png", "2_000.png", "3_000.png"}
    assert dropped(report, TABLE) == {
        "duplicate_image_id": 1, "no_label": 1, "label_not_understood": 1, "no_finding_beside_a_finding": 1,
        "patient_unknown": 1, "image_missing": 1, "in_neither_list": 1, "path_leaves_source": 2,
        "image_not_decodable": 1,
    }  # fmt: skip
    assert dropped(report, nih.BOX_TABLE) == {
        "duplicate_box": 1, "no_area_in_image": 1, "label_not_understood": 1,
        "image_without_entry": 1, "reading_dropped": 1,
    }  # fmt: skip
    assert report["tables"][nih.BOX_TABLE]["rows_in"] == len(boxes)
    assert report["notes"]["box_of_a_finding_that_is_not_named"]["first"] == ["2_000.png: Mass"]


def test_older_table_without_boxes(tmp_path):
    source = nih_tree(tmp_path / "raw", LINES[:1])
    (source / TABLE).rename(source / "Data_Entry_2017.csv")
    (source / nih.BOX_TABLE).unlink()
    rows, report = convert("nih", source, tmp_path / "out")
    assert rows["1_000.png"]["boxes"] == [] and report["notes"]["boxes_missing"]["count"] == 1


def test_bad_sources(tmp_path):
    with pytest.raises(UserError, match=r"no Data_Entry_2017_v2020\.csv or"):
        nih.plan(tmp_path, OPTIONS)
    source = nih_tree(tmp_path / "raw", LINES, test=["1_000.png"])
    with pytest.raises(UserError, match="patient 1 lies in both"):
        nih.plan(source, OPTIONS)
    write_lines(source / "train_val_list.txt", ["1_000.png"])
    with pytest.raises(UserError, match=r"1_000\.png is in train_val_list\.txt too"):
        nih.plan(source, OPTIONS)
    (source / "train_val_list.txt").unlink()
    with pytest.raises(UserError, match=r"has no train_val_list\.txt"):
        nih.plan(source, OPTIONS)
    (source / "test_list.txt").unlink()
    write_lines(source / TABLE, [NIH_HEADER.replace(",", ";")])
    with pytest.raises(UserError, match="looks separated by semicolons"):
        nih.plan(source, OPTIONS)
    write_lines(source / TABLE, [NIH_HEADER, "1_000.png,Mass"])
    with pytest.raises(UserError, match="row 1 has 2 cells; expected 12"):
        nih.plan(source, OPTIONS)


odd = ["", "a.png", "b.png", "../a.png", "x" * 300, "1", "-1", "nan", "inf", "1e308", "2000", "é", "Mass", "Mass|Edema"]
cells = st.sampled_from([*odd, "No Finding", "No Finding|Mass", "|", "Infiltrate"])


@given(
    st.lists(st.lists(cells, min_size=12, max_size=12), max_size=5), st.lists(st.lists(cells, min_size=9, max_size=9))
)
def test_any_tables_add_up(tmp_path_factory, entries, boxes):
    source = tmp_path_factory.mktemp("nih")
    for name, header, rows in ((TABLE, NIH_HEADER, entries), (nih.BOX_TABLE, NIH_BOX_HEADER, boxes)):
        buffer = io.StringIO()
        csv.writer(buffer).writerows([header.split(","), *rows])
        (source / name).write_text(buffer.getvalue())
    save_picture(source / "images" / "a.png")
    try:
        plan = nih.plan(source, OPTIONS)
    except UserError:
        return
    ledger = Ledger()
    ledger.merge(plan.shared)
    for outcome in (outcome for unit in plan.units for outcome in plan.convert(unit)):
        ledger.merge(outcome.ledger)
        for box in outcome.reading[1]["boxes"] if outcome.reading else []:
            assert 0 <= box["x_min"] < box["x_max"] <= 1 and 0 <= box["y_min"] < box["y_max"] <= 1
    ledger.check()
    for name, rows in ((TABLE, entries), (nih.BOX_TABLE, boxes)):
        assert name not in ledger.tables or ledger.tables[name].rows_in == len(rows)
    assert len(boxes) == 0 or nih.BOX_TABLE in ledger.tables
