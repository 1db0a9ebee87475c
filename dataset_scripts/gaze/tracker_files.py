"""The files of trackers' programs -> a header and cells: delimited text, EyeLink ASC, jsPsych JSON, BIDS recordings.

What is no table becomes one here, with columns that `tracker_formats` names.
"""

import csv
import gzip
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.files.json_files import read_json
from dataset_scripts.files.tables import number, read_table
from dataset_scripts.files.texts import encoding_of
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

DELIMITERS = "\t;,"
TABLE = "rows of gaze files"
SUFFIXES = (".csv", ".tsv", ".txt", ".asc", ".gz", ".json")
_ASC = ("start", "duration", "x", "y", "stimulus", "onset", "left", "top", "width", "height")
_ASC_MESSAGE = re.compile(r"MSG\s+(\d+(?:\.\d+)?)\s+(?:(-?\d+)\s+)?(.*)")
_ASC_ERROR = re.compile(r"!CAL VALIDATION .*\b(LEFT|RIGHT)\b.* ERROR\s+(\d+(?:\.\d+)?)")
_BIDS_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_PHYSIO = re.compile(r"(?:_recording-[^_]+)?_physio\.tsv(?:\.gz)?$")


class Cells(NamedTuple):
    """A table, row by row; `delimiter` is "" where the file was none."""

    names: list[str]
    rows: Iterable[list[str]]
    delimiter: str


def read_cells(path: Path, ledger: Ledger) -> Cells:
    """The table in a file, whatever its kind.

    Raises:
        UserError: its name ends otherwise than in SUFFIXES, its encoding is another, or it breaks off.
    """
    name = path.name.lower()
    if name.endswith(".edf"):
        raise UserError(f"{path.name}: a binary recording of EyeLink; expected what edf2asc makes of it, or a report")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path.name}: expected gaze that ends in {', '.join(SUFFIXES)}")
    if name.endswith(".json"):
        return _from_jspsych(read_json(path, path.name, ledger), path.name)
    if _PHYSIO.search(name):
        return _from_bids(path, ledger)
    lines = _lines(path, ledger)
    first = next(lines, "")
    if first.startswith("**"):
        return _from_asc(list(lines), path.name)
    delimiter = max(DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    if delimiter == ",":
        rows = read_table(path, (), ledger, TABLE)
        return Cells(list(rows[0]) if rows else names, (list(row.values()) for row in rows), delimiter)
    return Cells(names, csv.reader(lines, delimiter=delimiter), delimiter)


def _lines(path: Path, ledger: Ledger) -> Iterator[str]:
    encoding = encoding_of(path, path.name, ledger)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding=encoding, newline="") as lines:
        yield from lines


# --- EyeLink ---


def _from_asc(lines: list[str], name: str) -> Cells:
    """The fixations of the eye that was calibrated better; of two alike, of the one with more of them."""
    eyes = [cells[1] for cells in map(str.split, lines) if cells[:1] == ["EFIX"] and len(cells) >= 7]
    errors = {found[1][0]: float(found[2]) for line in lines if (found := _ASC_ERROR.search(line))}
    if not eyes:
        raise UserError(f"{name}: no line EFIX; expected the events of edf2asc, not the samples alone")
    eye = min(sorted(set(eyes)), key=lambda eye: (errors.get(eye, math.inf), -eyes.count(eye)))
    trials, screen = [[""] * 6], ["0", "0", "", ""]
    rows = list[tuple[list[str], list[str]]]()  # a fixation, and what is told of its trial, perhaps after it
    for line in lines:
        cells = line.split()
        if message := _ASC_MESSAGE.match(line):
            if message[3].startswith("TRIALID"):
                trials.append([message[3].removeprefix("TRIALID").strip(), *[""] * 5])
            screen = _told(message[3].split(), trials[-1], screen, float(message[1]) - float(message[2] or 0))
        elif cells[:1] == ["START"] and not trials[-1][1]:
            trials[-1][1] = "".join(cells[1:2])
        elif cells[:2] == ["EFIX", eye] and len(cells) >= 7:
            rows.append(([cells[2], *cells[4:7]], trials[-1]))
    return Cells([f"asc {column}" for column in _ASC], [fixation + told for fixation, told in rows], "")


