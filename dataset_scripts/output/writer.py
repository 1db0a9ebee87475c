"""A converted corpus on disk: ranges of units, each made apart from the others, and the shards that they are joined to.

The units of a plan are cut into ranges, whose size follows from the number of units alone. A range becomes a folder, a
Parquet file a split and a ledger, which is written aside and renamed into place: where it is there it is whole, whoever
wrote it. So neither processes, nor machines, nor interruptions change a byte. Until the corpus has its place a
conversion takes twice the space of its output.
"""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Outcome, Plan
from dataset_scripts.schema import ARROW_SCHEMA, SPLITS, Reading, Split, UserError

ROWS_PER_GROUP = 100  # what a streaming reader fetches at once
ROWS_PER_SHARD = 5_000
BYTES_PER_SHARD = 256 * 2**20  # of its images
RANGES, FEWEST_UNITS, MOST_UNITS = 256, 8, 128  # a process holds a range in memory, and loses it when interrupted
LEDGER = "ledger.json"


class RangeJob(NamedTuple):
    """Units that become `folder`, or the first `most` readings of them; none where it is there."""

    folder: Path
    convert: Callable[[Any], list[Outcome]]
    units: Sequence[Any]
    most: int | None


class ConvertedRange(NamedTuple):
    """What a range's folder holds: counts by split, and what became of the rows of the source."""

    folder: Path
    counts: dict[str, dict[str, int]]
    ledger: Ledger

    @property
    def readings(self) -> int:
        return sum(counts["readings"] for counts in self.counts.values())


