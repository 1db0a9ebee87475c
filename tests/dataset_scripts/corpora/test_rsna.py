"""RSNA pneumonia: one reading a patient."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora import rsna
from dataset_scripts.corpora.splits import hashed_split
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.evaluation_trees import RSNA_HEADER, RSNA_LABELS, rsna_tree, save_dicom, save_picture
from tests.dataset_scripts.raw_trees import write_lines


def values(row):
    return {finding["name"]: finding["value"] for finding in row["findings"]}


def dropped(report, table):
    return {reason: found["count"] for reason, found in report["tables"][table]["dropped"].items()}


def test_boxes_and_classes(tmp_path):
    rows, report = convert("rsna", rsna_tree(tmp_path / "raw"), tmp_path / "out")
    assert set(rows) == {"two-boxes", "normal", "not-normal"}
    assert values(rows["two-boxes"]) == {
        "Pneumonia": 1, "Lung Opacity": 1, "No Lung Opacity / Not Normal": 0, "Normal": 0
    }  # fmt: skip
    assert values(rows["not-normal"])["Normal"] == values(rows["not-normal"])["Pneumonia"] == 0
    assert values(rows["normal"])["Normal"] == 1
    corners = [tuple(box[name] for name in ("x_min", "y_min", "x_max", "y_max")) for box in rows["two-boxes"]["boxes"]]
    assert corners == [(0.25, 0.125, 0.375, 0.375), (0.5, 0.5, 0.75, 0.625)]
    assert {box["label"] for box in rows["two-boxes"]["boxes"]} == {"Pneumonia"}
    assert rows["normal"]["boxes"] == [] and rows["normal"]["subject_id"] == "normal"
    # the boxes are in the release's pixels, whatever the size of the copy
    assert (rows["two-boxes"]["width"], rows["two-boxes"]["height"]) == (1024, 1024)
    assert report["notes"]["image_size_differs_from_table"]["count"] == 3
    assert report["tables"][rsna.LABELS_TABLE]["rows_kept"] == 4
    assert report["tables"][rsna.CLASSES_TABLE]["rows_kept"] == 4
    assert report["readings"]["rows_in"] == 3


def test_bad_rows_are_counted(tmp_path):
    labels = [
        *RSNA_LABELS,
        "two-boxes,256.0,128.0,128.0,256.0,1",  # named twice
        "two-boxes,1000,1000,100,100,1",  # leaves the image
        "two-boxes,1024,0,10,10,1",  # beside the image
        "two-boxes,10,10,0,10,1",  # no width
        "two-boxes,10,10,nan,10,1",
        "two-boxes,10,10,20,20,maybe",
        *("both,,,,,0", "both,1,1,9,9,1"),
        *("negative,,,,,0", "negative,,,,,0", "negative,1,1,9,9,0"),
        "lost,1,1,9,9,1",
        "unclear,,,,,",
        ",,,,,0",
    ]
    classes = ["two-boxes,Lung Opacity", "normal,Lung Opacity", "negative,Normal", "negative,Lung Opacity", "x,Normal"]
    source = rsna_tree(tmp_path / "raw", labels, [*classes, "not-normal,Odd"])
    rows, report = convert("rsna", source, tmp_path / "out")
    assert set(rows) == {"two-boxes", "normal", "not-normal", "negative"}
    assert len(rows["two-boxes"]["boxes"]) == 3 and rows["two-boxes"]["boxes"][2]["x_max"] == 1
    assert values(rows["negative"]) == {"Pneumonia": 0}
    assert dropped(report, rsna.PATIENTS) == {
        "rows_disagree_in_target": 1, "image_missing": 1, "no_target": 1, "no_patient_id": 1
    }  # fmt: skip
    assert dropped(report, rsna.LABELS_TABLE) == {
        "duplicate_box": 1, "no_area_in_image": 3, "target_is_neither_0_nor_1": 1,
        "reading_dropped": 5, "duplicate_row": 1, "box_of_a_negative": 1,
    }  # fmt: skip
    assert report["tables"][rsna.LABELS_TABLE]["rows_in"] == len(labels)
    assert dropped(report, rsna.CLASSES_TABLE) == {
        "rows_disagree_in_class": 2, "patient_without_label": 1, "class_unknown": 1
    }  # fmt: skip
    notes = {name: found["count"] for name, found in report["notes"].items()}
    assert notes["box_clipped_to_the_image"] == notes["detailed_class_contradicts_target"] == 1
    assert notes["no_detailed_class"] == 2


def test_dicom_and_the_table_of_classes_is_optional(tmp_path):
    pytest.importorskip("pydicom")
    source = rsna_tree(tmp_path / "raw", ["lost-1,1,1,9,9,1"])
    (source / rsna.CLASSES_TABLE).unlink()
    save_dicom(source / "stage_2_train_images" / "lost-1.dcm", "lost-1")
    rows, report = convert("rsna", source, tmp_path / "out")
    assert values(rows["lost-1"]) == {"Pneumonia": 1} and report["notes"]["detailed_classes_missing"]["count"] == 1


def test_patients_are_split_70_15_15_by_the_seed(tmp_path):
    source = rsna_tree(tmp_path / "raw", [f"p{n},,,,,0" for n in range(40)], [])
    _, report = convert("rsna", source, tmp_path / "out", seed=3)
    expected = [hashed_split(f"p{n}", 3, 0.7, 0.15) for n in range(40)]
    assert {name: counts["patients"] for name, counts in report["splits"].items()} == {
        name: expected.count(name) for name in set(expected)
    }


def test_ids_and_links_do_not_lead_out_of_the_source(tmp_path):
    outside = save_picture(tmp_path / "outside.png")
    source = rsna_tree(tmp_path / "raw", ["normal,,,,,0", "lost,,,,,0"], [])
    (source / "stage_2_train_images" / "lost.png").symlink_to(outside)
    write_lines(source / rsna.LABELS_TABLE, [RSNA_HEADER, "normal,,,,,0", "lost,,,,,0", "../../outside,,,,,0"])
    rows, report = convert("rsna", source, tmp_path / "out")
    assert set(rows) == {"normal"} and dropped(report, rsna.PATIENTS) == {"path_leaves_source": 2}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "stage_2_train_labels.csv: no such file"),
        ([RSNA_HEADER], "the table has no row"),
        ([RSNA_HEADER.replace(",", ";"), "a;;;;;0"], "looks separated by semicolons"),
        (["patientId,x,y,width,height", "a,,,,"], "Target missing"),
    ],
)
def test_bad_tables(tmp_path, lines, message):
    if lines is not None:
        write_lines(tmp_path / rsna.LABELS_TABLE, lines)
    with pytest.raises(UserError, match=message):
        rsna.plan(tmp_path, Options(image_size=64, seed=0, generated=False))


cells = st.sampled_from(
    ["", "0", "1", "1.0", "-1", "nan", "inf", "1e400", "64", "1024", "2000", "x", "1,5", "../a", "é"]
)
tables = st.lists(st.tuples(st.sampled_from(["a", "b", "", "../a", "x" * 300]), *[cells] * 5), max_size=8)


@given(tables, st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from([*rsna.CLASSES, "", "x"]))))
def test_any_table_adds_up(tmp_path_factory, labels, classes):
    source = tmp_path_factory.mktemp("rsna")
    for name, header, rows in (
        (rsna.LABELS_TABLE, RSNA_HEADER.split(","), labels),
        (rsna.CLASSES_TABLE, ["patientId", "class"], classes),
    ):
        buffer = io.StringIO()
        csv.writer(buffer).writerows([header, *rows])
        (source / name).write_text(buffer.getvalue())
    save_picture(source / "stage_2_train_images" / "a.png")
    options = Options(image_size=64, seed=0, generated=False)
    try:
        plan = rsna.plan(source, options)
    except UserError:
        return
    ledger = Ledger()
    ledger.merge(plan.shared)
    for outcome in (outcome for unit in plan.units for outcome in plan.convert(unit)):
        ledger.merge(outcome.ledger)
        for box in outcome.reading[1]["boxes"] if outcome.reading else []:
            assert 0 <= box["x_min"] < box["x_max"] <= 1 and 0 <= box["y_min"] < box["y_max"] <= 1
    ledger.check()
    assert ledger.tables[rsna.LABELS_TABLE].rows_in == len(labels)
