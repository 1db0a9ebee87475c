"""Row groups are dealt to processes and workers: each reads its own, and a resumed run nothing of what is done."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from egma.training import streaming
from egma.training.data import ReadingCollator, TrainingData
from egma.training.streaming import StreamedReadings

from .test_data import settings

WORLD, SHARDS, GROUP, GROUPS = 4, 8, 10, 20
ROWS = SHARDS * GROUP * GROUPS


@pytest.fixture(scope="module")
def many_groups(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,600 readings of 1,400 images; readings of an image lie far apart."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "data").mkdir()
    some = pq.read_table(next(phantom_data.glob("data/train-*.parquet"))).slice(0, GROUP)
    for shard in range(SHARDS):
        path = folder / "data" / f"train-{shard:05d}-of-{SHARDS:05d}.parquet"
        with pq.ParquetWriter(path, some.schema) as writer:
            for group in range(GROUPS):
                numbers = [(shard * GROUPS + group) * GROUP + place for place in range(GROUP)]
                table = some
                for name, values in (("reading_id", numbers), ("image_id", [number % 1400 for number in numbers])):
                    column = pa.array([str(value) for value in values])
                    table = table.set_column(table.column_names.index(name), some.schema.field(name), column)
                writer.write_table(table)
    return folder


def streamed(data: Path, rank: int = 0, world: int = 1, **changes: Any) -> StreamedReadings:
    one = settings(data, streaming=True, shuffle_buffer=64, **changes)
    return StreamedReadings(one, [data], None, rank, world)


@pytest.fixture
def groups_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Row groups whose pictures were read, in order."""
    read: list[tuple[str, int]] = []

    class Counted(pq.ParquetFile):
        def read_row_group(self, group: int, columns: Any = None, **kwargs: Any) -> pa.Table:
            if "image" in columns:
                read.append((str(self.path), group))
            return super().read_row_group(group, columns=columns, **kwargs)

        def __init__(self, path: Any) -> None:
            super().__init__(path)
            self.path = path

    monkeypatch.setattr(streaming.pq, "ParquetFile", Counted)
    return read


def test_a_process_reads_what_it_uses(many_groups: Path, groups_read: list[Any]) -> None:
    used: list[list[int]] = []
    shares = []
    for rank in range(WORLD):
        groups_read.clear()
        one = streamed(many_groups, rank, WORLD)
        batches = [rows for _, rows in itertools.islice(one.batches(0), one.batches_per_epoch)]
        for rows in batches:
            one.__getitems__([(row, 0) for row in rows.tolist()])
        shares.append(len(groups_read) * GROUP / ROWS)
        used.append(np.concatenate(batches).tolist())
    # each group once, and those of one's own alone; a pass more where the own share fell short
    assert max(shares) < 1.5 / WORLD
    assert len(set(itertools.chain(*used))) > 0.8 * ROWS


def test_an_image_is_with_one_process_in_an_epoch(many_groups: Path) -> None:
    for epoch in (0, 1):
        owned = []
        for rank in range(WORLD):
            one = streamed(many_groups, rank, WORLD)
            first = epoch * one.batches_per_epoch
            batches = list(itertools.islice(one.batches(first), one.batches_per_epoch))
            assert {found for found, _ in batches} == {epoch}
            assert all(len(set(one.images[rows].tolist())) == len(rows) for _, rows in batches)
            owned.append({image for _, rows in batches for image in one.images[rows].tolist()})
        assert sum(map(len, owned)) == len(set.union(*owned))


def test_a_resumed_run_reads_nothing_of_what_is_behind_it(many_groups: Path, groups_read: list[Any]) -> None:
    one = streamed(many_groups)
    whole = [(epoch, rows.tolist()) for epoch, rows in itertools.islice(one.batches(0), one.batches_per_epoch + 30)]
    for first in (17, one.batches_per_epoch - 1, one.batches_per_epoch + 20):
        again = [(epoch, rows.tolist()) for epoch, rows in itertools.islice(streamed(many_groups).batches(first), 5)]
        assert again == whole[first : first + 5]
    assert not groups_read
    rows = one.__getitems__([(row, 0) for row in whole[17][1]])
    assert [row["reading_id"] for row in rows] == [str(row) for row in whole[17][1]]
    assert len(groups_read) <= len(rows)


def test_workers_have_lanes_of_their_own(many_groups: Path, processor: Any) -> None:
    found = []
    assert streamed(many_groups).lanes == 8
    for workers, serving in ((0, 0), (3, 2)):
        one = settings(many_groups, streaming=True, shuffle_buffer=64, num_workers=workers)
        data = TrainingData.__new__(TrainingData)
        data.settings, data.rank, data.world, data.kept, data.truncated_sentences = one, 0, 1, None, 0
        data.source = streamed(many_groups)
        data.workers, data.device = data.source.workers_of(workers), torch.device("cpu")
        assert data.workers == serving
        batches = data.batches(ReadingCollator(processor, one), 3)
        found.append([batch["reading_ids"] for batch in itertools.islice(batches, 12)])
    assert found[0] == found[1]


def test_epochs_differ_and_seeds_differ(many_groups: Path) -> None:
    one = streamed(many_groups)
    first = next(one.batches(0))[1].tolist()
    assert first == next(streamed(many_groups).batches(0))[1].tolist()
    assert first != next(one.batches(one.batches_per_epoch))[1].tolist()
    assert first != next(streamed(many_groups, seed=7).batches(0))[1].tolist()
