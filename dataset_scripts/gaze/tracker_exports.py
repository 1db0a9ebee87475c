"""A table of gaze -> the rows and columns of one reading, as `tracker_columns` reads them, by its row of FORMATS."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from dataset_scripts.files.tables import Row, delimiter_hint, number, portable_path
from dataset_scripts.gaze.tracker_columns import KINDS, UNITS, Column, Frame, Shown, Source
from dataset_scripts.gaze.tracker_files import read_cells
from dataset_scripts.gaze.tracker_formats import BRACKETS, FORMATS, OWN, Format, Header, Place, header
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

NAMEABLE = (*KINDS, "valid", "stimulus", "recording")
_DECIMAL_COMMA = re.compile(r"-?\d*,\d+")
_SHOWN = 5  # names in a message


class Table(NamedTuple):
    """A table of gaze: its columns x, y, times and `valid`, and the cells of all that is read, by what they hold.

    `cells` has these and `stimulus`, `recording`, and perhaps `group`, `only`, `zero` and the edges `0` to `3`.
    """

    format: Format
    place: Place
    columns: dict[str, Column]
    cells: dict[str, list[str]]
    has_decimal_commas: bool
    unread: list[str]


def read_export(source: Source) -> tuple[list[Row], dict[str, Column], Source]:
    """The rows and columns of one reading, and what holds for them.

    Times count from the onset of the stimulus, or from its first row where the export has no onset; that is noted.

    Raises:
        UserError: several stimuli or recordings, of which none is named; positions of a scene camera, or of the screen
            where nothing tells where on it the image was; or as `read_table`.
    """
    table = read_table(source.path, source.ledger, source.named)
    if table is None:
        names = read_cells(source.path, Ledger()).names
        raise UserError(
            f"{source.path.name}: expected the columns x, y and either time alone (samples) or start and duration or "
            "end (fixations), those of a tracker's export, or --columns to name them; it has "
            f"{', '.join(names) or 'nothing'}{delimiter_hint(names)}"
        )
    indices, told = _of_reading(table, source)
    zero = _zero(table, indices)
    rows = _rows(table, indices, zero)
    if zero:
        told.append(f"0 s is {zero} in its {table.columns['time' if 'time' in table.columns else 'start'].name}")
    if table.format is not OWN or told:
        reason = re.sub(r"\W+", "_", f"gaze read as {table.format.name}".lower())
        source.ledger.note(reason, f"{source.where}: {', '.join([source.path.name, *told])}")
    if table.unread:
        source.ledger.note("gaze_columns_not_read", f"{source.where}: {', '.join(table.unread)}")
    if table.has_decimal_commas:
        source.ledger.note("decimal_commas_read", source.where)
    origin = "bottom-left" if table.format.is_upward else source.origin
    return rows, table.columns, source._replace(frame=_frame(table, indices, source), origin=origin)


def read_table(path: Path, ledger: Ledger, named: tuple[tuple[str, str], ...] = ()) -> Table | None:
    """A table of gaze, read once for readings that follow each other in it; None where it is none that is known.

    Raises:
        UserError: a named column is missing, two say the same, a row is longer than the header, or as `read_cells`.
    """
    found = path.stat()
    try:
        table, noted = _read_table(path, (found.st_mtime_ns, found.st_size), named)
    except csv.Error as error:
        raise UserError(f"{path.name}: expected a table ({error})") from None
    # of every reading in it, as who reads it first depends on the processes
    ledger.merge(noted)
    return table


@lru_cache(maxsize=2)
def _read_table(
    path: Path, _version: tuple[int, int], named: tuple[tuple[str, str], ...]
) -> tuple[Table | None, Ledger]:
    ledger = Ledger()
    names, rows, delimiter = read_cells(path, ledger)
    headers = [header(name) for name in names]
    if named:
        headers = _renamed(headers, named, path)
    bases = {found.base for found in headers} - {""}
    format = next((one for one in ((OWN,) if named else (*FORMATS, OWN)) if _fits(one, bases)), None)
    if format is None:
        return None, ledger
    if format is OWN:
        _check_own(headers, path)
    if format.place == "scene":
        raise UserError(
            f"{path.name}: {format.name}: such positions do not say where on the image a reader looked; expected the "
            "export of a surface, of the reference image mapper or of the marker mapper"
        )
    used = {what: [_best(headers, base) for base in found] for what, found in _uses(format, bases).items()}
    cells = _cells(rows, sorted({at for places in used.values() for at in places}), len(headers), path)
    numeric = [at for what in (*KINDS, *map(str, range(4)), "zero") for at in used.get(what, ())]
    has_commas = delimiter in ("\t", ";") and any(
        _DECIMAL_COMMA.fullmatch(cell) for at in numeric for cell in cells[at]
    )
    if has_commas:
        cells |= {at: [cell.replace(",", ".") for cell in cells[at]] for at in numeric}
    unread = [found.name for at, found in enumerate(headers) if format is OWN and at not in cells]
    return _canonical(format, headers, used, cells, has_commas)._replace(unread=unread), ledger


def _renamed(headers: list[Header], named: tuple[tuple[str, str], ...], path: Path) -> list[Header]:
    """The headers as those of OWN, where they are named."""
    found = [header._replace(base="") for header in headers]
    for what, name in named:
        at = [place for place, one in enumerate(headers) if header(name)[1:] == one[1:]]
        if len(at) != 1:
            told = ", ".join(one.name for one in headers)
            raise UserError(f"{path.name}: {len(at)} columns {name}; expected one, of {told}")
        found[at[0]] = headers[at[0]]._replace(base=what)
    return found


def _is_enough(found: set[str]) -> bool:
    """Whether these say where and when: samples by `time` alone, fixations by `start` and `duration` or `end`."""
    times = found & {"time", "start", "duration", "end"}
    return {"x", "y"} <= found and (times == {"time"} or {"start"} < times <= {"start", "duration", "end"})


def _check_own(headers: list[Header], path: Path) -> None:
    seen: dict[str, str] = {}
    for name, base, _ in headers:
        base = "time" if base == "timestamp" else base
        if base in NAMEABLE and base in seen:
            raise UserError(f"{path.name}: columns {seen[base]} and {name} say the same; expected one")
        seen[base] = name
    if "validity" in seen and "valid" not in seen:
        raise UserError(f"{path.name}: column validity differs by vendor; expected valid, 1 to use a sample or 0")


def _fits(format: Format, bases: set[str]) -> bool:
    found = set(_uses(format, bases))
    return _is_enough(found) and bases.issuperset((*format.marks, *filter(None, [format.group])))


def _uses(format: Format, bases: set[str]) -> dict[str, list[str]]:
    """The bases that the format reads of those that are there, by what they hold."""
    eyes = [eye for eye in format.position if {eye.format("x"), eye.format("y")} <= bases]
    found = {axis: [eye.format(axis) for eye in eyes] for axis in ("x", "y")}
    for what in ("time", "start", "duration", "end", "stimulus"):
        found[what] = [base for base in getattr(format, what).split("|") if base in bases][:1]
    found |= {"group": [format.group], "zero": [format.zero], "only": [format.only[0] if format.only else ""]}
    found |= {"valid": [name for name, _ in format.valid], "recording": list(format.recording)}
    found |= {str(edge): [name] for edge, name in enumerate(format.edges)}
    return {what: used for what, names in found.items() if (used := [name for name in names if name in bases])}


def _best(headers: Sequence[Header], base: str) -> int:
    """The column of a base whose bracket comes first."""
    ranks = {bracket: rank for rank, bracket in enumerate(BRACKETS)}
    places = [place for place, found in enumerate(headers) if found.base == base]
    return min(places, key=lambda place: ranks.get(headers[place].bracket, len(ranks)))


def _cells(rows: Iterable[list[str]], places: list[int], width: int, path: Path) -> dict[int, list[str]]:
    """The columns at some places; what repeats is kept once."""
    cells: dict[int, list[str]] = {at: [] for at in places}
    seen: dict[str, str] = {}
    for number_of_row, row in enumerate(rows, 1):
        if any(row[width:]):
            raise UserError(f"{path.name}: row {number_of_row} has {len(row)} cells; expected {width}")
        for at, column in cells.items():
            cell = row[at].strip() if at < len(row) else ""
            column.append(seen.setdefault(cell, cell))
    return cells


def _canonical(
    format: Format, headers: list[Header], used: dict[str, list[int]], cells: dict[int, list[str]], has_commas: bool
) -> Table:
    rows = range(len(next(iter(cells.values()))))
    columns = {what: _column(what, [headers[at] for at in used[what]], format) for what in KINDS if what in used}
    merged = {
        what: _means([cells[at] for at in places]) if what in KINDS else cells[places[0]]
        for what, places in used.items()
        if what != "recording"
    }
    merged.setdefault("stimulus", [""] * len(rows))
    merged["recording"] = [", ".join(cells[at][row] for at in used.get("recording", ())) for row in rows]
    if "valid" in used:
        columns["valid"] = Column("valid" if format is not OWN else headers[used["valid"][0]].name, None)
        rules = [(cells[at], dict(format.valid)[headers[at].base]) for at in used["valid"]]
        if format is not OWN:
            merged["valid"] = [str(int(any(_is_usable(column[row], rule) for column, rule in rules))) for row in rows]
    place = BRACKETS.get(headers[used["x"][0]].bracket, ("", None))[1] or format.place
    return Table(format, place, columns, merged, has_commas, [])


def _column(what: str, headers: list[Header], format: Format) -> Column:
    unit = BRACKETS.get(headers[0].bracket, ("", None))[0]
    by_format = format.units.get("x" if what == "y" else what)
    joined = ", ".join(header.name for header in headers)
    return Column(joined, unit) if unit in UNITS[KINDS[what]] else Column(joined, by_format, "format")


def _means(eyes: list[list[str]]) -> list[str]:
    """The mean of the eyes that have a number; of one eye, its cells."""
    if len(eyes) == 1:
        return eyes[0]
    seen = ([value for cell in cells if (value := number(cell)) is not None] for cells in zip(*eyes, strict=True))
    return [repr(fmean(values)) if values else "" for values in seen]


def _is_usable(cell: str, rule: str) -> bool:
    least, value = rule.removeprefix("at least "), number(cell)
    return cell.lower() == rule if least == rule else value is not None and value >= float(least)


def _of_reading(table: Table, source: Source) -> tuple[list[int], list[str]]:
    """The rows of one stimulus and recording, and the names of both."""
    name, said, pick = source.path.name, list[str](), source.pick
    stimuli, recordings = table.cells["stimulus"], table.cells["recording"]
    rows = list(range(len(stimuli)))
    if shown := list(dict.fromkeys(filter(None, stimuli))):
        likely = [one for one in shown if stem_of(one) == stem_of(pick.image)]
        said.append(_picked(shown, pick.stimulus, likely, "stimulus", name))
        rows = [row for row in rows if stimuli[row] == said[0]]
    if made := list(dict.fromkeys(recordings[row] for row in rows if recordings[row])):
        likely = [one for one in made if pick.reader in one.split(", ")]
        wanted = next((one for one in made if pick.recording in one.split(", ")), pick.recording)
        said.append(_picked(made, wanted, likely, "recording", name))
        rows = [row for row in rows if recordings[row] == said[-1]]
    return rows, said


def _picked(names: list[str], wanted: str, likely: list[str], what: str, file: str) -> str:
    """The one that the reading's row names, or else the only one, or else the only likely one."""
    if wanted in names or (not wanted and len(names) == 1):
        return wanted or names[0]
    if not wanted and len(likely) == 1:
        return likely[0]
    told = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    raise UserError(f"{file}: column {what} is {wanted!r}; expected one of the {len(names)} in the file ({told})")


