"""Writes generated patients as a MIMIC-EYE tree: tables rewritten by pandas, REFLACX files copied verbatim."""

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataset_scripts.phantom.egd import (
    BOUNDING_BOX_COLUMNS,
    FIXATION_COLUMNS,
    MASTER_SHEET_COLUMNS,
    bounding_box_rows,
    fixation_rows,
    master_sheet_row,
    sample_rows,
    transcript_json,
)
from dataset_scripts.phantom.labels import ALL_PHASES_LABELS, CHEXPERT_LABELS, chexpert_values, reflacx_values
from dataset_scripts.phantom.reflacx import write_reading
from dataset_scripts.phantom.session import Patient, PatientPlan, Radiograph, Study, generate_patient, render

JPEG_QUALITY = 92
META, CHEXPERT, NEGBIO, SPLIT = (f"CXR-JPG/cxr_{name}.csv" for name in ("meta", "chexpert", "negbio", "split"))
REFLACX_METADATA = "REFLACX/metadata.csv"
MASTER_SHEET, FIXATIONS, SAMPLES, BOUNDING_BOXES = (
    f"EyeGaze/{name}.csv" for name in ("master_sheet", "fixations", "eye_gaze", "bounding_boxes")
)
_LABELS = ("subject_id", "study_id", *CHEXPERT_LABELS)
COLUMNS: dict[str, tuple[str, ...]] = {
    META: (
        "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
        "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
        "PatientOrientationCodeSequence_CodeMeaning", "in_eye_gaze", "in_reflacx", "StudyDateTime", "stay_id",
    ),
    CHEXPERT: _LABELS,
    NEGBIO: _LABELS,
    SPLIT: ("dicom_id", "study_id", "subject_id", "split"),
    REFLACX_METADATA: (
        "id", "split", "eye_tracking_data_discarded", "image", "dicom_id", "subject_id", "image_size_x",
        "image_size_y", *ALL_PHASES_LABELS,
    ),
    MASTER_SHEET: MASTER_SHEET_COLUMNS,
    FIXATIONS: FIXATION_COLUMNS,
    SAMPLES: FIXATION_COLUMNS,
    BOUNDING_BOXES: BOUNDING_BOX_COLUMNS,
}  # fmt: skip
# where each per-patient table appears again, concatenated; eye_gaze.csv repeats the fixations, as in the release
SPREADSHEETS: dict[str, str] = {
    "cxr_meta.csv": META,
    "cxr_meta_with_stay_id_only.csv": META,
    "CXR-JPG/cxr_chexpert.csv": CHEXPERT,
    "CXR-JPG/cxr_negbio.csv": NEGBIO,
    "CXR-JPG/cxr_split.csv": SPLIT,
    "REFLACX/metadata.csv": REFLACX_METADATA,
    "EyeGaze/master_sheet_with_updated_stayId.csv": MASTER_SHEET,
    "EyeGaze/fixations.csv": FIXATIONS,
    "EyeGaze/eye_gaze.csv": FIXATIONS,
    "EyeGaze/bounding_boxes.csv": BOUNDING_BOXES,
}

Tables = dict[str, list[str]]


def write_patient(plan: PatientPlan, seed: int, root: Path, raw_samples: bool) -> Tables:
    """Generate one patient and write its folder; the rows of its tables (CSV lines without index) by table."""
    patient = generate_patient(plan, seed)
    folder = root / f"patient_{patient.subject_id}"
    tables: Tables = {}
    for study in patient.studies:
        _write_study(patient, study, folder)
        _add(tables, CHEXPERT, [[patient.subject_id, study.study_id, *chexpert_values(study.findings)]])
        _add(tables, NEGBIO, [[patient.subject_id, study.study_id, *chexpert_values(study.findings)]])
        for radiograph in study.radiographs:
            _add_radiograph(tables, patient, study, radiograph)
            _write_reflacx(tables, patient, study, radiograph, folder, raw_samples)
            _write_egd(tables, patient, study, radiograph, folder, raw_samples)
    for name, lines in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(header_line(name) + indexed_lines(lines, 0), encoding="utf-8", newline="")
    tables.pop(SAMPLES, None)
    return tables


