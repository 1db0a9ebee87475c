"""Tables of a whole corpus, filled patient after patient."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

Tables = dict[str, list[str]]


class Sheet(NamedTuple):
    """A file that gathers the lines of the table `table` of all patients; a path that ends in `.gz` is packed.

    `indexed` puts the running number first that pandas writes, under no name; `takes` picks lines (None: all).
    """

    path: str
    table: str
    columns: tuple[str, ...]
    indexed: bool = False
    line_end: str = "\n"
    takes: Callable[[str], bool] | None = None
    raw_samples_only: bool = False

    def header(self) -> str:
        return header_line(self.columns, self.indexed) + self.line_end


class SheetWriter:
    """Appends to the sheets below a folder."""

    def __init__(self, root: Path, sheets: Sequence[Sheet]) -> None:
        self._root, self._sheets = root, sheets
        self._counts: Counter[str] = Counter()
        for sheet in sheets:
            self._plain(sheet).parent.mkdir(parents=True, exist_ok=True)
            self._plain(sheet).write_text(sheet.header(), encoding="utf-8", newline="")

    def add(self, tables: Tables) -> None:
        for sheet in self._sheets:
            lines = [line for line in tables.get(sheet.table, []) if sheet.takes is None or sheet.takes(line)]
            if lines:
                with self._plain(sheet).open("a", encoding="utf-8", newline="") as file:
                    file.write(joined_lines(lines, self._counts[sheet.path] if sheet.indexed else None, sheet.line_end))
                self._counts[sheet.path] += len(lines)

    def close(self) -> None:
        """Pack what is to be packed; without a time stamp, so that the same seed gives the same bytes."""
        for sheet in (sheet for sheet in self._sheets if sheet.path.endswith(".gz")):
            plain = self._plain(sheet)
            with (self._root / sheet.path).open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                packed.write(plain.read_bytes())
            plain.unlink()

    def _plain(self, sheet: Sheet) -> Path:
        return self._root / sheet.path.removesuffix(".gz")


def header_line(columns: Sequence[str], index: bool) -> str:
    """The header; as pandas writes it with an index, an unnamed column first."""
    return ("," if index else "") + ",".join(columns)


def joined_lines(lines: Sequence[str], first: int | None, line_end: str = "\n") -> str:
    """Table lines, behind an index that runs from `first` unless that is None."""
    if first is None:
        return "".join(line + line_end for line in lines)
    return "".join(f"{index},{line}{line_end}" for index, line in enumerate(lines, first))


def add_rows(tables: Tables, name: str, rows: Iterable[Sequence[object]]) -> None:
    """Add rows to a table, as CSV lines without their ends."""
    lines = tables.setdefault(name, [])
    for row in rows:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(row)
        lines.append(buffer.getvalue().removesuffix("\n"))
