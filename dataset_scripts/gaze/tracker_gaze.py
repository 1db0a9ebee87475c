"""One reading's gaze as a lab's tracker wrote it -> fixations of the schema; docs/tracker.md says it to the lab.

Exports of trackers' programs as in tracker_formats. CSV of a lab's own, units as in tracker_columns:
    fixations      `x`, `y`, `start`, and `duration` or else `end`
    raw samples    `x`, `y`, `time`, optional `valid`: 1, or 0 and blank for a sample not to be used
JSON `{"fixations": {"x": [], "y": [], "start": [], "duration": []}}`, in the units of the schema, of which the other
columns may be there too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.files.json_files import read_json
from dataset_scripts.files.tables import FloatArray, Row, flag
from dataset_scripts.gaze.fixation_detection import MAX_GAP_SECONDS, MIN_DURATION_SECONDS, detect_fixations
from dataset_scripts.gaze.fixations import valid_fixations
from dataset_scripts.gaze.lost_eye import BoolArray, frozen_samples, lost_eye
from dataset_scripts.gaze.tracker_columns import (
    MAX_INTERVAL_SECONDS,
    MIN_INTERVAL_SECONDS,
    Column,
    Frame,
    Source,
    positions_on_image,
    read_positions,
    require_possible_times,
    times_in_seconds,
)
from dataset_scripts.gaze.tracker_exports import read_export
from dataset_scripts.ledger import OFFENDERS_NAMED, Dropped, Ledger
from dataset_scripts.schema import Fixations, UserError

FIXATION_TABLE, SAMPLE_TABLE, DETECTED_TABLE = "fixations", "samples", "fixations found in samples"
DISPERSION_DEGREES = 1.0
DISPERSION_DIAGONALS = 0.025  # about a degree: in REFLACX 94 pixels of an image of 2544 x 3056, 0.024 of its diagonal
LEAST_TO_SUSPECT = 10  # fixations, so that their median and extent say something
MAX_JSON_BYTES = 1 << 28
UNIT_JUMP, SHARE_OF_JUMPS = 100, 0.1  # of intervals of samples; between seconds and milliseconds lie 1,000
_JSON_FORM = '{"fixations": {"x": [], "y": [], "start": [], "duration": []}} with a number a fixation in each list'
_WIDTHS, _SHOWN = ("sigma_x", "sigma_y"), ("x_min", "y_min", "x_max", "y_max")


def read_gaze(source: Source) -> Fixations | None:
    """The fixations of a file that lie on the image, None when there is none.

    Raises:
        UserError: another format, not what its name says, a decimal comma, or a unit that cannot be told.
        Dropped: the samples' times run backwards, or are too far apart to find fixations.
    """
    path = source.path
    if path.suffix.lower() == ".json" and path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path.name}: larger than {MAX_JSON_BYTES} bytes; expected the fixations of one reading")
    if path.suffix.lower() == ".json":
        content = read_json(path, path.name, source.ledger)
        if not (isinstance(content, list) and content):
            recorded = _json_columns(path, content)
            lost = lost_eye(recorded["x"], recorded["y"], FIXATION_TABLE, source.where, source.ledger)
            return _valid(recorded, FIXATION_TABLE, source, lost)
    rows, columns, source = read_export(source)
    if not rows:
        source.ledger.note("gaze_file_has_no_row", source.where)
        return None
    if "time" in columns:
        return _valid(_detected(rows, columns, source), DETECTED_TABLE, source)
    fixations, lost = _fixation_columns(rows, columns, source)
    marked = _marked(rows, columns, source)
    return _valid(fixations, FIXATION_TABLE, source, lost, marked if marked.any() else None)


def _valid(
    columns: dict[str, FloatArray],
    table: str,
    source: Source,
    lost: BoolArray | None = None,
    marked: BoolArray | None = None,
) -> Fixations | None:
    if table == FIXATION_TABLE and source.is_eye:
        require_possible_times(columns["start"], columns["duration"], source.path.name)
    note_suspicion(columns["x"], columns["y"], source.where, source.ledger)
    frame = source.frame
    if frame.width_degrees is not None:
        sigma_x = np.full(len(columns["x"]), 1 / frame.width_degrees)
        if len(frame.screen) > 1:  # enlarged, the same angle is less of the image
            left, _, right, _ = frame.edges_at(columns["start"]).T
            first = next(place.edges for place in frame.screen if place.edges)
            sigma_x *= (first[2] - first[0]) / (right - left)
        columns |= {"sigma_x": sigma_x, "sigma_y": sigma_x * frame.width / frame.height}
    return valid_fixations(columns, table, source.where, source.ledger, lost, marked)


def note_suspicion(x: FloatArray, y: FloatArray, where: str, ledger: Ledger) -> None:
    """Note where fixations, (F,) fractions of the image, lie as they do with another origin, scale or frame.

    Of 125 recordings of a radiologist (SIIM-ACR) 1 is suspected, all at half their scale and 108 at twice it. Upside
    down within the image they are not: fixations lie as much above the middle as below it.
    """
    seen = np.isfinite(x) & np.isfinite(y)
    x, y = x[seen], y[seen]
    if len(x) < LEAST_TO_SUSPECT:
        return
    outside = float(((x < 0) | (x >= 1) | (y < 0) | (y >= 1)).mean())
    centre = (float(np.median(x)), float(np.median(y)))
    in_corner = np.percentile(x, 95) < 0.55 and (np.percentile(y, 95) < 0.55 or np.percentile(y, 5) > 0.45)
    for told, is_so in (
        (f"{outside:.0%} outside the image", outside > 0.5),
        ("95 % in one quarter of the image on the left, as with half the scale", in_corner),
        (f"centre at ({centre[0]:.2f}, {centre[1]:.2f})", not all(0.1 <= middle <= 0.9 for middle in centre)),
    ):
        if is_so:
            ledger.note("origin_or_scale_suspected", f"{where}: {len(x)} fixations, {told}")
            return


def _json_columns(path: Path, recording: Any) -> dict[str, FloatArray]:
    fixations = recording.get("fixations") if isinstance(recording, dict) else None
    if not isinstance(fixations, dict):
        raise UserError(f"{path.name}: it has no fixations; expected {_JSON_FORM}")
    optional = [name for name in (*_WIDTHS, *_SHOWN) if fixations.get(name) is not None]
    columns = {}
    for name in ("x", "y", "start", "duration", *optional):
        numbers = _json_numbers(fixations.get(name))
        if numbers is None:
            raise UserError(f"{path.name}: {name} is no list of numbers; expected {_JSON_FORM}")
        columns[name] = numbers
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        differing = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{path.name}: columns differ in length ({differing}); expected one number a fixation in each")
    for group in (_WIDTHS, _SHOWN):
        if 0 < len(columns.keys() & set(group)) < len(group):
            raise UserError(f"{path.name}: expected all of {', '.join(group)}, or none")
    if any((columns[name] <= 0).any() for name in _WIDTHS if name in columns):
        raise UserError(f"{path.name}: a width of 0 or less; expected {' and '.join(_WIDTHS)} above 0")
    return columns


def _json_numbers(values: object) -> FloatArray | None:
    """NaN for a null; None where it is no list of numbers that a float can hold."""
    if not isinstance(values, list) or any(type(value) not in (int, float, type(None)) for value in values):
        return None
    try:
        return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    except OverflowError:
        return None


def _fixation_columns(
    rows: list[Row], columns: dict[str, Column], source: Source
) -> tuple[dict[str, FloatArray], BoolArray]:
    found = read_positions(rows, columns, FIXATION_TABLE, source)
    times = times_in_seconds(rows, columns, source)
    x, y = positions_on_image(found, times["start"], source)
    duration = times["duration"] if "duration" in times else times["end"] - times["start"]
    return {"x": x, "y": y, "start": times["start"], "duration": duration}, found.lost


def _detected(rows: list[Row], columns: dict[str, Column], source: Source) -> dict[str, FloatArray]:
    """Fixations found in samples; what a sample lacks is counted."""
    found = read_positions(rows, columns, SAMPLE_TABLE, source)
    time = times_in_seconds(rows, columns, source)["time"]
    x, y = positions_on_image(found, time, source)
    timed = time[np.isfinite(time)]
    backwards = np.flatnonzero(np.diff(timed) < 0)
    if backwards.size:
        row = np.flatnonzero(np.isfinite(time))[backwards[0] + 1] + 1
        raise Dropped("times_run_backwards", f"{source.path.name} row {row}; expected samples in the order of time")
    intervals = np.diff(np.unique(timed))
    if intervals.size:
        _require_one_unit(intervals, source)
        _note_detection(float(np.median(intervals)), source)
    used = _used_samples(x, y, time, _marked(rows, columns, source), found.lost, source)
    return fixations_in_samples(x[used], y[used], time[used], source.frame)


def fixations_in_samples(x: FloatArray, y: FloatArray, time: FloatArray, frame: Frame) -> dict[str, FloatArray]:
    """The fixations in samples at fractions `x`, `y` of the image and strictly increasing seconds, (S,) each.

    Returns:
        `x`, `y`, `start`, `duration`, (F,) each, in the same units.
    """
    found = detect_fixations(x * frame.width, y * frame.height, time, _dispersion_pixels(frame))
    return found | {"x": found["x"] / frame.width, "y": found["y"] / frame.height}


def _dispersion_pixels(frame: Frame) -> float:
    if frame.width_degrees is None:
        return DISPERSION_DIAGONALS * float(np.hypot(frame.width, frame.height))
    return DISPERSION_DEGREES * frame.width / frame.width_degrees


def _marked(rows: list[Row], columns: dict[str, Column], source: Source) -> BoolArray:
    """(R,) whether the file says that the sample is no good."""
    marked = np.zeros(len(rows), dtype=bool)
    if "valid" in columns:
        name = columns["valid"].name
        for index, row in enumerate(rows):
            valid = flag(row[name] or "0")
            if valid is None:
                raise UserError(f"{source.path.name}: row {index + 1}: {name} is {row[name]!r}; expected 1 or 0")
            marked[index] = not valid
    return marked


def _used_samples(
    x: FloatArray, y: FloatArray, time: FloatArray, marked: BoolArray, lost: BoolArray, source: Source
) -> BoolArray:
    repeated = np.ones(len(time), dtype=bool)
    repeated[np.unique(time, return_index=True)[1]] = False
    used = np.ones(len(time), dtype=bool)

    def drop(reason: str, failed: BoolArray) -> None:
        dropped = np.flatnonzero(failed & used)
        named = [f"{source.where} row {row + 1}" for row in dropped[:OFFENDERS_NAMED]]
        source.ledger.drop(SAMPLE_TABLE, reason, named, len(dropped))
        used[dropped] = False

    source.ledger.enter(SAMPLE_TABLE, len(time))
    drop("no_time", ~np.isfinite(time))
    drop("duplicate_time", repeated)
    drop("marked_invalid", marked)
    drop("no_position", ~(np.isfinite(x) & np.isfinite(y)))
    drop("lost_eye", lost)
    if source.is_eye and used.any():
        frozen = np.zeros(len(time), dtype=bool)
        frozen[used] = frozen_samples(x[used], y[used], time[used], source.where, source.ledger)
        drop("frozen", frozen)
    source.ledger.keep(SAMPLE_TABLE, int(used.sum()))
    return used


def _require_one_unit(intervals: FloatArray, source: Source) -> None:
    """Raise Dropped where some samples tick a hundred times as fast as others: the unit changed on the way."""
    typical = float(np.median(intervals))
    jumps = max((intervals < typical / UNIT_JUMP).mean(), (intervals > typical * UNIT_JUMP).mean())
    if jumps > SHARE_OF_JUMPS:
        raise Dropped(
            "times_change_their_unit",
            f"{source.path.name}: samples follow each other after {typical:g} s, {jumps:.0%} of them {UNIT_JUMP} times "
            "sooner or later; expected one unit throughout",
        )


def _note_detection(interval: float, source: Source) -> None:
    """Say how fixations are found.

    Raises:
        Dropped: samples so far apart that a fixation cannot be told from a movement, or so close that none is.
    """
    if interval < MIN_INTERVAL_SECONDS:
        raise Dropped("samples_too_close", f"{source.path.name}: {interval:g} s; is the unit of the times right?")
    if interval > MAX_INTERVAL_SECONDS:
        raise Dropped("samples_too_far_apart", f"{source.path.name}: {interval:g} s; expected {MAX_INTERVAL_SECONDS:g}")
    extent = "2.5 % of the image's diagonal" if source.frame.width_degrees is None else "1 degree"
    source.ledger.note(
        "fixations_found_by_dispersion",
        f"{source.where}: {1 / interval:.0f} Hz; extent at most {_dispersion_pixels(source.frame):.0f} pixels "
        f"({extent}), at least {1000 * MIN_DURATION_SECONDS:.0f} ms, "
        f"dropouts of at most {1000 * MAX_GAP_SECONDS:.0f} ms bridged",
    )
