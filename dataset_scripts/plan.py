"""What every corpus module hands to `build`: a plan of units of work, and the outcome of each source row."""

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import Box, Finding, Fixations, Reading, Sentence, Split, UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

UNITS_AHEAD_PER_PROCESS = 8


class Dropped(Exception):
    """This source row yields no reading. `where` adds to the row's name, when that alone does not say it."""

    def __init__(self, reason: str, where: str | None = None) -> None:
        super().__init__(reason, where)
        self.reason, self.where = reason, where


class Impossible(UserError):
    """What stops the conversion of any row, wherever it shows: a package that is missing."""


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


class Recording(NamedTuple):
    """What a reader left on one image, in the units of the schema."""

    sentences: list[Sentence]
    fixations: Fixations | None
    findings: list[Finding]
    boxes: list[Box]


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
    into the report by their names.
    """

    units: Sequence[Any]
    convert: Callable[[Any], list[Outcome]]
    unit_name: str
    reading_tables: tuple[str, ...]
    terms: str
    redistributable: bool = False
    generated: bool = False
    facts: Mapping[str, str | int] = field(default_factory=dict)


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
    except (Dropped, UserError) as error:
        reason, detail = ("table_not_understood", str(error)) if isinstance(error, UserError) else error.args
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


def ordered_map(function: Callable[[Unit], Result], units: Iterable[Unit], num_proc: int) -> Iterator[Result]:
    """`map`, in `num_proc` processes, in order, with a bounded number of results waiting.

    Raises:
        UserError: a process was killed, mostly for want of memory.
    """
    if num_proc == 1:
        yield from map(function, units)
        return
    pool = ProcessPoolExecutor(num_proc, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    try:
        waiting = deque[Future[Result]]()
        for unit in units:
            waiting.append(pool.submit(function, unit))
            if len(waiting) > UNITS_AHEAD_PER_PROCESS * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError("a process of the conversion was killed (out of memory?); try a smaller --num-proc") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it does: killed, it could not stop the processes that wait for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
