"""MIMIC-CXR pairs, and the sections of its reports."""

import gzip

import pytest

from dataset_scripts.corpora.mimic_cxr import plan
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert


@pytest.fixture
def tree(tmp_path):
    return raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")


def edit(path, old, new):
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


def test_rows(tree, tmp_path):
    readings, report = convert("mimic_cxr", tree, tmp_path / "out")
    assert set(readings) == {raw.REFLACX_IMAGE, raw.EGD_IMAGE}
    row = readings[raw.EGD_IMAGE]
    assert (row["study_id"], row["subject_id"], row["view"]) == (raw.STUDY, "10000001", "PA")
    assert row["source"] == "mimic_cxr"
    assert (row["width"], row["height"], row["fixations"], row["boxes"]) == (raw.WIDTH, raw.HEIGHT, None, [])
    texts = [sentence["text"] for sentence in row["sentences"]]
    assert texts == ["The lungs are clear.", "Heart size is normal at 2.5 units.", "No acute process."]
    found = {finding["name"]: finding["value"] for finding in row["findings"]}
    assert found == {"Atelectasis": 1, "Edema": -1, "Pleural Effusion": 0}
    assert list(report["splits"]) == ["validation"]
    dropped = report["tables"]["mimic-cxr-chexpert.csv"]["dropped"]["repeated_or_not_in_metadata"]
    assert dropped["first"] == [f"row 2 {int(raw.STUDY) + 1}"]


def test_images_may_lie_elsewhere(tree, tmp_path):
    reports = tmp_path / "reports"
    report = f"files/p10/p10000001/s{raw.STUDY}.txt"
    (reports / report).parent.mkdir(parents=True)
    (tree / report).rename(reports / report)
    readings, _ = convert("mimic_cxr", reports, tmp_path / "out", images=tree)
    assert len(readings) == 2


def test_unpacked_tables_of_a_later_version(tree, tmp_path):
    for path in tree.glob("*.csv.gz"):
        name = path.name.replace("2.0.0", "2.1.0").removesuffix(".gz")
        (tree / name).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(convert("mimic_cxr", tree, tmp_path / "out")[0]) == 2


def test_row_without_image_report_split_or_id_is_dropped(tree, tmp_path):
    edit(tree / "mimic-cxr-2.0.0-split.csv.gz", raw.REFLACX_IMAGE, "elsewhere")
    text = gzip.decompress((tree / "mimic-cxr-2.0.0-metadata.csv.gz").read_bytes()).decode()
    last = text.splitlines()[-1]
    more = [
        last,  # twice
        last.replace(raw.EGD_IMAGE, "no-report").replace(raw.STUDY, "50000009"),
        last.replace("10000001", "?"),
    ]
    raw.write_packed(tree / "mimic-cxr-2.0.0-metadata.csv.gz", [*text.splitlines(), *more])
    readings, report = convert("mimic_cxr", tree, tmp_path / "out")
    assert set(readings) == {raw.EGD_IMAGE}
    reasons = {reason: found["count"] for reason, found in report["readings"]["dropped"].items()}
    assert reasons == {
        "split_unknown": 1,
        "duplicate_image_id": 1,
        "report_missing": 1,
        "patient_or_study_unknown": 1,
    }


@pytest.mark.parametrize(
    ("lost", "reason"), [(f"{raw.STUDY}/{raw.EGD_IMAGE}.jpg", "image_missing"), ("text", "report_without_text")]
)
def test_row_without_its_file(tree, tmp_path, lost, reason):
    folder = tree / "files" / "p10" / "p10000001"
    if lost == "text":
        second = "50000005"
        row = f"{raw.EGD_IMAGE},10000001,"
        edit(tree / "mimic-cxr-2.0.0-metadata.csv.gz", f"{row}{raw.STUDY}", f"{row}{second}")
        (folder / f"s{second}.txt").write_text(" FINAL REPORT\n\n ___\n")
    else:
        (folder / f"s{lost}").unlink()
    _, report = convert("mimic_cxr", tree, tmp_path / "out")
    assert report["readings"]["dropped"][reason]["count"] == 1


def test_patient_in_two_splits_is_refused(tree, tmp_path):
    edit(tree / "mimic-cxr-2.0.0-split.csv.gz", "validate", "test")
    with pytest.raises(UserError, match="10000001 lies in both"):
        convert("mimic_cxr", tree, tmp_path / "out")


def test_without_split_and_chexpert_tables(tree, tmp_path):
    (tree / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    (tree / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    readings, report = convert("mimic_cxr", tree, tmp_path / "out")
    assert all(row["findings"] == [] for row in readings.values()) and len(report["splits"]) == 1
    assert report["notes"]["patient_split_by_hash"]["count"] == 2


def test_units_are_made_when_asked_for(tree):
    units = plan(tree, Options(image_size=64, seed=0, generated=False)).units
    assert len(units) == 2 and len(list(units)) == 2 and units[-1] == units[1:][0]
    with pytest.raises(IndexError):
        units[2]


@pytest.mark.parametrize(
    "content", [b"", b"dicom_id\n", b"not gzip at all", gzip.compress(b"dicom_id;x\n1;2\n", mtime=0)]
)
def test_metadata_that_is_no_table(tree, tmp_path, content):
    (tree / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"mimic-cxr-2\.0\.0-metadata"):
        convert("mimic_cxr", tree, tmp_path / "out")
