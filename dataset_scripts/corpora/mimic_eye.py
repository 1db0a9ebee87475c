"""MIMIC-Eye (PhysioNet `mimic-eye-multimodal-datasets` 1.0.0): patient folders that hold REFLACX and EGD readings.

The generated corpus has the same form. Gaze and boxes are scaled by the sizes in the tables, never by the JPEG's.
A patient's folder stands for itself: a broken table costs the readings that need it, and no others.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dataset_scripts.corpora import egd_tables, reflacx_tables
from dataset_scripts.corpora.mimic_tree import PATIENT_COLUMNS, ImageRow, image_row
from dataset_scripts.corpora.rows import CREDENTIALED_LICENSE, Origin, gaze_reading, read_lookup, unreadable
from dataset_scripts.corpora.splits import GAZE_SHARES, hashed_split, split_named
from dataset_scripts.files.paths import inside, plain_name, table_inside
from dataset_scripts.files.tables import Row
from dataset_scripts.images.pictures import EncodedImage, encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import Reading, Recording, Split, UserError

META_TABLE, SPLIT_TABLE, PATIENT_TABLE = "CXR-JPG/cxr_meta.csv", "CXR-JPG/cxr_split.csv", "Hosp/patients.csv"
TERMS = (
    f"The source is under the {CREDENTIALED_LICENSE}: only credentialed users who signed its data use agreement may "
    "have it. This conversion holds its images and texts and must not be redistributed, nor pushed to a public "
    "repository."
)


@dataclass
class Patient:
    """One patient's folder, its images by lower-case id, and the readings of it that were met so far."""

    folder: Path
    options: Options
    split: Split
    images: dict[str, ImageRow]
    encoded: dict[str, EncodedImage] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    @property
    def subject_id(self) -> str:
        return _subject_id(self.folder)


def plan(source: Path, options: Options) -> Plan:
    """One unit a patient folder.

    Raises:
        UserError: the source holds no patient folder.
    """
    patients = sorted(folder for folder in source.glob("[Pp]atient_*") if folder.is_dir())
    if not patients:
        raise UserError(f"{source}: no patient_<subject_id> folder; expected the folder that holds them")
    return Plan(
        units=patients,
        convert=partial(convert_patient, source=source, options=options),
        unit_name="patients",
        reading_tables=(reflacx_tables.METADATA_TABLE, egd_tables.MASTER_TABLE),
        terms=TERMS,
    )


def convert_patient(folder: Path, source: Path, options: Options) -> list[Outcome]:
    """All readings of one patient: REFLACX in the order of its metadata, then EGD in the order of its master sheet."""
    ledger = Ledger()
    try:
        table_inside(source, folder.name)
        patient = Patient(folder, options, _split(folder, options, ledger), _images(folder, ledger))
        outcomes = [Outcome(None, ledger), *_reflacx_outcomes(patient, ledger), *_egd_outcomes(patient, ledger)]
    except (UserError, OSError) as error:
        return [unreadable(reflacx_tables.METADATA_TABLE, error)]
    if len(outcomes) == 1:
        ledger.note("patient_without_gaze_readings", folder.name)
    return outcomes


def _split(folder: Path, options: Options, ledger: Ledger) -> Split:
    path = table_inside(folder, SPLIT_TABLE)
    rows = read_lookup(path, ("dicom_id", "split"), "split_table", folder.name, ledger, SPLIT_TABLE)
    named = {row["split"] for row in rows.values()}
    splits = set(map(split_named, named))
    if len(splits) == 1 and (split := splits.pop()):
        return split
    ledger.note("patient_split_by_hash", f"{folder.name}: cxr_split.csv says {', '.join(sorted(named)) or 'nothing'}")
    return hashed_split(_subject_id(folder), options.seed, *GAZE_SHARES)


def _subject_id(folder: Path) -> str:
    return folder.name.partition("_")[2]


def _images(folder: Path, ledger: Ledger) -> dict[str, ImageRow]:
    meta, patients = table_inside(folder, META_TABLE), table_inside(folder, PATIENT_TABLE)
    columns, optional = ("dicom_id", "study_id", "ViewPosition", "Rows", "Columns"), ("subject_id", "StudyDate")
    found = read_lookup(meta, columns, "cxr_meta", folder.name, ledger, META_TABLE, optional)
    people = read_lookup(patients, PATIENT_COLUMNS, "patients_table", folder.name, ledger, PATIENT_TABLE)
    person = next(iter(people.values()), {})
    return {name: image_row(person | row) for name, row in found.items()}


