"""Writes the pictures, reports and tables of generated patients as a MIMIC-CXR-JPG tree."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.phantom.labels import CHEXPERT_LABELS, chexpert_values
from dataset_scripts.phantom.session import Patient, Pictures, Radiograph, Study
from dataset_scripts.phantom.sheets import Sheet, Tables, add_rows

METADATA_COLUMNS = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
LABEL_COLUMNS = ("subject_id", "study_id", *CHEXPERT_LABELS)
PATIENT_COLUMNS = ("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod")  # of MIMIC-IV
SHEETS = tuple(
    Sheet(f"mimic-cxr-2.0.0-{name}.csv.gz", name, columns)
    for name, columns in (
        ("metadata", METADATA_COLUMNS),
        ("split", SPLIT_COLUMNS),
        ("chexpert", LABEL_COLUMNS),
        ("negbio", LABEL_COLUMNS),
    )
)
SHEETS += (Sheet("patients.csv.gz", "patients", PATIENT_COLUMNS),)


def write_patient(patient: Patient, pictures: Pictures, root: Path, raw_samples: bool) -> Tables:
    """Write `files/pNN/pNNNNNNNN` and return the lines of the tables; there are no raw samples here."""
    tables: Tables = {}
    add_rows(tables, "patients", [patient_row(patient)])
    for study in patient.studies:
        folder = root / "files" / study_path(patient, study)
        folder.mkdir(parents=True)
        folder.with_suffix(".txt").write_text(report_text(study), encoding="utf-8", newline="")
        for name in ("chexpert", "negbio"):
            add_rows(tables, name, [label_row(patient, study)])
        for radiograph in study.radiographs:
            (folder / f"{radiograph.image_id}.jpg").write_bytes(pictures[radiograph.image_id])
            add_rows(tables, "metadata", [metadata_row(patient, study, radiograph)])
            add_rows(tables, "split", [split_row(patient, study, radiograph)])
    return tables


def study_path(patient: Patient, study: Study) -> str:
    """pNN/pNNNNNNNN/sNNNNNNNN."""
    return f"p{str(patient.subject_id)[:2]}/p{patient.subject_id}/s{study.study_id}"


def metadata_row(patient: Patient, study: Study, radiograph: Radiograph) -> Sequence[object]:
    """The cells of METADATA_COLUMNS."""
    pose = radiograph.pose
    return (
        *(radiograph.image_id, patient.subject_id, study.study_id, "CHEST (PA AND LAT)", "PA", pose.height, pose.width),
        *(study.date, study.time, "CHEST (PA AND LAT)", "postero-anterior", "Erect"),
    )


def patient_row(patient: Patient) -> Sequence[object]:
    """The cells of PATIENT_COLUMNS."""
    return patient.subject_id, patient.sex, patient.age_years, patient.studies[0].date[:4], "2014 - 2016", ""


def split_row(patient: Patient, study: Study, radiograph: Radiograph) -> Sequence[object]:
    """The cells of SPLIT_COLUMNS."""
    return radiograph.image_id, study.study_id, patient.subject_id, patient.split


def label_row(patient: Patient, study: Study) -> Sequence[object]:
    """The cells of LABEL_COLUMNS."""
    return patient.subject_id, study.study_id, *chexpert_values(study.findings)


def report_text(study: Study) -> str:
    """The written report: every line begins with one blank and is at most 79 characters long."""
    sections = {
        "EXAMINATION": "CHEST RADIOGRAPH",
        "INDICATION": " ".join(study.indication.split()),
        "FINDINGS": " ".join(study.findings_text),
        "IMPRESSION": " ".join(study.impression_text),
    }
    lines = [" " * 33 + "FINAL REPORT"]
    for name, text in sections.items():
        lines += [*textwrap.wrap(f"{name}: {text}", width=79, initial_indent=" ", subsequent_indent=" "), " "]
    return "\n".join(lines) + "\n"
