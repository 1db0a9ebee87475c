"""The files of REFLACX readings: fixations, transcription, chest box, ellipses, raw samples."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dataset_scripts.phantom.gaze import Recording, Samples, pixels_per_degree, sample, screen_box
from dataset_scripts.phantom.labels import PHASE_LABELS, phase_label, reflacx_values
from dataset_scripts.phantom.mimic_cxr import study_path
from dataset_scripts.phantom.report import transcript
from dataset_scripts.phantom.session import Patient, Pictures, Radiograph, SpokenReading, Study
from dataset_scripts.phantom.sheets import Sheet, Tables, add_rows

SAMPLE_RATE_HZ = 1000
_SCREEN_COLUMNS = (
    "pupil_area_normalized", "angular_resolution_x_pixels_per_degree", "angular_resolution_y_pixels_per_degree",
    "window_width", "window_level", "xmin_shown_from_image", "ymin_shown_from_image", "xmax_shown_from_image",
    "ymax_shown_from_image", "xmin_in_screen_coordinates", "ymin_in_screen_coordinates",
    "xmax_in_screen_coordinates", "ymax_in_screen_coordinates",
)  # fmt: skip
FIXATION_COLUMNS = (
    *("timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position"),
    *_SCREEN_COLUMNS,
)
SAMPLE_COLUMNS = ("timestamp_sample", "x_position", "y_position", *_SCREEN_COLUMNS)
WORD_COLUMNS = ("word", "timestamp_start_word", "timestamp_end_word")
BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
METADATA_COLUMNS = (
    "id", "split", "eye_tracking_data_discarded", "image", "dicom_id", "subject_id", "image_size_x", "image_size_y",
)  # fmt: skip
SHEETS = tuple(
    Sheet(f"main_data/metadata_phase_{phase}.csv", f"phase_{phase}", (*METADATA_COLUMNS, *labels), line_end="\r\n")
    for phase, labels in PHASE_LABELS.items()
)


def write_patient(patient: Patient, pictures: Pictures, root: Path, raw_samples: bool) -> Tables:
    """Write one patient's REFLACX readings as the release has them; return the lines of the metadata by phase."""
    tables: Tables = {}
    for study in patient.studies:
        for radiograph in study.radiographs:
            for reading in (reading for reading in radiograph.readings if reading.corpus == "reflacx"):
                write_reading(root, reading, raw_samples)
                row = metadata_row(patient, study, radiograph, reading, PHASE_LABELS[reading.phase])
                add_rows(tables, f"phase_{reading.phase}", [row])
    return tables


def metadata_row(
    patient: Patient, study: Study, radiograph: Radiograph, reading: SpokenReading, labels: tuple[str, ...]
) -> Sequence[object]:
    """The cells of METADATA_COLUMNS and of `labels`."""
    image = f"physionet.org/files/mimic-cxr/2.0.0/files/{study_path(patient, study)}/{radiograph.image_id}.dcm"
    return (
        *(reading.reading_id, patient.split, reading.recording is None, image, radiograph.image_id),
        *(patient.subject_id, radiograph.pose.width, radiograph.pose.height),
        *reflacx_values(reading.marks, labels, reading.phase),
    )


def write_reading(folder: Path, reading: SpokenReading, raw_samples: bool) -> None:
    """Write one reading under `folder`, which gets `main_data`; a discarded one has only the box and the ellipses."""
    target = folder / "main_data" / reading.reading_id
    target.mkdir(parents=True)
    box = reading.chest
    _write_table(
        target / "chest_bounding_box.csv", BOX_COLUMNS,
        [f"{round(box.x_min)},{round(box.y_min)},{round(box.x_max)},{round(box.y_max)}"],
    )  # fmt: skip
    columns = (*BOX_COLUMNS, "certainty", *PHASE_LABELS[reading.phase])
    _write_table(target / "anomaly_location_ellipses.csv", columns, _ellipse_lines(reading))
    if reading.recording is None:
        return
    _write_table(target / "fixations.csv", FIXATION_COLUMNS, _fixation_lines(reading.recording))
    _write_table(target / "timestamps_transcription.csv", WORD_COLUMNS, _word_lines(reading))
    (target / "transcription.txt").write_text(transcript(reading.words), encoding="utf-8", newline="")
    if raw_samples:
        raw = folder / "gaze_data" / reading.reading_id
        raw.mkdir(parents=True)
        _write_table(raw / "gaze.csv", SAMPLE_COLUMNS, _sample_lines(reading))