def header_line(table: str) -> str:
    """The header as pandas writes it: an unnamed index column first."""
    return "," + ",".join(COLUMNS[table]) + "\n"


def indexed_lines(lines: Sequence[str], first: int) -> str:
    """Table rows behind a running index."""
    return "".join(f"{index},{line}\n" for index, line in enumerate(lines, first))


def _add(tables: Tables, name: str, rows: Iterable[Sequence[object]]) -> None:
    lines = tables.setdefault(name, [])
    for row in rows:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(row)
        lines.append(buffer.getvalue().removesuffix("\n"))


def _write_study(patient: Patient, study: Study, folder: Path) -> None:
    pictures = folder / "CXR-JPG" / f"s{study.study_id}"
    pictures.mkdir(parents=True)
    for radiograph in study.radiographs:
        render(patient, study, radiograph).save(pictures / f"{radiograph.image_id}.jpg", quality=JPEG_QUALITY)
    report = folder / "CXR-DICOM" / f"s{study.study_id}.txt"
    report.parent.mkdir(exist_ok=True)
    report.write_text(report_text(study), encoding="utf-8", newline="")


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


def _add_radiograph(tables: Tables, patient: Patient, study: Study, radiograph: Radiograph) -> None:
    corpora = {reading.corpus for reading in radiograph.readings}
    clock = study.time.split(".")[0].zfill(6)
    moment = f"{study.date[:4]}-{study.date[4:6]}-{study.date[6:]} {clock[:2]}:{clock[2:4]}:{clock[4:]}"
    image_id, pose = radiograph.image_id, radiograph.pose
    row = (
        *(image_id, patient.subject_id, study.study_id, "CHEST (PA AND LAT)", "PA", pose.height, pose.width),
        *(study.date, study.time, "CHEST (PA AND LAT)", "postero-anterior", "Erect"),
        *("egd" in corpora, "reflacx" in corpora, moment, study.stay_id),
    )
    _add(tables, META, [row])
    _add(tables, SPLIT, [(image_id, study.study_id, patient.subject_id, patient.split)])


def _write_reflacx(
    tables: Tables, patient: Patient, study: Study, radiograph: Radiograph, folder: Path, raw_samples: bool
) -> None:
    subject, image_id, pose = patient.subject_id, radiograph.image_id, radiograph.pose
    image = f"p{str(subject)[:2]}/p{subject}/s{study.study_id}/{image_id}.dcm"
    for reading in radiograph.readings:
        if reading.corpus == "reflacx":
            write_reading(folder / "REFLACX", reading, raw_samples)
            row = (
                *(reading.reading_id, patient.split, reading.recording is None),
                *(f"physionet.org/files/mimic-cxr/2.0.0/files/{image}", image_id, subject, pose.width, pose.height),
                *reflacx_values(reading.marks, ALL_PHASES_LABELS),
            )
            _add(tables, REFLACX_METADATA, [row])


def _write_egd(
    tables: Tables, patient: Patient, study: Study, radiograph: Radiograph, folder: Path, raw_samples: bool
) -> None:
    for reading in radiograph.readings:
        if reading.corpus == "egd":
            transcripts = folder / "EyeGaze/audio_segmentation_transcripts" / radiograph.image_id
            transcripts.mkdir(parents=True)
            (transcripts / "transcript.json").write_text(transcript_json(reading), encoding="utf-8", newline="")
            _add(tables, MASTER_SHEET, [master_sheet_row(patient, study, radiograph)])
            _add(tables, BOUNDING_BOXES, bounding_box_rows(patient, radiograph))
            _add(tables, FIXATIONS, fixation_rows(radiograph, reading))
            if raw_samples:
                _add(tables, SAMPLES, sample_rows(radiograph, reading))
