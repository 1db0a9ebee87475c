"""A converted corpus on disk: sharded Parquet with embedded images, whole or not at all."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.schema import FEATURES, SPLITS, Reading, Split, UserError

ROWS_PER_GROUP = 100  # what a streaming reader fetches at once
ROWS_PER_SHARD = 5_000
BYTES_PER_SHARD = 256 * 2**20


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `output` when the block ends well and removed when it does not.

    Raises:
        UserError: `output` exists and is not an empty folder.
    """
    require_free(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        require_free(output)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_free(output: Path) -> None:
    """Raise UserError unless `output` can be written without touching anything that exists."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise UserError(f"{output}: exists already; expected a new or empty output folder")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class _SplitWriter:
    """The shards of one split; their final names need the number of shards, so they are given by `close`."""

    def __init__(self, folder: Path, split: Split) -> None:
        self.folder, self.split = folder, split
        self.shards: list[Path] = []
        self.counts: Counter[str] = Counter()
        self.images: set[str] = set()
        self.patients: set[str] = set()
        self._group: list[Reading] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows_in_shard = self._bytes_in_shard = 0

    def add(self, reading: Reading) -> None:
        self._count(reading)
        self._group.append(reading)
        if len(self._group) >= ROWS_PER_GROUP:
            self._flush()
        if self._rows_in_shard >= ROWS_PER_SHARD or self._bytes_in_shard >= BYTES_PER_SHARD:
            self._close_shard()

    def close(self) -> None:
        if self._group:
            self._flush()
        self._close_shard()
        for index, shard in enumerate(self.shards):
            shard.rename(self.folder / f"{self.split}-{index:05d}-of-{len(self.shards):05d}.parquet")

    def _flush(self) -> None:
        if self._writer is None:
            self.shards.append(self.folder / f"{self.split}-{len(self.shards):05d}.parquet")
            self._writer = pq.ParquetWriter(self.shards[-1], FEATURES.arrow_schema)
        rows = pa.Table.from_pylist(self._group, schema=FEATURES.arrow_schema)
        self._writer.write_table(rows)
        self._rows_in_shard += rows.num_rows
        self._bytes_in_shard += rows.nbytes
        self._group = []

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        self._rows_in_shard = self._bytes_in_shard = 0

    def _count(self, reading: Reading) -> None:
        sentences, fixations = reading["sentences"], reading["fixations"]
        self.images.add(reading["image_id"])
        self.patients.add(reading["subject_id"] or reading["image_id"])
        self.counts.update(
            readings=1,
            readings_with_gaze=int(fixations is not None),
            readings_without_gaze=int(fixations is None),
            readings_without_sentences=int(not sentences),
            sentences=len(sentences),
            timed_sentences=sum(sentence["start_seconds"] is not None for sentence in sentences),
            fixations=len(fixations["x"]) if fixations else 0,
            findings=len(reading["findings"]),
            boxes=len(reading["boxes"]),
        )


class CorpusWriter:
    """Writes readings, in the order given, to `folder/data/<split>-NNNNN-of-NNNNN.parquet`."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir()
        self._writers = {split: _SplitWriter(folder / "data", split) for split in SPLITS}
        self.readings = 0

    def add(self, split: Split, reading: Reading) -> None:
        self._writers[split].add(reading)
        self.readings += 1

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def statistics(self) -> dict[str, dict[str, int]]:
        """What was written, by split; a split that no patient fell into is not listed."""
        return {
            split: {**writer.counts, "images": len(writer.images), "patients": len(writer.patients)}
            for split, writer in self._writers.items()
            if writer.counts
        }
