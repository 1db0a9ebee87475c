"""EGD as released: its quirks, one test each, with a MIMIC-CXR-JPG tree beside it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora.egd_fixations import REDUCED_TABLE, KnownIds, read_fixations
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert

SAMPLE_HEADER = "SESSION_ID,DICOM_ID,Time (in secs),FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV,X_ORIGINAL,Y_ORIGINAL"


@pytest.fixture
def tree(tmp_path):
    return raw.egd_tree(tmp_path / "egd-cxr")


@pytest.fixture
def images(tmp_path):
    return raw.mimic_cxr_tree(tmp_path / "mimic-cxr-jpg")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_row_of_the_release(tree, images, tmp_path):
    readings, report = convert("egd", tree, tmp_path / "out", images=images)
    row = readings[raw.EGD_IMAGE]
    assert (row["image_id"], row["study_id"], row["subject_id"]) == (raw.EGD_IMAGE, raw.STUDY, "10000001")
    assert (row["view"], row["source"], row["width"], row["height"]) == ("PA", "egd", raw.WIDTH, raw.HEIGHT)
    assert row["fixations"]["x"] == [0.25, 0.75] and row["fixations"]["start"] == [0.25, 2.0]
    assert row["sentences"][0]["text"] == "The heart is enlarged."
    assert list(report["splits"]) == ["validation"]
    assert report["readings"]["rows_in"] == 1
    assert report["notes"]["image_size_differs_from_table"]["count"] == 1


def test_images_are_needed(tree, tmp_path):
    with pytest.raises(UserError, match="--images"):
        convert("egd", tree, tmp_path / "out")


@pytest.mark.parametrize("root", ["", "files"])
def test_images_root_may_be_files_itself(tree, images, tmp_path, root):
    readings, report = convert("egd", tree, tmp_path / "out", images=images / root)
    assert readings[raw.EGD_IMAGE]["width"] == raw.WIDTH and "frame_size_from_the_picture" not in report["notes"]


def test_images_may_be_dicom(tree, images, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    picture = next(images.rglob(f"{raw.EGD_IMAGE}.jpg"))
    header = pydicom.Dataset()
    header.Rows, header.Columns, header.SamplesPerPixel = raw.HEIGHT, raw.WIDTH, 1
    header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = (np.arange(raw.HEIGHT * raw.WIDTH, dtype=np.uint16) % 4096).tobytes()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["invented"])
    header.save_as(picture.with_suffix(".dcm"), enforce_file_format=True)
    picture.unlink()
    readings, report = convert("egd", tree, tmp_path / "out", images=images)
    assert readings[raw.EGD_IMAGE]["image"].size == (32, 64)
    assert "image_size_differs_from_table" not in report["notes"]


def test_folder_that_is_no_mimic_cxr_tree(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="p10 to p19"):
        convert("egd", tree, tmp_path / "out", images=tmp_path / "empty")


def test_without_tables_the_pictures_size_counts_and_the_split_is_hashed(tree, images, tmp_path):
    for path in images.glob("*.csv.gz"):
        path.unlink()
    readings, report = convert("egd", tree, tmp_path / "out", images=images)
    row = readings[raw.EGD_IMAGE]
    assert (row["width"], row["height"], row["view"]) == (raw.WIDTH // 2, raw.HEIGHT // 2, None)
    assert row["fixations"]["x"] == [0.5]  # x = 150 lies beyond a picture of 100 pixels
    assert report["notes"]["frame_size_from_the_picture"]["count"] == 1
    assert report["notes"]["patient_split_by_hash"]["count"] == 1


def test_upper_case_ids_match(tree, images, tmp_path):
    edit(tree / "fixations.csv", raw.EGD_IMAGE, raw.EGD_IMAGE.upper())
    readings, _ = convert("egd", tree, tmp_path / "out", images=images)
    assert len(readings[raw.EGD_IMAGE]["fixations"]["x"]) == 2


def test_truncated_id_of_one_image_and_of_several(tree, images, tmp_path):
    twin = f"{raw.EGD_IMAGE[:-5]}-0000"
    master = (tree / "master_sheet.csv").read_text()
    row = master.partition("\n")[2].replace(raw.EGD_IMAGE, twin)
    (tree / "master_sheet.csv").write_text(master + row)
    fixations = tree / "fixations.csv"
    strays = "".join(f"{stray},1,0.75,1.5,0.5,0.25,0.5,2,1,50,100\n" for stray in (twin[:-2], "x" * 60))
    fixations.write_text(fixations.read_text() + strays)
    _, report = convert("egd", tree, tmp_path / "out", images=images)
    dropped = report["tables"]["EyeGaze/fixations.csv"]["dropped"]
    assert dropped["ambiguous_truncated_id"]["first"] == [raw.CALIBRATION_ID]
    assert dropped["truncated_id"]["first"] == [twin[:-2]]
    assert dropped["id_not_in_master_sheet"]["first"] == ["x" * 60]


def test_bounding_boxes_of_stray_ids_are_dropped(tree, images, tmp_path):
    boxes = tree / "bounding_boxes.csv"
    boxes.write_text(boxes.read_text() + f"{raw.REFLACX_IMAGE},left lung,1,2,1,2\n")
    _, report = convert("egd", tree, tmp_path / "out", images=images)
    dropped = report["tables"]["EyeGaze/bounding_boxes.csv"]["dropped"]
    assert dropped["id_not_in_master_sheet"]["first"] == [raw.REFLACX_IMAGE]


def test_study_is_taken_from_the_path_where_its_column_is_blank(tree, images, tmp_path):
    edit(tree / "master_sheet.csv", f",{raw.STUDY},10000001,", ",,,")
    readings, _ = convert("egd", tree, tmp_path / "out", images=images)
    assert readings[raw.EGD_IMAGE]["study_id"] == raw.STUDY


def test_missing_picture_drops_the_reading_with_its_rows(tree, images, tmp_path):
    master = (tree / "master_sheet.csv").read_text()
    gone = raw.EGD_IMAGE.replace("b", "c")
    (tree / "master_sheet.csv").write_text(master + master.partition("\n")[2].replace(raw.EGD_IMAGE, gone))
    boxes = tree / "bounding_boxes.csv"
    boxes.write_text(boxes.read_text() + f"{gone},left lung,1,2,1,2\n")
    _, report = convert("egd", tree, tmp_path / "out", images=images)
    assert report["readings"]["dropped"]["image_missing"]["count"] == 1
    assert report["tables"]["EyeGaze/bounding_boxes.csv"]["dropped"]["reading_dropped"]["count"] == 1


def test_output_does_not_depend_on_the_number_of_processes(tree, images, tmp_path):
    for num_proc in (1, 2):
        convert("egd", tree, tmp_path / str(num_proc), images=images, num_proc=num_proc)
    one, two = ({p.name: p.read_bytes() for p in sorted((tmp_path / n).rglob("*.*"))} for n in "12")
    assert one == two


def test_missing_table_is_said_in_one_sentence(tree, images, tmp_path):
    (tree / "fixations.csv").unlink()
    with pytest.raises(UserError, match=r"neither fixations.csv nor eye_gaze.csv"):
        convert("egd", tree, tmp_path / "out", images=images)


# --- fixations made of samples ---


def sample_line(image_id: str, fixation: int, start: float, duration: float, valid: int, x: int, y: int) -> str:
    return f"1,{image_id},{start + duration},0.1,0.1,{start},{duration},{fixation},{valid},{x},{y}"


def test_samples_stand_in_for_missing_fixations(tree, images, tmp_path):
    (tree / "fixations.csv").unlink()
    lines = [
        sample_line(raw.EGD_IMAGE, 2, 0.25, 0.25, 1, 48, 98),
        sample_line(raw.EGD_IMAGE, 2, 0.25, 0.5, 1, 50, 100),  # the last one of fixation 2
        sample_line(raw.EGD_IMAGE, 2, 0.25, 0.75, 0, 60, 120),  # not valid: on its way
        sample_line(raw.EGD_IMAGE, 3, 1.5, 0.5, 1, -2, -2),  # outside the image
        sample_line(raw.EGD_IMAGE, 4, 2.0, 0.5, 1, 150, 300),
        sample_line(raw.CALIBRATION_ID, 2, 2.0, 0.5, 1, 150, 300),
        f"1,{raw.EGD_IMAGE},1,1,1,,,5,1,,",
    ]
    raw.write_lines(tree / "eye_gaze.csv", [SAMPLE_HEADER, *lines])
    readings, report = convert("egd", tree, tmp_path / "out", images=images)
    fixations = readings[raw.EGD_IMAGE]["fixations"]
    assert (fixations["x"], fixations["y"]) == ([0.25, 0.75], [0.25, 0.75])
    assert (fixations["start"], fixations["duration"]) == ([0.25, 2.0], [0.5, 0.5])
    tally = report["tables"]["EyeGaze/eye_gaze.csv"]
    assert (tally["rows_in"], tally["rows_kept"]) == (7, 4)
    assert {reason: found["count"] for reason, found in tally["dropped"].items()} == {
        "not_valid_by_fpogv": 1,
        "not_a_number": 1,
        "truncated_id": 1,
    }
    assert report["tables"][REDUCED_TABLE]["rows_in"] == 3
    assert report["notes"]["fixations_made_of_samples"]["count"] == 1


samples = st.lists(
    st.tuples(
        st.sampled_from(["image-a", "IMAGE-A", "image-b", "elsewhere"]),
        st.integers(1, 4),
        st.sampled_from([0.0, 0.5]),
        st.sampled_from([0.1, 0.2, 0.3]),
        st.integers(0, 1),
        st.integers(-3, 9),
        st.integers(-3, 9),
    ),
    max_size=30,
    unique_by=lambda row: (row[0].lower(), row[1], row[2], row[3]),
)


@given(samples)
def test_samples_are_reduced_as_a_plain_loop_would(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("samples")
    raw.write_lines(folder / "eye_gaze.csv", [SAMPLE_HEADER, *(sample_line(*row) for row in rows)])
    ledger = Ledger()
    found = read_fixations(folder, KnownIds({"image-a", "image-b"}), ledger).rows
    longest: dict[str, dict[tuple[float, int], tuple[float, int, int]]] = {}
    for image_id, fixation, start, duration, valid, x, y in rows:
        if image_id != "elsewhere":
            best = longest.setdefault(image_id.lower(), {})
            if valid and best.get((start, fixation), (0,))[0] < duration:
                best[start, fixation] = (duration, x, y)
    ledger.check()
    assert found.keys() == longest.keys()
    for image_id, best in longest.items():
        expected = [[key[0], *best[key]] for key in sorted(best)]
        np.testing.assert_array_equal(found[image_id], np.array(expected, dtype=np.float64).reshape(-1, 4))
