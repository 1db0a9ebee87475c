"""The columns of a lab's gaze table, and the units that its positions and times are in.

A column's name may end in its unit. Its unit is taken from there, or else from the flag, or else from its values:
    fractions      at least 95 % of the positions lie in [-0.5, 1.5], and not all of them are whole numbers
    pixels         at most 5 % do
    seconds        clock times; or the median fixation lasts 0.05 to 5, the median step from one start (or end) to the
                   next is 0.05 to 5, the median interval of samples is 0.0004 to 0.05
    milliseconds, microseconds, nanoseconds        the same numbers times 1000, and so on
Every column has its own: a start in seconds may stand beside a duration in milliseconds. Which it was is always noted;
where nothing decides, or the times that come out cannot be those of one eye, that is an error.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dataset_scripts.files.tables import FloatArray, Row, number, numbers
from dataset_scripts.gaze.lost_eye import BoolArray, lost_eye
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.0001, 0.05  # of samples

_LARGEST = 1e100
_POSITIONS, _TIMES = ("x", "y"), ("start", "duration", "end", "time")
KINDS = {**dict.fromkeys(_POSITIONS, "positions"), **dict.fromkeys(_TIMES, "times")}
TIME_SCALES = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
UNITS = {"positions": ("pixels", "fractions"), "times": tuple(TIME_SCALES)}
_FIXATION_SECONDS, _SAMPLE_SECONDS = (0.05, 5.0), (0.0004, MAX_INTERVAL_SECONDS)
_POSSIBLE_FIXATION_SECONDS = (0.005, 50.0)  # of the median, whatever says the unit
_POSSIBLE_STEPS = (0.02, 1000.0)  # the median step from start to start, in median durations
_CLOCK = re.compile(r"(?:(?:([0-9]+) days? )?([0-9]{1,4}):)?([0-5]?[0-9]):([0-5]?[0-9])([.,][0-9]{1,9})?")


class Shown(NamedTuple):
    """Where the image lay on the screen from `start_seconds` on, until the next place.

    `edges` are its left, top, right and bottom in the unit of the positions, None while it was not shown.
    """

    start_seconds: float
    edges: tuple[float, float, float, float] | None


class Frame(NamedTuple):
    """The image that gaze lay on.

    `width`, `height` in pixels; `screen` its places in the order of time, none when positions refer to the image;
    `width_degrees` the visual angle of its width where it was first shown, None where unknown.
    """

    width: int
    height: int
    screen: tuple[Shown, ...]
    width_degrees: float | None

    def edges_at(self, seconds: FloatArray) -> FloatArray:
        """(R, 4) the image's edges on the screen at these times; NaN where it was not shown."""
        edges = np.array([place.edges or (np.nan,) * 4 for place in self.screen])
        place = np.searchsorted([place.start_seconds for place in self.screen], seconds, side="right") - 1
        return np.where(place[:, None] < 0, np.nan, edges[place])


class Column(NamedTuple):
    """A column of the file, and the unit that is said of it, by its name or by what is known of the file's format."""

    name: str
    unit: str | None
    said_by: Literal["column_name", "format"] = "column_name"


class Pick(NamedTuple):
    """Which part of a file with many recordings belongs to a reading: what its row says, "" where it says nothing."""

    image: str = ""
    stimulus: str = ""
    recording: str = ""
    reader: str = ""


class Source(NamedTuple):
    """A file, the name of its reading in the ledger, and what holds for it; not `is_eye` where a mouse stood in.

    `coordinates` and `time_unit` are the user's word for units that no column names, None where there is none; `named`
    that for the columns of a file of another kind; `origin` that for the corner that positions count from.
    """

    path: Path
    where: str
    frame: Frame
    ledger: Ledger
    coordinates: Literal["pixels", "fractions"] | None = None
    time_unit: Literal["seconds", "milliseconds"] | None = None
    is_eye: bool = True
    origin: Literal["top-left", "bottom-left"] | None = None
    named: tuple[tuple[str, str], ...] = ()
    pick: Pick = Pick()


