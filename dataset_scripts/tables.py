"""CSV tables as the corpora write them: BOM, CRLF, quoted line breaks, an unnamed index column.

Read with the standard library: a reading has half a dozen tables of a few dozen rows, for which building data frames
took ten times as long as everything else.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset_scripts.schema import UserError

FloatArray = npt.NDArray[np.float64]
Row = dict[str, str]


def read_table(path: Path, required: Sequence[str]) -> list[Row]:
    """Read every cell as stripped text, "" where blank; words such as "none" and "nan" stay words.

    Columns without a name (the index that pandas writes) are left out, short rows are filled with blanks.

    Raises:
        UserError: the file is missing or no CSV, lacks a required column, or a row is longer than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(csv.reader(file), path, required))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file; expected a table with the columns {', '.join(required)}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a UTF-8 CSV table with a header line ({error})") from None


def _rows(lines: Iterator[list[str]], path: Path, required: Sequence[str]) -> Iterator[Row]:
    names = [name.strip() for name in next(lines, [])]
    missing = [name for name in required if name not in names]
    if missing:
        found = ", ".join(filter(None, names)) or "none"
        raise UserError(f"{path}: column(s) {', '.join(missing)} missing; it has {found}")
    for number, cells in enumerate((cells for cells in lines if cells), 1):
        if any(cells[len(names) :]):
            raise UserError(f"{path}: row {number} has {len(cells)} cells; expected {len(names)}, as in the header")
        cells += [""] * (len(names) - len(cells))
        yield {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name}


def numbers(rows: Sequence[Row], column: str) -> FloatArray:
    """A column as float64, NaN where a cell is blank or no number."""
    return np.array([np.nan if (value := number(row[column])) is None else value for row in rows], dtype=np.float64)


def number(cell: str) -> float | None:
    """One cell as a finite number, None where it is blank or no number."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