def units_per_range(units: int) -> int:
    return max(FEWEST_UNITS, min(MOST_UNITS, units // RANGES))


def places(plan: Plan) -> range:
    """Of the ranges, counted from 0."""
    return range(math.ceil(len(plan.units) / units_per_range(len(plan.units))))


def range_path(folder: Path, place: int, most: int | None) -> Path:
    return folder / (f"{place:05d}" if most is None else f"{place:05d}-first-{most}")


def range_job(plan: Plan, folder: Path, place: int, most: int | None) -> RangeJob:
    """The range at `place` of the conversion in `folder`."""
    size = units_per_range(len(plan.units))
    target = range_path(folder, place, most)
    units = [] if target.exists() else list(plan.units[place * size : (place + 1) * size])
    return RangeJob(target, plan.convert, units, most)


def write_range(job: RangeJob) -> Path:
    """Convert a range, unless it is there, and return its folder."""
    if job.folder.exists():
        return job.folder
    rows: dict[Split, list[Reading]] = {}
    kept, ledger, counts = 0, Ledger(), defaultdict[Split, Counter[str]](Counter)
    for outcome in (outcome for unit in job.units for outcome in job.convert(unit)):
        ledger.merge(outcome.ledger)
        if outcome.reading is not None:
            rows.setdefault(outcome.reading[0], []).append(outcome.reading[1])
            kept += 1
            if kept == job.most:
                break
    with in_place(job.folder) as new:
        for split, readings in rows.items():
            table = pa.Table.from_pylist(readings, schema=ARROW_SCHEMA)
            pq.write_table(table, new / f"{split}.parquet", compression="none")
            for reading in readings:
                counts[split].update(_counts(reading))
        write_json(new / LEDGER, {"counts": counts, "ledger": ledger.as_dict()})
    return job.folder


def read_range(folder: Path) -> ConvertedRange:
    """Raises UserError where there is not what `write_range` wrote."""
    found = read_json(folder / LEDGER)
    return ConvertedRange(folder, found["counts"], Ledger.from_dict(found["ledger"]))


def publish(ranges: Iterable[ConvertedRange], ledger: Ledger, output: Path) -> dict[str, dict[str, int]]:
    """Join the ranges, as they come, to `output/data/<split>-NNNNN-of-NNNNN.parquet` and into the ledger.

    Returns:
        What was written, counted by split.

    Raises:
        UserError: a file of a range is missing or damaged.
    """
    (output / "data").mkdir(parents=True)
    splits = {split: _SplitWriter(output / "data" / split) for split in SPLITS}
    for each in ranges:
        ledger.merge(each.ledger)
        for split in (split for split in SPLITS if split in each.counts):
            splits[split].add(each.folder / f"{split}.parquet", each.counts[split])
    return {split: {**writer.counts, **_distinct(writer.close())} for split, writer in splits.items() if writer.counts}


class _SplitWriter:
    """The rows of one split, in shards that end with a group; no byte shows where the parts began."""

    def __init__(self, stem: Path) -> None:
        self.counts = Counter[str]()
        self._stem, self._shards = stem, list[Path]()
        self._rest, self._rows, self._bytes = ARROW_SCHEMA.empty_table(), 0, 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, part: Path, counts: dict[str, int]) -> None:
        self.counts.update(counts)
        try:
            self._rest = pa.concat_tables([self._rest, pq.read_table(part, schema=ARROW_SCHEMA)])
        except (OSError, pa.ArrowException):
            raise _damaged(part) from None
        while self._rest.num_rows >= ROWS_PER_GROUP:
            self._write(self._rest.slice(0, ROWS_PER_GROUP))
            self._rest = self._rest.slice(ROWS_PER_GROUP)

    def close(self) -> list[Path]:
        """The shards, under their names."""
        if self._rest.num_rows:
            self._write(self._rest)
        self._seal()
        names = [path.with_name(f"{path.name}-of-{len(self._shards):05d}.parquet") for path in self._shards]
        return [path.rename(name) for path, name in zip(self._shards, names, strict=True)]

    def _write(self, group: pa.Table) -> None:
        if self._writer is None:
            self._shards.append(self._stem.with_name(f"{self._stem.name}-{len(self._shards):05d}"))
            self._writer = pq.ParquetWriter(self._shards[-1], ARROW_SCHEMA)
        self._writer.write_table(group.combine_chunks())
        self._rows += group.num_rows
        self._bytes += pc.sum(pc.binary_length(pc.struct_field(group["image"], "bytes"))).as_py() or 0
        if self._rows >= ROWS_PER_SHARD or self._bytes >= BYTES_PER_SHARD:
            self._seal()

    def _seal(self) -> None:
        if self._writer is not None:
            self._writer.close()
            _to_disk(self._shards[-1])
        self._writer, self._rows, self._bytes = None, 0, 0


@contextmanager
def in_place(folder: Path) -> Iterator[Path]:
    """A new folder, which becomes `folder` at once and whole when the block ends well, unless that is there by then."""
    with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as name:
        yield (new := Path(name))
        for path in (*new.iterdir(), new):
            _to_disk(path)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        _to_disk(folder.parent)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote; raises UserError where it did not."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise _damaged(path) from None


def _distinct(shards: list[Path]) -> dict[str, int]:
    """How many images and patients there are; an image of no known patient is a patient of its own."""
    ids = pa.concat_tables([pq.read_table(shard, columns=["image_id", "subject_id"]) for shard in shards])
    subjects = ids["subject_id"]
    patients = pc.if_else(pc.not_equal(pc.fill_null(subjects, ""), ""), subjects, ids["image_id"])
    return {"images": pc.count_distinct(ids["image_id"]).as_py(), "patients": pc.count_distinct(patients).as_py()}


def _counts(reading: Reading) -> dict[str, int]:
    sentences, fixations = reading["sentences"], reading["fixations"]
    return {
        "readings": 1,
        "readings_with_gaze": int(fixations is not None),
        "readings_without_gaze": int(fixations is None),
        "readings_without_sentences": int(not sentences),
        "sentences": len(sentences),
        "timed_sentences": sum(sentence["start_seconds"] is not None for sentence in sentences),
        "fixations": len(fixations["x"]) if fixations else 0,
        "findings": len(reading["findings"]),
        "boxes": len(reading["boxes"]),
    }


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: missing or damaged; delete the folder {path.parent} to have it made again")


def _to_disk(path: Path) -> None:
    """Wait until the file, or the names in the folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
