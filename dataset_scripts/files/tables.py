"""CSV tables as the corpora write them: BOM, CRLF, quoted line breaks, an unnamed index column, packed with gzip.

Small tables are read with the standard library (a reading has half a dozen tables of a few dozen rows, for which
building data frames took ten times as long as everything else), large ones batch by batch with Arrow.
"""

import codecs
import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dataset_scripts.files.texts import encoding_of, read_text
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, UserError

READ_BLOCK_BYTES, HEADER_BYTES = 4 << 20, 1 << 16
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "pipes"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_FLOAT_ID = r"^(-?[0-9]+)\.0+$"
FloatArray = npt.NDArray[np.float64]
Row = dict[str, str]


def read_table(path: Path, required: Sequence[str], ledger: Ledger, table: str) -> list[Row]:
    """Read every cell as stripped text, "" where blank; words such as "none" and "nan" stay words.

    Columns without a name (the index that pandas writes) are left out. A row of another length than the header's is
    dropped, counted under `table` and named by its number; but one that only lacks cells at its end, and none of a
    required column, is filled with blanks and noted. A name that ends in `.gz` is unpacked on the way.

    Raises:
        UserError: the file is missing or no CSV, lacks a required column or has a name twice, or no row is left.
        OSError: the file cannot be read.
    """
    with _understood(path, required):
        lines = csv.reader(io.StringIO(read_text(path, path, ledger, newline=""), newline=""), strict=True)
        counted = Ledger()
        rows = list(_rows(lines, path, required, counted, table))
        _require_one(len(rows), counted)
    ledger.merge(counted)
    return rows


