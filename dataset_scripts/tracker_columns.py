"""The columns of a lab's gaze table, and the units that its positions and times are in.

A column's name may end in its unit. A unit is taken from there, or else from the flag, or else from the values:
    fractions      at least 95 % of the positions lie in [-0.5, 1.5], and not all of them are whole numbers
    pixels         at most 5 % do
    seconds        the median fixation lasts 0.05 to 5, the median interval of samples is 0.0004 to 0.05
    milliseconds   the same times 1000
Which it was is always noted; where nothing decides, that is an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dataset_scripts.conversion import Options
from dataset_scripts.report import Ledger
from dataset_scripts.schema import UserError
from dataset_scripts.tables import FloatArray, Row, delimiter_hint, numbers

MAX_INTERVAL_SECONDS = 0.05

_LARGEST = 1e100
_POSITIONS, _TIMES = ("x", "y"), ("start", "duration", "end", "time")
_KINDS = {**dict.fromkeys(_POSITIONS, "positions"), **dict.fromkeys(_TIMES, "times")}
_SYNONYMS = {"timestamp": "time"}
_SUFFIXES = {
    **dict.fromkeys(("px", "pixels"), "pixels"),
    **dict.fromkeys(("fraction", "fractions"), "fractions"),
    **dict.fromkeys(("s", "seconds"), "seconds"),
    **dict.fromkeys(("ms", "milliseconds"), "milliseconds"),
}
_UNITS = {"positions": ("pixels", "fractions"), "times": ("seconds", "milliseconds")}
_TYPICAL_SECONDS = {"duration": (0.05, 5.0), "interval": (0.0004, MAX_INTERVAL_SECONDS)}


class Frame(NamedTuple):
    """The image that gaze lay on.

    `width`, `height` in pixels; `screen` its left, top, right and bottom edge on the screen, in the unit of the
    positions, when these refer to the screen; `width_degrees` the visual angle of its width, None where unknown.
    """

    width: int
    height: int
    screen: tuple[float, float, float, float] | None
    width_degrees: float | None


class Column(NamedTuple):
    """A column of the file, and the unit that its name says."""

    name: str
    unit: str | None


class Source(NamedTuple):
    """A file, the name of its reading in the ledger, and what holds for it."""

    path: Path
    where: str
    frame: Frame
    options: Options
    ledger: Ledger


def gaze_columns(names: Sequence[str], source: Source) -> dict[str, Column]:
    """The columns of the file that are read, by what they hold: `x`, `y`, `start`, `duration`, `end`, `time`, `valid`.

    Raises:
        UserError: one is missing or there twice; names what there is.
    """
    found: dict[str, Column] = {}
    for name in names:
        base, unit = _meaning(name)
        if base in found:
            raise UserError(f"{source.path.name}: columns {found[base].name} and {name} say the same; expected one")
        if base is not None:
            found[base] = Column(name, unit)
    times = found.keys() & set(_TIMES)
    if not {"x", "y"} <= found.keys() or (times != {"time"} and not {"start"} < times <= {"start", "duration", "end"}):
        raise UserError(
            f"{source.path.name}: expected the columns x, y and either time alone (samples) or start and duration or "
            f"end (fixations); it has {', '.join(names)}{delimiter_hint(names)}"
        )
    if "valid" not in found and "validity" in [name.lower() for name in names]:
        raise UserError(
            f"{source.path.name}: column validity differs by vendor; expected valid, 1 to use a sample or 0"
        )
    unread = [name for name in names if name not in [column.name for column in found.values()]]
    if unread:
        source.ledger.note("gaze_columns_not_read", f"{source.where}: {', '.join(unread)}")
    return found


def _meaning(name: str) -> tuple[str | None, str | None]:
    """What a column holds, None where it is not read, and the unit that its name says."""
    lower = name.lower()
    stem, _, suffix = lower.rpartition("_")
    unit = _SUFFIXES.get(suffix)
    base = _SYNONYMS.get(stem, stem) if unit else _SYNONYMS.get(lower, lower)
    if unit and unit in _UNITS.get(_KINDS.get(base, ""), ()):
        return base, unit
    return (base, None) if not unit and (base in _KINDS or base == "valid") else (None, None)


def _named_unit(kind: str, columns: Sequence[Column], source: Source) -> str | None:
    """The unit that the columns' names say, or else the flag, noted."""
    units = {column.unit for column in columns}
    if len(units) > 1:
        names = ", ".join(column.name for column in columns)
        raise UserError(f"{source.path.name}: columns {names} differ in their unit; expected the same in every name")
    (unit,) = units
    flag = source.options.coordinates if kind == "positions" else source.options.time_unit
    if unit or flag:
        source.ledger.note(f"{kind}_in_{unit or flag}_by_{'column_name' if unit else 'flag'}", source.where)
    return unit or flag