def stem_of(name: str) -> str:
    """What a picture and the stimulus that shows it have in common: the file's name without folder and suffix."""
    return Path(portable_path(name)).stem.lower()


def _zero(table: Table, rows: list[int]) -> str:
    """The onset of the stimulus as the file writes it, "" where times count from it already."""
    times = table.cells["time" if "time" in table.columns else "start"]
    columns = [table.cells.get("zero", []), times] if table.format.zero else []
    zero = next((column[row] for column in columns if column for row in rows if number(column[row]) is not None), "")
    return zero if number(zero) else ""


def _rows(table: Table, rows: list[int], zero: str) -> list[Row]:
    """The rows by the columns' names, a fixation each where samples repeat it, with times since `zero`."""
    cells, format = table.cells, table.format
    if format.only and "only" in cells:
        rows = [row for row in rows if cells["only"][row].lower() == format.only[1]]
    if format.group:
        groups = [list(group) for _, group in groupby(rows, key=lambda row: cells["group"][row])]
        merged = [_fixation(cells, group, format) for group in groups if cells["group"][group[0]]]
    else:
        merged = [{what: cells[what][row] for what in table.columns} for row in rows]
    for row in merged if zero else ():
        for what in table.columns.keys() & {"time", "start", "end"}:
            row[what] = str(Decimal(row[what]) - Decimal(zero)) if number(row[what]) is not None else row[what]
    return [{column.name: row[what] for what, column in table.columns.items()} for row in merged]


