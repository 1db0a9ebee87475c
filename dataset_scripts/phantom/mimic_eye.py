"""Writes generated patients as a MIMIC-EYE tree: tables rewritten by pandas, REFLACX files copied verbatim."""

from pathlib import Path

from dataset_scripts.phantom.egd import (
    BOUNDING_BOX_COLUMNS,
    FIXATION_COLUMNS,
    MASTER_SHEET_COLUMNS,
)
from dataset_scripts.phantom.egd import (
    write_reading as write_egd_reading,
)
from dataset_scripts.phantom.labels import ALL_PHASES_LABELS
from dataset_scripts.phantom.mimic_cxr import (
    LABEL_COLUMNS,
    METADATA_COLUMNS,
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
    label_row,
    metadata_row,
    patient_row,
    report_text,
    split_row,
)
from dataset_scripts.phantom.reflacx import METADATA_COLUMNS as REFLACX_COLUMNS
from dataset_scripts.phantom.reflacx import metadata_row as reflacx_row
from dataset_scripts.phantom.reflacx import write_reading as write_reflacx_reading
from dataset_scripts.phantom.session import Patient, Pictures, Radiograph, Study
from dataset_scripts.phantom.sheets import Sheet, Tables, add_rows, header_line, joined_lines

META, CHEXPERT, NEGBIO, SPLIT = (f"CXR-JPG/cxr_{name}.csv" for name in ("meta", "chexpert", "negbio", "split"))
REFLACX_METADATA, PATIENTS = "REFLACX/metadata.csv", "Hosp/patients.csv"
MASTER_SHEET, FIXATIONS, SAMPLES, BOUNDING_BOXES = (
    f"EyeGaze/{name}.csv" for name in ("master_sheet", "fixations", "eye_gaze", "bounding_boxes")
)
COLUMNS: dict[str, tuple[str, ...]] = {
    META: (*METADATA_COLUMNS, "in_eye_gaze", "in_reflacx", "StudyDateTime", "stay_id"),
    CHEXPERT: LABEL_COLUMNS,
    NEGBIO: LABEL_COLUMNS,
    SPLIT: SPLIT_COLUMNS,
    PATIENTS: PATIENT_COLUMNS,
    REFLACX_METADATA: (*REFLACX_COLUMNS, *ALL_PHASES_LABELS),
    MASTER_SHEET: MASTER_SHEET_COLUMNS,
    FIXATIONS: FIXATION_COLUMNS,
    SAMPLES: FIXATION_COLUMNS,
    BOUNDING_BOXES: BOUNDING_BOX_COLUMNS,
}


def _has_stay(line: str) -> bool:
    return not line.endswith(",")


def _sheet(path: str, table: str) -> Sheet:
    return Sheet(f"spreadsheets/{path}", table, COLUMNS[table], indexed=True)


# where each per-patient table appears again, concatenated; eye_gaze.csv repeats the fixations, as in the release
SHEETS = (
    _sheet("cxr_meta.csv", META),
    _sheet("cxr_meta_with_stay_id_only.csv", META)._replace(takes=_has_stay),
    _sheet("CXR-JPG/cxr_chexpert.csv", CHEXPERT),
    _sheet("CXR-JPG/cxr_negbio.csv", NEGBIO),
    _sheet("CXR-JPG/cxr_split.csv", SPLIT),
    _sheet("Hosp/patients.csv", PATIENTS),
    _sheet("REFLACX/metadata.csv", REFLACX_METADATA),
    _sheet("EyeGaze/master_sheet_with_updated_stayId.csv", MASTER_SHEET),
    _sheet("EyeGaze/fixations.csv", FIXATIONS),
    _sheet("EyeGaze/eye_gaze.csv", FIXATIONS)._replace(raw_samples_only=True),
    _sheet("EyeGaze/bounding_boxes.csv", BOUNDING_BOXES),
)


def write_patient(patient: Patient, pictures: Pictures, root: Path, raw_samples: bool) -> Tables:
    """Write the folder of one patient and return the lines of its tables, index column left out, by table."""
    folder = root / f"patient_{patient.subject_id}"
    tables: Tables = {}
    add_rows(tables, PATIENTS, [patient_row(patient)])
    for study in patient.studies:
        _write_study(study, pictures, folder)
        add_rows(tables, CHEXPERT, [label_row(patient, study)])
        add_rows(tables, NEGBIO, [label_row(patient, study)])
        for radiograph in study.radiographs:
            _add_radiograph(tables, patient, study, radiograph)
            _write_readings(tables, patient, study, radiograph, folder, raw_samples)
    for name, lines in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = header_line(COLUMNS[name], index=True) + "\n" + joined_lines(lines, 0)
        (folder / name).write_text(content, encoding="utf-8", newline="")
    tables.pop(SAMPLES, None)
    return tables


def _write_study(study: Study, pictures: Pictures, folder: Path) -> None:
    target = folder / "CXR-JPG" / f"s{study.study_id}"
    target.mkdir(parents=True)
    for radiograph in study.radiographs:
        (target / f"{radiograph.image_id}.jpg").write_bytes(pictures[radiograph.image_id])
    report = folder / "CXR-DICOM" / f"s{study.study_id}.txt"
    report.parent.mkdir(exist_ok=True)
    report.write_text(report_text(study), encoding="utf-8", newline="")


def _add_radiograph(tables: Tables, patient: Patient, study: Study, radiograph: Radiograph) -> None:
    corpora = {reading.corpus for reading in radiograph.readings}
    clock = study.time.split(".")[0].zfill(6)
    moment = f"{study.date[:4]}-{study.date[4:6]}-{study.date[6:]} {clock[:2]}:{clock[2:4]}:{clock[4:]}"
    row = (*metadata_row(patient, study, radiograph), "egd" in corpora, "reflacx" in corpora, moment, study.stay_id)
    add_rows(tables, META, [row])
    add_rows(tables, SPLIT, [split_row(patient, study, radiograph)])


def _write_readings(
    tables: Tables, patient: Patient, study: Study, radiograph: Radiograph, folder: Path, raw_samples: bool
) -> None:
    egd_names = {"master_sheet": MASTER_SHEET, "fixations": FIXATIONS, "eye_gaze": SAMPLES}
    for reading in radiograph.readings:
        if reading.corpus == "reflacx":
            write_reflacx_reading(folder / "REFLACX", reading, raw_samples)
            row = reflacx_row(patient, study, radiograph, reading, ALL_PHASES_LABELS)
            add_rows(tables, REFLACX_METADATA, [row])
        else:
            written = write_egd_reading(folder / "EyeGaze", patient, study, radiograph, reading, raw_samples)
            for name, rows in written.items():
                add_rows(tables, egd_names.get(name, BOUNDING_BOXES), rows)