def times_in_seconds(rows: list[Row], columns: dict[str, Column], source: Source) -> dict[str, FloatArray]:
    """(R,) each of the columns of times that are read, by what they hold; NaN where a cell holds no time.

    Raises:
        UserError: a column holds no time, numbers beside clock times, or a decimal comma; or nothing says its unit.
    """
    found, told = dict[str, FloatArray](), dict[str, str]()
    for kind in (kind for kind in _TIMES if kind in columns and (kind != "end" or "duration" not in columns)):
        column = columns[kind]
        clock = _clock_times(rows, column, source)
        values = column_numbers(rows, column, source) if clock is None else clock
        unit = "seconds_by_clock_times" if clock is not None else _named_unit(column, source.time_unit)
        told[column.name] = unit or _shown_time_unit(kind, column, values, source)
        found[kind] = values / TIME_SCALES.get(told[column.name].partition("_")[0], 1.0)
    _note_units("times", told, source)
    return found


def clock_seconds(cell: str) -> float | None:
    """The seconds in `HH:MM:SS`, `HH:MM:SS.fff`, `MM:SS.fff` (or with a comma), `0 days HH:MM:SS`; else None."""
    found = _CLOCK.fullmatch(cell)
    if found is None or (found[2] is None and found[5] is None):  # 10:30 may be a time of day
        return None
    days, hours, minutes, seconds = (int(found[place] or 0) for place in (1, 2, 3, 4))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + float((found[5] or ".0").replace(",", "."))


def _clock_times(rows: list[Row], column: Column, source: Source) -> FloatArray | None:
    """A column of clock times in seconds, NaN where a cell holds none; None where no cell does."""
    times = [clock_seconds(row[column.name]) for row in rows]
    if all(time is None for time in times):
        return None
    if column.unit not in (None, "seconds") or any(number(row[column.name]) is not None for row in rows):
        raise UserError(f"{source.path.name}: column {column.name} mixes clock times and numbers, or says milliseconds")
    return np.array([np.nan if time is None else time for time in times])


def _note_units(kind: str, told: dict[str, str], source: Source) -> None:
    """Note what the unit of every column is, and by what; "" where there is nothing to scale."""
    for unit in sorted(set(told.values()) - {""}):
        names = ", ".join(name for name, its_unit in told.items() if its_unit == unit)
        source.ledger.note(f"{kind}_in_{unit}", f"{source.where}: {names}")


def _named_unit(column: Column, flag: str | None) -> str | None:
    """The unit that is said of the column, or else the flag."""
    return f"{column.unit}_by_{column.said_by}" if column.unit else f"{flag}_by_flag" if flag else None


def _shown_time_unit(kind: str, column: Column, values: FloatArray, source: Source) -> str:
    values = values[np.isfinite(values)]
    steps = values[values > 0] if kind == "duration" else np.diff(np.unique(values))
    if not steps.size and (kind in ("duration", "time") or not values.any()):
        return ""
    middle = float(np.median(steps)) if steps.size else np.nan
    low, high = _SAMPLE_SECONDS if kind == "time" else _FIXATION_SECONDS
    for unit, scale in TIME_SCALES.items():
        if low * scale <= middle <= high * scale:
            return f"{unit}_by_their_values"
    shown = {"duration": "duration", "time": "interval"}.get(kind, f"step from {kind} to {kind}")
    found = f"the median {shown} is {middle:g}" if steps.size else f"there is but one {kind}"
    raise UserError(
        f"{source.path.name}: cannot tell seconds from milliseconds ({found}); name the columns {column.name}_seconds "
        f"or {column.name}_ms and so on, or set --time-unit"
    )


def require_possible_times(start: FloatArray, duration: FloatArray, name: str) -> None:
    """Raise UserError where no eye can have rested so, in seconds: a unit that is named or given can be wrong too."""
    lasting = duration[np.isfinite(duration) & (duration > 0)]
    if not lasting.size:
        return
    length, steps = float(np.median(lasting)), np.diff(np.unique(start[np.isfinite(start)]))
    step = float(np.median(steps)) if steps.size else length
    (shortest, longest), (least, most) = _POSSIBLE_FIXATION_SECONDS, _POSSIBLE_STEPS
    if not (shortest <= length <= longest and least <= step / length <= most):
        raise UserError(
            f"{name}: fixations last {length:g} s and begin {step:g} s after each other (medians), which no eye does; "
            "name the unit of every column, such as start_seconds, duration_ms"
        )