def _fixation(cells: dict[str, list[str]], group: list[int], format: Format) -> Row:
    """The one fixation of its samples: the first's start, the last's duration, and the position of those to be used."""
    usable = [row for row in group if "valid" not in cells or cells["valid"][row] == "1"] or group
    placed = usable[-1:] if format.is_last else usable
    position = {axis: _means([[cells[axis][row]] for row in placed])[0] for axis in ("x", "y")}
    last = {what: cells[what][usable[-1]] for what in ("duration", "end", "valid") if what in cells}
    return position | {"start": cells["start"][group[0]]} | last


def _frame(table: Table, rows: list[int], source: Source) -> Frame:
    """The image as positions see it: without edges on the screen where they lie on the image."""
    frame = source.frame
    if table.place == "image":
        if frame.screen:
            source.ledger.note(
                "screen_edges_not_used", f"{source.where}: {source.path.name} has positions on the image"
            )
        return frame._replace(screen=())
    if table.place == "any" or frame.screen:
        return frame
    for row in rows:
        edges = [number(table.cells[str(edge)][row]) for edge in range(4) if str(edge) in table.cells]
        if len(edges) == 4 and None not in edges:
            left, top, width, height = (edge or 0.0 for edge in edges)
            return frame._replace(screen=(Shown(-math.inf, (left, top, left + width, top + height)),))
    raise UserError(
        f"{source.path.name}: positions are those of the screen, and nothing tells where on it the image was; expected "
        "screen_left, screen_top, screen_right and screen_bottom in readings.csv, in the unit of the positions"
    )


def named_columns(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The columns that a user names as `x=Gaze X`; raises UserError where they are no recording's."""
    named = [(what, name) for what, _, name in (word.partition("=") for word in words)]
    found = {what for what, name in named if name}
    is_once = len(found) == len({name for _, name in named}) == len(named)
    if not is_once or not found <= set(NAMEABLE) or not _is_enough(found):
        raise UserError(
            f"--columns {' '.join(words)}: expected x=NAME, y=NAME and time=NAME, or start=NAME with duration=NAME or "
            f"end=NAME, each once, of {', '.join(NAMEABLE)}"
        )
    return tuple(named)
