"""A converted corpus on disk: sharded Parquet with embedded images, written in steps that survive a power cut.

Rows are saved in parts as they come, and the parts of a shard are joined when it is full. Where a shard ends follows
from the rows alone, so that neither the parts nor an interruption change a byte. What a file is worth is said by
`state.json`, which is replaced whole after the files that it names are on the disk: a file that it does not name is not
there. So the space for a conversion is that of its output, and of one shard a split.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import ARROW_SCHEMA, SPLITS, Reading, Split, UserError

ROWS_PER_GROUP = 100  # what a streaming reader fetches at once
ROWS_PER_SHARD = 5_000
BYTES_PER_SHARD = 256 * 2**20  # of its images
ROWS_PER_PART = 100  # what an interruption can cost
UNITS_PER_PART = 1_000
STATE = "state.json"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON so that after a power cut the file is the old or the new one, whole."""
    temporary = path.with_name(f"{path.name}.new")
    write_json(temporary, value)
    _to_disk(temporary)
    temporary.replace(path)
    _to_disk(path.parent)


class CorpusWriter:
    """Writes readings, in the order given, under `folder`; a folder that has a state is gone on with.

    `ledger` and `units_done` are what `commit` was last called with, as the state holds them.

    Raises:
        UserError: a file that the state names is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        state = read_json(folder / STATE) or {"units_done": 0, "ledger": {}, "splits": {}}
        self.units_done: int = state["units_done"]
        self.ledger = Ledger.from_dict(state["ledger"])
        self._writers = {split: _SplitWriter(folder, split, state["splits"].get(split)) for split in SPLITS}
        for path in folder.glob("*.parquet"):
            if not any(path.name in writer.files for writer in self._writers.values()):
                path.unlink()

    @property
    def readings(self) -> int:
        return sum(writer.counts["readings"] for writer in self._writers.values())

    def add(self, split: Split, reading: Reading) -> None:
        self._writers[split].add(reading)

    def is_due(self, units_done: int) -> bool:
        """Whether so many rows or units came since the last commit that the next one is worth its time."""
        waiting = sum(len(writer.waiting) for writer in self._writers.values())
        return waiting >= ROWS_PER_PART or units_done - self.units_done >= UNITS_PER_PART

    def commit(self, units_done: int) -> None:
        """Put everything so far on the disk; from now on an interrupted conversion goes on after these units."""
        for writer in self._writers.values():
            writer.flush()
        self.units_done = units_done
        splits = {split: writer.state() for split, writer in self._writers.items()}
        state = {"units_done": units_done, "ledger": self.ledger.as_dict(), "splits": splits}
        replace_json(self._folder / STATE, state)
        for writer in self._writers.values():
            writer.forget_joined_parts()

    def publish(self, output: Path) -> None:
        """Close the last shards and move all to `output/data/<split>-NNNNN-of-NNNNN.parquet`; can be done again."""
        for writer in self._writers.values():
            writer.seal()
        self.commit(self.units_done)
        (output / "data").mkdir(parents=True, exist_ok=True)
        for writer in self._writers.values():
            writer.publish(output / "data")

    def statistics(self, output: Path) -> dict[str, dict[str, int]]:
        """What was published, by split; a split that no patient fell into is not listed."""
        return {
            split: {**writer.counts, **_distinct(sorted((output / "data").glob(f"{split}-*.parquet")))}
            for split, writer in self._writers.items()
            if writer.counts
        }


class _SplitWriter:
    """The parts and shards of one split."""

    def __init__(self, folder: Path, split: Split, state: dict[str, Any] | None) -> None:
        state = state or {"counts": {}, "shards": [], "parts": [], "next_part": 0, "rows": 0, "bytes": 0}
        self._folder, self._split = folder, split
        self.counts: Counter[str] = Counter(state["counts"])
        self.waiting: list[Reading] = []
        self._shards: list[str] = state["shards"]
        self._parts: list[str] = state["parts"]
        self._joined: list[str] = []
        self._next_part: int = state["next_part"]
        self._rows, self._bytes = state["rows"], state["bytes"]  # of the shard that is being filled
        for name in self._parts:
            _require_whole(folder / name)
        for name in self._shards:
            if not (folder / name).exists() and not list(folder.glob(f"*/data/{Path(name).stem}-of-*.parquet")):
                raise _damaged(folder / name)

    @property
    def files(self) -> list[str]:
        return [*self._shards, *self._parts]

    def state(self) -> dict[str, Any]:
        return {
            "counts": dict(self.counts),
            "shards": self._shards,
            "parts": self._parts,
            "next_part": self._next_part,
            "rows": self._rows,
            "bytes": self._bytes,
        }

    def add(self, reading: Reading) -> None:
        self.counts.update(_counts(reading))
        self.waiting.append(reading)
        self._rows += 1
        self._bytes += len(_image_bytes(reading))
        if self._rows >= ROWS_PER_SHARD or self._bytes >= BYTES_PER_SHARD:
            self.seal()

    def flush(self) -> None:
        """Write the waiting rows as a part."""
        if not self.waiting:
            return
        name = f"part-{self._split}-{self._next_part:06d}.parquet"
        self._next_part += 1
        rows = pa.Table.from_pylist(self.waiting, schema=ARROW_SCHEMA)
        pq.write_table(rows, self._folder / name, compression="none")
        _to_disk(self._folder / name)
        self._parts.append(name)
        self.waiting = []

    def seal(self) -> None:
        """Join all parts to a shard; they stay until the state that names the shard is on the disk."""
        self.flush()
        if not self._parts:
            return
        name = f"{self._split}-{len(self._shards):05d}.parquet"
        with pq.ParquetWriter(self._folder / name, ARROW_SCHEMA) as writer:
            for group in _groups(self._folder / part for part in self._parts):
                writer.write_table(group)
        _to_disk(self._folder / name)
        self._shards.append(name)
        self._joined += self._parts
        self._parts, self._rows, self._bytes = [], 0, 0

    def forget_joined_parts(self) -> None:
        for name in self._joined:
            (self._folder / name).unlink(missing_ok=True)
        self._joined = []

    def publish(self, data: Path) -> None:
        for name in self._shards:
            if (self._folder / name).exists():
                (self._folder / name).rename(data / f"{Path(name).stem}-of-{len(self._shards):05d}.parquet")


def read_json(path: Path) -> dict[str, Any] | None:
    """What `replace_json` wrote, None where there is nothing yet."""
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise _damaged(path) from None
    return value if isinstance(value, dict) else None


def _groups(parts: Iterator[Path]) -> Iterator[pa.Table]:
    """The rows of the parts, in tables of ROWS_PER_GROUP; a group's bytes must not show where the parts began."""
    rest = ARROW_SCHEMA.empty_table()
    for part in parts:
        rest = pa.concat_tables([rest, pq.read_table(part, schema=ARROW_SCHEMA)])
        while rest.num_rows >= ROWS_PER_GROUP:
            yield rest.slice(0, ROWS_PER_GROUP).combine_chunks()
            rest = rest.slice(ROWS_PER_GROUP)
    if rest.num_rows:
        yield rest.combine_chunks()


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


def _image_bytes(reading: Reading) -> bytes:
    image = reading["image"]
    return image["bytes"] if isinstance(image, dict) else b""


def _require_whole(part: Path) -> None:
    try:
        pq.read_metadata(part)
    except (OSError, pa.ArrowException):
        raise _damaged(part) from None


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: missing or damaged; delete the folder {path.parent} to start afresh")


def _to_disk(path: Path) -> None:
    """Wait until the file, or the names in the folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
