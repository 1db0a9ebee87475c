"""Sex and age: where each corpus says them, and what they become."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora.mimic_tree import image_row
from dataset_scripts.corpora.rows import Origin, schema_row
from dataset_scripts.images.dicom import Person
from dataset_scripts.images.pictures import EncodedImage
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import Recording
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.corpora.test_chexpert import HEADER, image_path, line, write_images
from tests.dataset_scripts.evaluation_trees import (
    MS_CXR_HEADER,
    RSNA_LABELS,
    ms_cxr_line,
    nih_line,
    nih_tree,
    rsna_tree,
    save_dicom,
)
from tests.dataset_scripts.raw_trees import (
    EGD_IMAGE,
    egd_tree,
    grey_picture,
    image_text_folder,
    mimic_cxr_tree,
    mimic_eye_tree,
    reflacx_tree,
    write_lines,
    write_packed,
)

PATIENTS = ["subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod", "10000001,M,63,2096,2014 - 2016,"]


def read(sex: str, age: str) -> tuple[str | None, float | None, set[str]]:
    ledger = Ledger()
    origin = Origin("test", False, "image", person=Person(sex, age))
    row = schema_row(origin, EncodedImage(b"", 1, 1), Recording([], None, [], []), ledger)
    return row["sex"], row["age_years"], set(ledger.notes)


@pytest.mark.parametrize(("given", "sex"), [("F", "F"), ("m", "M"), ("Female", "F"), ("MALE", "M"), ("", None)])
def test_sex_as_it_is_written(given: str, sex: str | None) -> None:
    assert read(given, "") == (sex, None, set())


@pytest.mark.parametrize(
    ("given", "years"),
    [
        ("63", 63),
        ("63.0", 63),
        ("063Y", 63),
        ("089Y", 89),
        ("006M", 0.5),
        ("002w", 14 / 365.25),
        ("120", 120),
        ("", None),
    ],
)
def test_age_as_it_is_written(given: str, years: float) -> None:
    assert read("", given) == (None, pytest.approx(years), set())
    assert read("", "") == (None, None, set())


@pytest.mark.parametrize("given", ["0", "0.0", "000Y", "150", "411", "-3", "20 - 30", "nan", "inf", "old", "Y", "1_0"])
def test_what_is_nobodys_age_is_null_and_noted(given: str) -> None:
    assert read("", given) == (None, None, {"age_not_possible"})


def test_another_sex_is_null_and_noted() -> None:
    assert read("Unknown", "60") == (None, 60, {"sex_not_understood"})


@given(st.text(max_size=8), st.text(max_size=8))
def test_any_text_is_an_age_or_null(sex: str, age: str) -> None:
    found_sex, years, notes = read(sex, age)
    assert found_sex in ("F", "M", None) and (years is None or 0 < years <= 120)
    assert ("age_not_possible" in notes) == (years is None and age != "")


@pytest.mark.parametrize(
    ("anchor_age", "anchor_year", "date", "age"),
    [
        ("63", "2096", "21010101", "68"),
        ("63", "2096", "2095-12-31", "62"),
        ("0", "2096", "21010101", "0"),  # unknown, and not five years old
        ("63", "", "21010101", ""),
        ("63", "2096", "", ""),
    ],
)
def test_age_at_the_study(anchor_age: str, anchor_year: str, date: str, age: str) -> None:
    row = {"study_id": "1", "ViewPosition": "PA", "Rows": "9", "Columns": "9", "gender": "F", "StudyDate": date}
    assert image_row(row | {"anchor_age": anchor_age, "anchor_year": anchor_year}).person == ("F", age, "")


def of(rows: Any) -> set[tuple[Any, Any]]:
    return {(row["sex"], row["age_years"]) for row in rows.values()}


@pytest.mark.parametrize("name", ["patients.csv.gz", "hosp/patients.csv"])
def test_corpora_of_mimic_cxr_read_mimic_ivs_patients(tmp_path: Path, name: str) -> None:
    images = mimic_cxr_tree(tmp_path / "cxr")
    (write_packed if name.endswith(".gz") else write_lines)(images / name, PATIENTS)
    egd, reflacx = egd_tree(tmp_path / "egd_raw"), reflacx_tree(tmp_path / "reflacx_raw")
    assert of(convert("mimic_cxr", images, tmp_path / "a")[0]) == {("M", 68)}
    assert of(convert("reflacx", reflacx, tmp_path / "b", images=images)[0]) == {("M", 68)}
    # its own sheet says the sex
    assert of(convert("egd", egd, tmp_path / "c", images=images)[0]) == {("F", 68)}
    lines = [MS_CXR_HEADER, ms_cxr_line(EGD_IMAGE, "Edema", "x", "1,1,50,50")]
    write_lines(tmp_path / "ms" / "MS_CXR_Local_Alignment_v1.1.0.csv", lines)
    (row,) = convert("ms_cxr", tmp_path / "ms", tmp_path / "d", images=images)[0].values()
    assert (row["sex"], row["age_years"], row["view"]) == ("M", 68, "PA")


def test_without_that_table_there_are_nulls(tmp_path: Path) -> None:
    images = mimic_cxr_tree(tmp_path / "cxr")
    assert of(convert("mimic_cxr", images, tmp_path / "a")[0]) == {(None, None)}
    rows = convert("reflacx", reflacx_tree(tmp_path / "raw"), tmp_path / "b", images=images)[0]
    assert of(rows) == {(None, None)}


def test_mimic_eye_has_the_table_in_every_patients_folder(tmp_path: Path) -> None:
    source = mimic_eye_tree(tmp_path / "raw")
    patient = source / "patient_10000001"
    write_lines(patient / "Hosp" / "patients.csv", [f",{PATIENTS[0]}", f"0,{PATIENTS[1]}"])
    table = patient / "CXR-JPG" / "cxr_meta.csv"
    head, *rows = table.read_text().splitlines()
    write_lines(table, [f"{head},StudyDate", *(f"{row},21010506" for row in rows)])
    assert of(convert("mimic_eye", source, tmp_path / "out")[0]) == {("M", 68)}


def test_tables_of_labels(tmp_path: Path) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    lines = [line(image_path(1), Edema="1.0"), line(image_path(2), sex="Unknown", Edema="0.0")]
    write_lines(root / "train.csv", [",".join(HEADER), *lines])
    write_images(root, [image_path(1), image_path(2)])
    rows, report = convert("chexpert", root, tmp_path / "a")
    assert of(rows) == {("F", 60), (None, 60)} and report["notes"]["sex_not_understood"]["count"] == 1
    entries = [nih_line("1_0.png", "Mass", "1"), nih_line("2_0.png", "Mass", "2").replace(",60,", ",411,")]
    nih = nih_tree(tmp_path / "nih", entries)
    rows, report = convert("nih", nih, tmp_path / "b")
    assert of(rows) == {("F", 60), ("F", None)} and report["notes"]["age_not_possible"]["first"] == ["2_0.png: '411'"]
    table = nih / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Patient Age,Patient Gender", "a,b"))
    assert of(convert("nih", nih, tmp_path / "c")[0]) == {(None, None)}
    folder = tmp_path / "text"
    folder.mkdir()
    image_text_folder(folder, ["file_name,text,sex,age", "a.png,Clear lungs.,M,54.0"])
    assert of(convert("image_text", folder, tmp_path / "d")[0]) == {("M", 54)}
    lab = tmp_path / "lab"
    lab.mkdir()
    grey_picture(40, 30).save(lab / "a.png")
    write_lines(lab / "said.txt", ["The heart is large."])
    write_lines(lab / "readings.csv", ["reading_id,image,gaze,transcript,sex,age", "r1,a.png,,said.txt,female,007M"])
    assert of(convert("tracker", lab, tmp_path / "e")[0]) == {("F", 7 / 12)}


def test_headers_of_dicom_files(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    source = rsna_tree(tmp_path / "raw", RSNA_LABELS[2:])
    for path in source.glob("stage_2_train_images/*.png"):
        path.unlink()
    for name, sex, age in (("normal", "F", "51"), ("not-normal", "O", "150")):
        path = save_dicom(source / "stage_2_train_images" / f"{name}.dcm", name)
        header = pydicom.dcmread(path)
        header.PatientSex, header.PatientAge = sex, age
        header.save_as(path, enforce_file_format=True)
    rows, report = convert("rsna", source, tmp_path / "out")
    assert {name: (row["sex"], row["age_years"]) for name, row in rows.items()} == {
        "normal": ("F", 51),
        "not-normal": (None, None),
    }
    assert {"sex_not_understood", "age_not_possible"} <= set(report["notes"])
    write_lines(tmp_path / "siim" / "train-rle.csv", ["ImageId, EncodedPixels", "normal, -1"])
    (tmp_path / "siim" / "a.dcm").write_bytes((source / "stage_2_train_images" / "normal.dcm").read_bytes())
    (tmp_path / "siim" / "a.dcm").rename(tmp_path / "siim" / "normal.dcm")
    (row,) = convert("siim_acr", tmp_path / "siim", tmp_path / "b")[0].values()
    assert (row["sex"], row["age_years"], row["subject_id"]) == ("F", 51, "normal")
