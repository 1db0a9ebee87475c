"""The rows of the EGD (Eye Gaze) tables: fixations and samples in 37 columns, the master sheet, boxes, transcripts."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dataset_scripts.phantom.gaze import sample
from dataset_scripts.phantom.geometry import Pose
from dataset_scripts.phantom.labels import CHEXPERT_LABELS, MASTER_SHEET_KINDS, chexpert_values, master_sheet_values
from dataset_scripts.phantom.mimic_cxr import study_path
from dataset_scripts.phantom.report import transcript
from dataset_scripts.phantom.session import Patient, Pictures, Radiograph, SpokenReading, Study, anatomical_boxes
from dataset_scripts.phantom.sheets import Sheet, Tables, add_rows

SAMPLE_RATE_HZ, TICKS_PER_SECOND = 60, 10_000_000
SCREEN_WIDTH, SCREEN_HEIGHT, CANVAS_HEIGHT = 1920, 1080, 1024
OUTSIDE = -2
UNTIMED_SHARE, EMPTY_SHARE, RUN_ON_SHARE = 0.03, 0.01, 0.04
FIXATION_COLUMNS = (
    "SESSION_ID", "MEDIA_ID", "DICOM_ID", "CNT", "Time (in secs)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY", "FPOGS",
    "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "LPCX", "LPCY", "LPD", "LPS", "LPV", "RPCX", "RPCY", "RPD",
    "RPS", "RPV", "BKID", "BKDUR", "BKPMIN", "LPMM", "LPMMV", "RPMM", "RPMMV", "SACCADE_MAG", "SACCADE_DIR",
    "VID_FRAME", "X_ORIGINAL", "Y_ORIGINAL",
)  # fmt: skip
BOUNDING_BOX_COLUMNS = ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2")
MASTER_SHEET_COLUMNS = (
    "dicom_id", "path", "study_id", "patient_id", "stay_id", "gender", "anchor_age", "image_top_pad",
    "image_bottom_pad", "image_left_pad", "image_right_pad",
    *(name for number in range(1, 10) for name in (f"dx{number}", f"dx{number}_icd")),
    "normal_reports", "Normal", "CHF", "pneumonia", *MASTER_SHEET_KINDS,
    *(f"{label.lower().replace(' ', '_')}__chx" for label in CHEXPERT_LABELS), "cxr_exam_indication",
)  # fmt: skip

Row = Sequence[object]


def screen_pads(pose: Pose) -> tuple[int, int, int, int]:
    """Top, bottom, left and right margins of the picture on the 1920 x 1024 canvas."""
    scale = min(SCREEN_WIDTH / pose.width, CANVAS_HEIGHT / pose.height)
    rest_x, rest_y = SCREEN_WIDTH - round(pose.width * scale), CANVAS_HEIGHT - round(pose.height * scale)
    return rest_y // 2, rest_y - rest_y // 2, rest_x // 2, rest_x - rest_x // 2


def _screen_point(x: float, y: float, pose: Pose) -> tuple[float, float]:
    """Pixels of the picture to fractions of the screen."""
    top, bottom, left, right = screen_pads(pose)
    width, height = pose.width + pose.width % 2, pose.height + pose.height % 2
    screen_x = (x * (SCREEN_WIDTH - left - right) / width + left) / SCREEN_WIDTH
    return screen_x, (y * (SCREEN_HEIGHT - top - bottom) / height + top) / SCREEN_HEIGHT


def _original_point(x: float, y: float, pose: Pose) -> tuple[int, int]:
    inside = 0 <= x <= pose.width and 0 <= y <= pose.height
    return (int(x), int(y)) if inside else (OUTSIDE, OUTSIDE)


def _gaze_row(
    media_id: str, pose: Pose, point: tuple[float, float], times: tuple[float, float, float], fixation_id: int
) -> Row:
    """One row; `times` are the row's own time, the fixation's start and its duration, seconds; NaN x is no fixation."""
    valid = int(not np.isnan(point[0]))
    x, y = point if valid else (-1.0, -1.0)
    seconds, start, duration = times
    screen_x, screen_y = (f"{value:.5f}" for value in _screen_point(x, y, pose))
    return (
        *(
            1,
            media_id,
            media_id,
            round(seconds * SAMPLE_RATE_HZ),
            f"{seconds:.5f}",
            float(round(seconds * TICKS_PER_SECOND)),
        ),
        *(screen_x, screen_y, f"{start:.5f}", f"{duration:.5f}", fixation_id, valid),
        *(screen_x, screen_y, valid),
        *("0.48000", "0.41000", "21.00000", "1.00000", valid, "0.62000", "0.41000", "21.00000", "1.00000", valid),
        *(0, "0.00000", 12, "0.00350", valid, "0.00350", valid, "0.00000", "0.00000", 0),
        *_original_point(x, y, pose),
    )


def fixation_rows(radiograph: Radiograph, reading: SpokenReading) -> Iterator[Row]:
    """Two calibration rows under an id cut to 39 characters, then a row for every fixation, timed by its end."""
    recording, pose = reading.recording, radiograph.pose
    if recording is None:
        return
    for number in range(2):
        times = (0.5 + number, 0.2 + number, 0.3)
        yield _gaze_row(radiograph.image_id[:-5], pose, (pose.width / 2, pose.height / 2), times, number + 2)
    columns = (recording.x, recording.y, recording.start_seconds, recording.end_seconds)
    for number, (x, y, start, end) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        yield _gaze_row(radiograph.image_id, pose, (x, y), (end, start, end - start), number + 2)


def sample_rows(radiograph: Radiograph, reading: SpokenReading) -> Iterator[Row]:
    """A row for every sample at 60 Hz; between two fixations none is valid."""
    recording, pose = reading.recording, radiograph.pose
    if recording is None:
        return
    samples = sample(recording, SAMPLE_RATE_HZ, np.random.default_rng(int(reading.reading_id[5:])))
    for index, fixation in enumerate(samples.fixation.tolist()):
        start, second = float(recording.start_seconds[fixation]), float(samples.seconds[index])
        fixates = second <= recording.end_seconds[fixation]
        point = (float(samples.x[index]), float(samples.y[index])) if fixates else (np.nan, np.nan)
        yield _gaze_row(radiograph.image_id, pose, point, (second, start, second - start), fixation + 2)


def bounding_box_rows(patient: Patient, radiograph: Radiograph) -> Iterator[Row]:
    """The anatomical boxes, in the column order of the release (x1, x2, y1, y2)."""
    for name, box in anatomical_boxes(patient.body, radiograph.pose).items():
        corners = (f"{value:.2f}" for value in (box.x_min, box.x_max, box.y_min, box.y_max))
        yield (radiograph.image_id, name, *corners)


def master_sheet_row(patient: Patient, study: Study, radiograph: Radiograph) -> Row:
    """The row of one picture, 59 cells."""
    subject = patient.subject_id
    path = f"files/{study_path(patient, study)}/{radiograph.image_id}.dcm"
    normal = int(not study.findings)
    return (
        *(radiograph.image_id, path, study.study_id, subject, study.stay_id, patient.sex),
        f"{patient.age_decade} - {patient.age_decade + 10}",
        *screen_pads(radiograph.pose),
        *[""] * 18,
        *(normal, *master_sheet_values(study.findings), *chexpert_values(study.findings), study.indication),
    )


def transcript_json(reading: SpokenReading) -> str:
    """Phrases of up to four words with their times; the full stop belongs to the last word, as in the release.

    Some transcripts have no times, some of these not even text, and some phrases run on into the next sentence.
    """
    chance = np.random.default_rng([int(reading.reading_id[5:]), 5])
    fate = chance.random()
    if fate < UNTIMED_SHARE:
        text = "" if fate < EMPTY_SHARE else f" {transcript(reading.words)} "
        return json.dumps({"full_text": text, "time_stamped_text": []}, indent=1)
    phrases = _phrases(reading, chance)
    return json.dumps({"full_text": f" {transcript(reading.words)} ", "time_stamped_text": phrases}, indent=1)


def _phrases(reading: SpokenReading, chance: np.random.Generator) -> list[dict[str, object]]:
    phrases: list[dict[str, object]] = []
    for sentence in reading.words:
        tokens = [word for word in sentence if word.text not in ",."]
        for first in range(0, len(tokens), 4):
            part = tokens[first : first + 4]
            text = " ".join(word.text for word in part) + ("." if first + 4 >= len(tokens) else "")
            if phrases and first == 0 and chance.random() < RUN_ON_SHARE:
                phrases[-1] |= {"phrase": f"{phrases[-1]['phrase']} {text}", "end_time": part[-1].end_seconds}
            else:
                times = {"begin_time": part[0].start_seconds, "end_time": part[-1].end_seconds}
                phrases.append({"phrase": text, **times})
    return phrases


# --- files ---

SHEETS = (
    Sheet("master_sheet.csv", "master_sheet", MASTER_SHEET_COLUMNS),
    Sheet("fixations.csv", "fixations", FIXATION_COLUMNS),
    Sheet("eye_gaze.csv", "eye_gaze", FIXATION_COLUMNS, raw_samples_only=True),
    Sheet("bounding_boxes.csv", "bounding_boxes", BOUNDING_BOX_COLUMNS),
)


def write_patient(patient: Patient, pictures: Pictures, root: Path, raw_samples: bool) -> Tables:
    """Write the transcripts of one patient's EGD readings as the release has them; return the lines of its tables."""
    tables: Tables = {}
    for study in patient.studies:
        for radiograph in study.radiographs:
            for reading in radiograph.readings:
                if reading.corpus == "egd":
                    written = write_reading(root, patient, study, radiograph, reading, raw_samples)
                    for name, rows in written.items():
                        add_rows(tables, name, rows)
    return tables


def write_reading(
    root: Path, patient: Patient, study: Study, radiograph: Radiograph, reading: SpokenReading, raw_samples: bool
) -> dict[str, Iterator[Row]]:
    """Write one transcript under `root`; return the rows of the tables by name."""
    folder = root / "audio_segmentation_transcripts" / radiograph.image_id
    folder.mkdir(parents=True)
    (folder / "transcript.json").write_text(transcript_json(reading), encoding="utf-8", newline="")
    rows = {
        "master_sheet": iter([master_sheet_row(patient, study, radiograph)]),
        "bounding_boxes": bounding_box_rows(patient, radiograph),
        "fixations": fixation_rows(radiograph, reading),
    }
    return rows | ({"eye_gaze": sample_rows(radiograph, reading)} if raw_samples else {})