def _position_unit(columns: Sequence[Column], values: Sequence[FloatArray], source: Source) -> str:
    """The unit of both columns of positions, noted, "" where there is none; `values` without those of a lost eye."""
    told = {
        column.name: _named_unit(column, source.coordinates) or _shown_position_unit(shown)
        for column, shown in zip(columns, values, strict=True)
    }
    units = {unit.partition("_")[0] for unit in told.values()} - {""}
    if len(units) > 1:
        raise UserError(f"{source.path.name}: columns {', '.join(told)} differ in their unit; expected the same")
    if not units and values[0].size:
        raise UserError(
            f"{source.path.name}: cannot tell pixels from fractions ({_share_near_one(np.concatenate(values)):.0%} of "
            "the positions lie in -0.5 ... 1.5); name the columns x_pixels, y_pixels or x_fraction, y_fraction, or set "
            "--coordinates"
        )
    _note_units("positions", told, source)
    return units.pop() if units else ""


def _shown_position_unit(values: FloatArray) -> str:
    share = _share_near_one(values)
    if share >= 0.95 and (values[np.isfinite(values)] % 1).any():
        return "fractions_by_their_values"
    return "pixels_by_their_values" if share <= 0.05 else ""


def _share_near_one(values: FloatArray) -> float:
    values = values[np.isfinite(values)]
    return float(((values >= -0.5) & (values <= 1.5)).mean()) if values.size else np.nan


def column_numbers(rows: list[Row], column: Column, source: Source) -> FloatArray:
    """(R,) a column's numbers; NaN where a cell holds none, or one so large that no difference could be computed.

    Raises:
        UserError: a decimal comma, or not a single number.
    """
    try:
        values = numbers(rows, column.name)
    except UserError as error:
        raise UserError(f"{source.path.name}: {error}") from None
    values[np.abs(values) > _LARGEST] = np.nan
    return values


class Positions(NamedTuple):
    """x and y (R,) as in the file, NaN where a cell holds no number, their unit, and whether the eye was lost (R,)."""

    x: FloatArray
    y: FloatArray
    unit: str
    lost: BoolArray


def read_positions(rows: list[Row], columns: dict[str, Column], kind: str, source: Source) -> Positions:
    """The columns of positions.

    Raises:
        UserError: a decimal comma, or a unit that nothing says.
    """
    pair = [columns[name] for name in _POSITIONS]
    x, y = (column_numbers(rows, column, source) for column in pair)
    lost = lost_eye(x, y, kind, source.where, source.ledger)
    return Positions(x, y, _position_unit(pair, [x[~lost], y[~lost]], source), lost)


def positions_on_image(found: Positions, seconds: FloatArray, source: Source) -> tuple[FloatArray, FloatArray]:
    """(R,) x and y as fractions of the image; NaN, and noted, at `seconds` (R,) in which it was not on the screen.

    Raises:
        UserError: edges on the screen that cannot be in the unit of the positions.
    """
    x, y, unit, _ = found
    frame = source.frame
    if not frame.screen:
        x, y = (x / frame.width, y / frame.height) if unit == "pixels" else (x, y)
        return x, 1 - y if source.origin == "bottom-left" else y
    if source.origin == "bottom-left":
        raise UserError(
            f"{source.path.name}: --origin bottom-left, but the export or screen_... of readings.csv tells the image's "
            "edges on the screen, from its top; expected top-left"
        )
    edges = frame.edges_at(seconds)
    shown = np.isfinite(edges).all(axis=1)
    if hidden := int((np.isfinite(x) & ~shown).sum()):
        source.ledger.note("image_not_on_the_screen", f"{source.where}: {hidden} of {len(x)} rows")
    if unit and shown.any() and (edges[shown].max() <= 1.5) != (unit == "fractions"):
        raise UserError(
            f"{source.path.name}: positions are in {unit}; expected the image's edges on the screen in them"
        )
    left, top, right, bottom = edges.T
    return (x - left) / (right - left), (y - top) / (bottom - top)