def _position_unit(columns: Sequence[Column], x: FloatArray, y: FloatArray, source: Source) -> str:
    if named := _named_unit("positions", columns, source):
        return named
    positions = np.stack([x, y])[:, np.isfinite(x) & np.isfinite(y)]
    if not positions.size:
        return "fractions"  # nothing to scale
    share = ((positions >= -0.5) & (positions <= 1.5)).all(axis=0).mean()
    if share >= 0.95 and (positions != np.round(positions)).any():
        return _detected_unit("positions", "fractions", source)
    if share <= 0.05:
        return _detected_unit("positions", "pixels", source)
    raise UserError(
        f"{source.path.name}: cannot tell pixels from fractions ({share:.0%} of the positions lie in -0.5 ... 1.5); "
        "name the columns x_pixels, y_pixels or x_fraction, y_fraction, or set --coordinates"
    )


def seconds_per_unit(
    columns: Sequence[Column], typical: Literal["duration", "interval"], values: FloatArray, source: Source
) -> float:
    """The unit of the times in these columns; `values` are durations or intervals in that unit, to tell it by.

    Raises:
        UserError: the columns' names differ in their unit, or nothing says it.
    """
    return 1.0 if _time_unit(columns, typical, values, source) == "seconds" else 0.001


def _time_unit(columns: Sequence[Column], typical: str, values: FloatArray, source: Source) -> str:
    if named := _named_unit("times", columns, source):
        return named
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return "seconds"  # nothing to scale
    middle = float(np.median(values))
    low, high = _TYPICAL_SECONDS[typical]
    for unit, scale in (("seconds", 1), ("milliseconds", 1000)):
        if low * scale <= middle <= high * scale:
            return _detected_unit("times", unit, source)
    raise UserError(
        f"{source.path.name}: cannot tell seconds from milliseconds (the median {typical} is {middle:g}); name the "
        f"columns {columns[0].name}_seconds or {columns[0].name}_ms and so on, or set --time-unit"
    )


def _detected_unit(kind: str, unit: str, source: Source) -> str:
    source.ledger.note(f"{kind}_in_{unit}_by_their_values", source.where)
    return unit


def column_numbers(rows: list[Row], column: Column, source: Source) -> FloatArray:
    """(R,) a column's numbers; NaN where a cell holds none, or one so large that no difference could be computed.

    Raises:
        UserError: a decimal comma.
    """
    try:
        values = numbers(rows, column.name)
    except UserError as error:
        raise UserError(f"{source.path.name}: {error}") from None
    values[np.abs(values) > _LARGEST] = np.nan
    return values


def positions_on_image(rows: list[Row], columns: dict[str, Column], source: Source) -> tuple[FloatArray, FloatArray]:
    """(R,) each: x and y as fractions of the image; NaN where a cell holds no number.

    Raises:
        UserError: a decimal comma, a unit that nothing says, or edges on the screen that cannot be in that unit.
    """
    pair = [columns[name] for name in _POSITIONS]
    x, y = (column_numbers(rows, column, source) for column in pair)
    unit = _position_unit(pair, x, y, source)
    frame = source.frame
    if frame.screen is None:
        return (x / frame.width, y / frame.height) if unit == "pixels" else (x, y)
    left, top, right, bottom = frame.screen
    if (max(frame.screen) <= 1.5) != (unit == "fractions"):
        raise UserError(
            f"{source.path.name}: positions are in {unit}; expected the image's edges on the screen in them"
        )
    return (x - left) / (right - left), (y - top) / (bottom - top)