def _write_table(path: Path, columns: Sequence[str], lines: Iterable[str]) -> None:
    path.write_text("\r\n".join((",".join(columns), *lines)) + "\r\n", encoding="utf-8", newline="")


def _ellipse_lines(reading: SpokenReading) -> list[str]:
    """One line for every mark, its box in whole pixels inside the picture."""
    lines = []
    for mark in reading.marks:
        box = mark.box
        found = phase_label(mark.finding, reading.phase)
        labels = ",".join(str(label == found) for label in PHASE_LABELS[reading.phase])
        corners = f"{int(box.x_min)},{int(box.y_min)},{int(box.x_max)},{int(box.y_max)}"
        lines.append(f"{corners},{mark.certainty},{labels}")
    return lines


def _word_lines(reading: SpokenReading) -> list[str]:
    return [
        f'"{word.text}",{word.start_seconds},{word.end_seconds}'
        if word.text == ","
        else f"{word.text},{word.start_seconds},{word.end_seconds}"
        for sentence in reading.words
        for word in sentence
    ]


def _screen_cells(recording: Recording) -> list[tuple[str, str]]:
    """For every shown rectangle: the two resolution cells, and the cells behind them."""
    cells = []
    for box in recording.shown:
        resolution = f"{pixels_per_degree(box):.3f}"
        shown = ",".join(str(round(edge)) for edge in (box.x_min, box.y_min, box.x_max, box.y_max))
        screen = ",".join(str(edge) for edge in screen_box(box))
        cells.append((f"{resolution},{resolution}", f"1.00000,0.50000,{shown},{screen}"))
    return cells


def _fixation_lines(recording: Recording) -> list[str]:
    cells = [",".join(pair) for pair in _screen_cells(recording)]
    return [
        f"{start:.3f},{end:.3f},{round(x)},{round(y)},{pupil:.3f},{cells[zoom]}"
        for start, end, x, y, pupil, zoom in zip(
            recording.start_seconds.tolist(), recording.end_seconds.tolist(), recording.x.tolist(),
            recording.y.tolist(), recording.pupil.tolist(), recording.zoom.tolist(), strict=True,
        )
    ]  # fmt: skip


def _sample_lines(reading: SpokenReading) -> list[str]:
    assert reading.recording is not None
    samples = sample(reading.recording, SAMPLE_RATE_HZ, np.random.default_rng(int(reading.reading_id[5:])))
    return [_sample_line(samples, index, cells) for index, cells in enumerate(_cells_of_samples(reading, samples))]


def _cells_of_samples(reading: SpokenReading, samples: Samples) -> list[tuple[str, str]]:
    """Per sample: pupil and resolution cells, and the cells behind them."""
    assert reading.recording is not None
    screen, pupil = _screen_cells(reading.recording), reading.recording.pupil.tolist()
    zoom = reading.recording.zoom.tolist()
    by_fixation = [
        (f"{area:.3f},{screen[box][0]}", screen[box][1]) for area, box in zip(pupil, zoom, strict=True)
    ]  # fmt: skip
    return [by_fixation[index] for index in samples.fixation.tolist()]


def _sample_line(samples: Samples, index: int, cells: tuple[str, str]) -> str:
    """A blink leaves position, pupil and resolution empty."""
    second, x, y = samples.seconds[index], samples.x[index], samples.y[index]
    if np.isnan(x):
        return f"{second:.3f},,,,,,{cells[1]}"
    return f"{second:.3f},{round(x)},{round(y)},{cells[0]},{cells[1]}"
