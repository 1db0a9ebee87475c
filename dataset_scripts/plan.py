"""What every corpus module hands to `build`: a plan of units of work, and the outcome of each source row."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

from dataset_scripts.ledger import Dropped, Impossible, Ledger
from dataset_scripts.schema import Reading, Split, UserError

Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Options:
    """What the user chose: the long side of the stored images in pixels and the seed of hashed splits.

    `generated` says that the source is marked as a generated corpus. The others are for some corpora only, which name
    them in `build.CORPORA`; None where the user did not say.
    """

    image_size: int
    seed: int
    generated: bool
    images: Path | None = None
    ids: Path | None = None
    coordinates: Literal["pixels", "fractions"] | None = None
    time_unit: Literal["seconds", "milliseconds"] | None = None
    origin: Literal["top-left", "bottom-left"] | None = None
    columns: Sequence[str] | None = None


class Outcome(NamedTuple):
    """One source row: its reading with the split that it belongs to, or None, and what was counted on the way."""

    reading: tuple[Split, Reading] | None
    ledger: Ledger


class LazyUnits(Sequence[Unit], Generic[Unit]):
    """Units that are made when they are asked for, by their place, so that a large table stays columns."""

    def __init__(self, places: range, make: Callable[[int], Unit]) -> None:
        self._places, self._make = places, make

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Unit: ...

    @overload
    def __getitem__(self, index: slice) -> "LazyUnits[Unit]": ...

    def __getitem__(self, index: int | slice) -> "Unit | LazyUnits[Unit]":
        places = self._places[index]
        return self._make(places) if isinstance(places, int) else LazyUnits(places, self._make)


@dataclass(frozen=True)
class Plan:
    """A corpus, cut into units that can be converted independently.

    `convert` and the units travel to other processes, so both must be picklable. `reading_tables` are the tables of
    which one row is one reading; `terms` is the card's paragraph on licence and redistribution, `redistributable` says
    whether anyone may pass the rows on, `generated` that no patient is behind any of them. `facts` are printed and go
    into the report by their names. `shared` is what was counted while the units were made. `groups`: of every unit the
    split, or the table that is one, where that is known before it is converted.
    """

    units: Sequence[Any]
    convert: Callable[[Any], list[Outcome]]
    unit_name: str
    reading_tables: tuple[str, ...]
    terms: str
    redistributable: bool = False
    generated: bool = False
    facts: Mapping[str, str | int] = field(default_factory=dict)
    shared: Ledger = field(default_factory=Ledger)
    groups: Sequence[str | None] = ()

    def in_turn(self) -> "Plan":
        """One unit of each group after the other, so that the first readings are of every split."""
        members = [[place for place, one in enumerate(self.groups) if one == group] for group in set(self.groups)]
        turns = zip_longest(*sorted(members))
        order = [place for turn in turns for place in turn if place is not None] or range(len(self.units))
        return replace(self, units=LazyUnits(range(len(order)), lambda place: self.units[order[place]]))


def attempt(table: str, where: str, build: Callable[[Ledger], tuple[Split, Reading]]) -> Outcome:
    """Build the reading of one row of `table`; a row that fails is counted as dropped, under `where`.

    What `build` counted before it failed is forgotten: the other tables of a dropped reading are not read.
    """
    ledger = Ledger()
    try:
        reading = build(ledger)
        _require_writable(reading[1])
        ledger.keep(table, 1)
    except Impossible:
        raise
    except (Dropped, UserError, OSError) as error:
        if isinstance(error, Dropped):
            reason, detail = error.reason, error.where
        else:
            reason = "table_not_understood" if isinstance(error, UserError) else "file_not_readable"
            detail = str(error)
        reading, ledger = None, Ledger()
        ledger.drop(table, reason, [where if detail is None else f"{where} ({detail})"])
    ledger.enter(table, 1)
    return Outcome(reading, ledger)


def _require_writable(reading: Reading) -> None:
    texts = {name: value for name, value in reading.items() if name not in ("image", "fixations")}
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Dropped("text_is_no_unicode", ascii(error.object[error.start - 20 : error.end + 20])) from None