def read_columns(
    path: Path, columns: Mapping[str, pa.DataType], ledger: Ledger, table: str, optional: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Read some columns of a large table (packed, if its name ends in `.gz`) batch by batch, in the table's order.

    Those of the text columns `optional` that it has come after `columns`. The first batch is empty. Text cells come as
    they are, "" where blank; a quoted cell must not hold a line break. A row of another length than the header's is
    dropped, counted under `table` and named by its number.

    Raises:
        UserError: the file is missing or no CSV, lacks a column or has a name twice, or a cell is not of its column's
            type.
        OSError: the file cannot be read.
    """

    def drop(row: pacsv.InvalidRow) -> str:
        drop_row(path, row.number - 1, row.actual_columns, names, counted, table)
        return "skip"

    counted, rows = Ledger(), 0

    with _understood(path, list(columns)):
        encoding = encoding_of(path, path, ledger)
        names, has_rows = _header(path, encoding)
        _check_names(names, path, list(columns))
        columns = {**columns, **{name: pa.string() for name in optional if name in names}}
        yield pa.RecordBatch.from_pylist([], pa.schema(list(columns.items())))
        if not has_rows:
            return
        positions = [names.index(name) for name in columns]
        with pa.input_stream(str(path), compression=_compression(path)) as stream:
            reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(
                    column_names=[str(position) for position in range(len(names))],
                    skip_rows=1,
                    block_size=READ_BLOCK_BYTES,
                    encoding="utf8" if encoding == "utf-8-sig" else encoding,
                    use_threads=False,  # rows have no number otherwise
                ),
                parse_options=pacsv.ParseOptions(invalid_row_handler=drop),
                convert_options=pacsv.ConvertOptions(
                    column_types={str(at): columns[name] for at, name in zip(positions, columns, strict=True)},
                    include_columns=[str(at) for at in positions],
                ),
            )
            for batch in reader:
                rows += batch.num_rows
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(columns))
        _require_one(rows, counted)
    ledger.merge(counted)


def read_text_columns(
    path: Path, columns: Sequence[str], ledger: Ledger, table: str, optional: Sequence[str] = ()
) -> pa.Table:
    """Some columns of a large table as stripped text, "" where blank, whole numbers without `.0`; some `optional`.

    Raises:
        UserError, OSError: as `read_columns`.
    """
    read = pa.Table.from_batches(read_columns(path, dict.fromkeys(columns, pa.string()), ledger, table, optional))
    texts = (pc.fill_null(pc.utf8_trim_whitespace(column), "") for column in read.columns)
    plain = [pc.replace_substring_regex(text, pattern=_FLOAT_ID, replacement=r"\1") for text in texts]
    return pa.table(plain, names=read.column_names)


def is_repeated(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """(rows,) whether an earlier row has the same id."""
    codes = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy(zero_copy_only=False)
    is_later = np.ones(len(codes), dtype=np.bool_)
    is_later[np.unique(codes, return_index=True)[1]] = False
    return is_later


def numbers(rows: Sequence[Row], column: str) -> FloatArray:
    """A column as float64, NaN where a cell is blank or no number.

    Raises:
        UserError: a cell has a decimal comma, which nothing but a guess could tell from a separator of thousands; or
            there are rows and not a single number.
    """
    values = [number(row[column]) for row in rows]
    for place, value in enumerate(values):
        if value is None and _DECIMAL_COMMA.fullmatch(cell := rows[place][column]):
            raise UserError(f"column {column}, row {place + 1}: {cell!r} has a comma; expected a decimal point")
    if rows and not any(value is not None for value in values):
        example = next((row[column] for row in rows if row[column]), "")
        raise UserError(f"column {column} holds no number in {len(rows)} rows, but {example!r}; expected numbers")
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def number(cell: str) -> float | None:
    """One cell as a finite number, None where it is blank or no number."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def label_value(cell: str) -> int | None:
    """PRESENT, ABSENT or UNCERTAIN, written 1, 1.0 or True, as pandas may; None where the cell says none of them."""
    value = {"true": 1.0, "false": 0.0}.get(cell.lower(), number(cell))
    return {1.0: PRESENT, 0.0: ABSENT, -1.0: UNCERTAIN}.get(value) if value is not None else None


def flag(cell: str) -> bool | None:
    """Yes or no, in these words or as `label_value` reads it; None for anything else."""
    cell = {"yes": "1", "no": "0"}.get(cell.lower(), cell)
    return {PRESENT: True, ABSENT: False, UNCERTAIN: None, None: None}[label_value(cell)]


def identifier(cell: str) -> str:
    """An id as it was before pandas made a float of it: 10000032.0 is 10000032; any other text stays."""
    return re.sub(_FLOAT_ID, r"\1", cell)


def portable_path(cell: str) -> str:
    """A path that may have been written on Windows, with slashes."""
    return cell.replace("\\", "/")


def plain_row(row: Row, ids: Sequence[str], paths: Sequence[str]) -> Row:
    """A row whose columns `ids` and `paths`, where it has them, are read so."""
    readers = dict.fromkeys(ids, identifier) | dict.fromkeys(paths, portable_path)
    return row | {name: read(row[name]) for name, read in readers.items() if name in row}


@contextmanager
def _understood(path: Path, required: Sequence[str]) -> Iterator[None]:
    """What opening and parsing can raise, as a UserError that names the file."""
    expected = f"expected a table with the columns {', '.join(required)}"
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {expected}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; {expected}") from None
    except UserError:
        raise
    except (csv.Error, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: expected a CSV table with a header line ({error})") from None


def _compression(path: Path) -> str | None:
    return "gzip" if path.suffix == ".gz" else None


def _rows(lines: Iterator[list[str]], path: Path, required: Sequence[str], ledger: Ledger, table: str) -> Iterator[Row]:
    names = [name.strip() for name in next(lines, [])]
    _check_names(names, path, required)
    needed = 1 + max(map(names.index, required), default=-1)
    for number, cells in enumerate((cells for cells in lines if cells), 1):
        if any(cells[len(names) :]) or len(cells) < needed:
            drop_row(path, number, len(cells), names, ledger, table)
            continue
        if len(cells) < len(names):
            ledger.note("row_lacks_cells_at_its_end", f"{path}: row {number}: {len(cells)} of {len(names)}")
        cells += [""] * (len(names) - len(cells))
        yield {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name}


def _require_one(rows: int, counted: Ledger) -> None:
    """Raise UserError where no row is left of a table that has some."""
    if not rows:
        for tally in counted.tables.values():
            raise UserError(tally.dropped["row_of_another_length"].first[0])


def drop_row(path: Path, number: int, cells: int, names: Sequence[str], ledger: Ledger, table: str) -> None:
    """Count a row whose number of cells is not that of the header."""
    ledger.enter(table, 1)
    where = f"{path}: row {number} has {cells} cells; expected {len(names)}, as in the header{delimiter_hint(names)}"
    ledger.drop(table, "row_of_another_length", [where])


def _header(path: Path, encoding: str) -> tuple[list[str], bool]:
    """The names in the first line, and whether anything follows it."""
    with pa.input_stream(str(path), compression=_compression(path)) as stream:
        start = codecs.getincrementaldecoder(encoding)().decode(stream.read(HEADER_BYTES))
    lines = start.splitlines()
    return [name.strip() for name in next(csv.reader(lines[:1]), [])], len(lines) > 1


def _check_names(names: Sequence[str], path: Path, required: Iterable[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        found = ", ".join(filter(None, names)) or "none"
        raise UserError(f"{path}: column(s) {', '.join(missing)} missing; it has {found}{delimiter_hint(names)}")
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise UserError(f"{path}: column(s) {', '.join(twice)} occur more than once; expected each name once")


def delimiter_hint(names: Sequence[str]) -> str:
    """What to add to a message on missing columns, where another delimiter explains it."""
    for character, plural in _OTHER_DELIMITERS.items():
        if any(character in name for name in names):
            return f" (it looks separated by {plural}; expected commas)"
    return ""
