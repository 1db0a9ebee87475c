"""What became of every row of a source: rows in = rows kept + rows dropped, by reason, first offenders named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset_scripts.schema import UserError

OFFENDERS_NAMED = 5
LEFT_OUT = frozenset(  # on purpose: rows that nobody misses
    {
        *("duplicate_image_id", "duplicate_path", "duplicate_reading_id", "duplicate_row", "eligible_but_not_drawn"),
        *("eye_tracking_data_discarded", "not_eligible", "not_listed", "patient_of_the_test_set"),
    }
)
NO_GAZE_LEFT = "no_gaze_left"  # the note of a reading that was to have gaze and is kept without


@dataclass
class Offenders:
    """How often something happened, and where it happened first."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, count: int, where: Sequence[str]) -> None:
        self.count += count
        # a name may hold what UTF-8 cannot
        readable = (name.encode(errors="backslashreplace").decode() for name in where[:OFFENDERS_NAMED])
        self.first = [*self.first, *readable][:OFFENDERS_NAMED]


@dataclass
class Tally:
    """The rows of one table of the source."""

    rows_in: int = 0
    rows_kept: int = 0
    dropped: dict[str, Offenders] = field(default_factory=dict)

    @property
    def rows_dropped(self) -> int:
        return sum(offenders.count for offenders in self.dropped.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows_in": self.rows_in,
            "rows_kept": self.rows_kept,
            "rows_dropped": self.rows_dropped,
            "dropped": _offenders_as_dict(self.dropped),
        }


@dataclass
class Ledger:
    """Tallies by table, and notes: things worth knowing that dropped no row.

    `enter` is called with the rows that were read, `keep` and `drop` with what became of them, so that
    `check` compares two independent counts.
    """

    tables: dict[str, Tally] = field(default_factory=dict)
    notes: dict[str, Offenders] = field(default_factory=dict)

    def enter(self, table: str, rows: int) -> None:
        self._tally(table).rows_in += rows

    def keep(self, table: str, rows: int) -> None:
        self._tally(table).rows_kept += rows

    def drop(self, table: str, reason: str, where: Sequence[str], rows: int | None = None) -> None:
        """Count `rows` dropped rows (as many as are named in `where`, unless said)."""
        rows = len(where) if rows is None else rows
        if rows:
            self._tally(table).dropped.setdefault(reason, Offenders()).add(rows, where)

    def note(self, reason: str, where: str) -> None:
        self.notes.setdefault(reason, Offenders()).add(1, [where])

    def merge(self, other: "Ledger") -> None:
        for table, theirs in other.tables.items():
            self.enter(table, theirs.rows_in)
            self.keep(table, theirs.rows_kept)
            for reason, offenders in theirs.dropped.items():
                self.drop(table, reason, offenders.first, offenders.count)
        for reason, offenders in other.notes.items():
            self.notes.setdefault(reason, Offenders()).add(offenders.count, offenders.first)

    def check(self) -> None:
        """Raise RuntimeError when a row of a table is unaccounted for: a fault of the reader, not of the data."""
        for table, tally in self.tables.items():
            if tally.rows_in != tally.rows_kept + tally.rows_dropped:
                raise RuntimeError(f"{table}: {tally.rows_in} rows in, {tally.rows_kept} kept, {tally.dropped} dropped")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Ledger":
        """What `as_dict` gave."""
        return cls(
            tables={
                table: Tally(tally["rows_in"], tally["rows_kept"], _offenders_from_dict(tally["dropped"]))
                for table, tally in values.get("tables", {}).items()
            },
            notes=_offenders_from_dict(values.get("notes", {})),
        )

    def as_dict(self) -> dict[str, Any]:
        tables = {table: self.tables[table].as_dict() for table in sorted(self.tables)}
        return {"tables": tables, "notes": _offenders_as_dict(self.notes)}

    def _tally(self, table: str) -> Tally:
        return self.tables.setdefault(table, Tally())


def _offenders_as_dict(offenders: dict[str, Offenders]) -> dict[str, Any]:
    return {reason: {"count": found.count, "first": found.first} for reason, found in sorted(offenders.items())}


def _offenders_from_dict(values: dict[str, Any]) -> dict[str, Offenders]:
    return {reason: Offenders(found["count"], list(found["first"])) for reason, found in values.items()}


class Dropped(Exception):
    """This source row yields no reading. `where` adds to the row's name, when that alone does not say it."""

    def __init__(self, reason: str, where: str | None = None) -> None:
        super().__init__(reason, where)
        self.reason, self.where = reason, where


class Impossible(UserError):
    """What stops the conversion of any row, wherever it shows: a package that is missing."""