def _told(words: list[str], told: list[str], screen: list[str], milliseconds: float) -> list[str]:
    """The screen, after one message; what it says of its trial is written into `told`."""
    if words[:1] in (["DISPLAY_COORDS"], ["GAZE_COORDS"]) and len(words) >= 5:
        left, top, right, bottom = (number(word) or 0.0 for word in words[1:5])
        return [f"{left:g}", f"{top:g}", f"{right + 1 - left:g}", f"{bottom + 1 - top:g}"]
    if words[:1] == ["SYNCTIME"]:
        told[1] = f"{milliseconds:.6f}"
    elif words[:2] == ["!V", "IMGLOAD"] and len(words) >= 4:
        told[0], given = words[3], [number(word) for word in words[4:8]]
        edges = [value for value in given if value is not None]
        if words[2] == "FILL":
            told[2:] = screen
        elif len(edges) == 4:
            x, y, width, height = edges
            x, y = (x - width / 2, y - height / 2) if words[2] == "CENTER" else (x, y)
            told[2:] = [f"{value:g}" for value in (x, y, width, height)]
    return screen


# --- jsPsych ---


def _from_jspsych(trials: Any, name: str) -> Cells:
    """A row a sample of every trial with `webgazer_data`; the picture's place is that of its only target."""
    names = ["webgazer x", "webgazer y", "webgazer t", "stimulus", "left", "top", "width", "height"]
    rows = []
    for place, trial in enumerate(trials if isinstance(trials, list) else [], 1):
        try:
            samples = trial.get("webgazer_data") or []
            targets = list((trial.get("webgazer_targets") or {}).values())
            edges = [str(targets[0][edge]) for edge in names[4:]] if len(targets) == 1 else [""] * 4
            told = [str(trial.get("stimulus") or ""), *edges]
            rows += [[*("" if one[axis] is None else str(one[axis]) for axis in "xyt"), *told] for one in samples]
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"{name}: trial {place} is not as jsPsych writes it with its WebGazer extension") from None
    return Cells(names if rows else [], rows, "")


# --- BIDS ---


def _from_bids(path: Path, ledger: Ledger) -> Cells:
    """The samples of `*_physio.tsv.gz`, which has no header: its `.json` has, and `*_events.tsv` the stimuli."""
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".tsv") + ".json")
    if not sidecar.is_file():
        raise UserError(f"{path.name}: {sidecar.name} is missing; expected it to name the columns and their units")
    told = read_json(sidecar, sidecar.name, ledger)
    columns = told.get("Columns") if isinstance(told, dict) else None
    names = [str(name) for name in columns] if isinstance(columns, list) else []
    if not {"timestamp", "x_coordinate", "y_coordinate"} <= set(names):
        raise UserError(f"{sidecar.name}: expected Columns with timestamp, x_coordinate and y_coordinate")
    if told.get("PhysioType") != "eyetrack" or told.get("SampleCoordinateSystem") != "gaze-on-screen":
        found = f"{told.get('PhysioType')}, {told.get('SampleCoordinateSystem')}"
        raise UserError(f"{sidecar.name}: {found}; expected PhysioType eyetrack, SampleCoordinateSystem gaze-on-screen")
    described = [told[name] if isinstance(told.get(name), dict) else {} for name in names]
    units = [str(column.get("Units") or "") for column in described]
    rows = list(csv.reader(_lines(path, ledger), delimiter="\t"))
    events = path.with_name(_PHYSIO.sub("_events.tsv", path.name))
    shown = list(csv.DictReader(_lines(events, ledger), delimiter="\t", restval="")) if events.is_file() else []
    stimuli = _bids_stimuli(shown, rows, names.index("timestamp"), units, number(str(told.get("StartTime"))), path.name)
    header = [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]
    return Cells([*header, "bids stimulus"], [[*row, shown] for row, shown in zip(rows, stimuli, strict=True)], "")


def _bids_stimuli(
    events: list[dict[str, str]], rows: list[list[str]], at: int, units: list[str], start: float | None, name: str
) -> list[str]:
    """What was on the screen at every sample; "" where the events' table has none, or there is no such table."""
    times = [number(row[at]) if at < len(row) else None for row in rows]
    first = next((time for time in times if time is not None), None)
    if not events or first is None:
        return [""] * len(rows)
    unit = units[at].lower()
    if start is None or unit not in _BIDS_SECONDS:
        raise UserError(f"{name}: its events.tsv needs StartTime in seconds and timestamp's Units, s, ms, us or ns")
    spans = []
    for event in events:
        onset, duration = (number(event.get(name) or "") for name in ("onset", "duration"))
        if onset is not None and duration is not None and event.get("stim_file", "n/a") != "n/a":
            spans.append((onset, onset + duration, event["stim_file"]))
    since = [None if time is None else start + (time - first) * _BIDS_SECONDS[unit] for time in times]
    return [
        next((shown for begin, end, shown in spans if time is not None and begin <= time < end), "") for time in since
    ]