def _reflacx_outcomes(patient: Patient, ledger: Ledger) -> list[Outcome]:
    folder, table = patient.folder / "REFLACX", reflacx_tables.METADATA_TABLE
    if not folder.is_dir():
        return []
    path = table_inside(folder, "metadata.csv")
    if not path.is_file():
        ledger.note("metadata_missing", str(path))
        return []
    try:
        rows = reflacx_tables.read_metadata(path, ledger, table)
    except (UserError, OSError) as error:
        return [unreadable(table, error)]
    return [
        attempt(table, row["id"] or f"{patient.folder.name} row {index}", partial(_reflacx, patient, row))
        for index, row in enumerate(rows, 1)
    ]


def _reflacx(patient: Patient, row: Row, ledger: Ledger) -> tuple[Split, Reading]:
    folder = reflacx_tables.reading_folder(patient.folder / "REFLACX", row)
    _meet(patient, row["id"])
    own_split = split_named(row.get("split", ""))
    if own_split and own_split != patient.split:
        ledger.note("reflacx_split_is_not_the_patients", f"{row['id']}: {own_split}, cxr_split.csv {patient.split}")
    image_id = row["dicom_id"].lower()
    image = _encode(patient, image_id, ledger)
    recording = reflacx_tables.read_recording(folder, row, ledger)
    return _reading(patient, image_id, row["id"], reflacx_tables.image_size(row), image, recording, "reflacx", ledger)


def _egd_outcomes(patient: Patient, ledger: Ledger) -> list[Outcome]:
    folder = patient.folder / "EyeGaze"
    if not folder.is_dir():
        return []
    if not (folder / "master_sheet.csv").is_file():
        ledger.note("master_sheet_missing", str(folder))
        return []
    try:
        master = egd_tables.read_master(folder, ledger)
        tables = egd_tables.read_tables(folder, master, ledger, is_one_of_many=True)
    except (UserError, OSError) as error:
        return [unreadable(egd_tables.MASTER_TABLE, error)]
    rows = egd_tables.source_rows(tables)
    return [egd_tables.convert_row(row, partial(_egd, patient, row)) for row in rows]


def _egd(patient: Patient, row: egd_tables.EgdRow, ledger: Ledger) -> tuple[Split, Reading]:
    image_id = row.image_id
    meta = patient.images.get(image_id)
    if meta is None or meta.width is None or meta.height is None:
        raise Dropped("image_size_unknown", "no Rows and Columns in cxr_meta.csv")
    size = (meta.width, meta.height)
    image = _encode(patient, image_id, ledger)
    recording = egd_tables.read_recording(row, patient.folder / "EyeGaze", size, ledger)
    return _reading(patient, image_id, image_id, size, image, recording, "egd", ledger)


def _meet(patient: Patient, reading_id: str) -> None:
    if reading_id in patient.met:
        raise Dropped("duplicate_reading_id")
    patient.met.add(reading_id)


def _encode(patient: Patient, image_id: str, ledger: Ledger) -> EncodedImage:
    if image_id not in patient.encoded:
        meta = patient.images.get(image_id)
        if meta is None:
            raise Dropped("image_not_in_cxr_meta", image_id)
        if meta.study_id is None:
            raise Dropped("study_unknown", f"{image_id} has no study_id in cxr_meta.csv")
        path = inside(patient.folder, f"CXR-JPG/s{meta.study_id}/{plain_name(image_id)}.jpg")
        patient.encoded[image_id] = encode_image(path, patient.options.image_size, ledger)
    return patient.encoded[image_id]


def _reading(
    patient: Patient,
    image_id: str,
    reading_id: str,
    size: tuple[int, int],
    image: EncodedImage,
    recording: Recording,
    corpus: str,
    ledger: Ledger,
) -> tuple[Split, Reading]:
    meta = patient.images[image_id]
    origin = Origin(
        reading_id=reading_id,
        image_id=image_id,
        study_id=meta.study_id,
        subject_id=patient.subject_id,
        view=meta.view,
        person=meta.person,
        frame=size,
        source=f"mimic_eye/{corpus}",
        generated=patient.options.generated,
    )
    report = inside(patient.folder, f"CXR-DICOM/s{meta.study_id}.txt")
    return patient.split, gaze_reading(origin, image, recording, report, ledger)
