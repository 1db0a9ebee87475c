"""Training readings read from the shards as they come: for corpora whose copy in the disk cache would be too large.

What is read when follows from the images' names alone, which are read once: row groups are dealt to the processes, and
within a process to lanes, whose batches take turns. So a process reads what it uses, a worker serves lanes of its own,
and a resumed run finds its place without reading up to there. The same image never meets itself: in one epoch, readings
of an image that lie with several processes are used on one of them.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from torch.utils.data import get_worker_info

from dataset_scripts.schema import UserError, split_files
from egma.training.arguments import TrainingSettings
from egma.training.augmentation import text_number
from egma.training.readings import RowReader, list_lengths, numbers_of
from egma.training.sampling import EpochPlan, Indices

# of each corpus, for a new model's vocabulary and grey values
SAMPLE = 1000
RATIO_STEPS = 2**32
# of a process; a power of two, as are the workers that serve them
MOST_LANES = 8
UNITS_A_LANE = 16


class Unit(NamedTuple):
    """Rows of one row group: all, or a part where groups are few. `first` counts over all corpora."""

    corpus: int
    path: str
    group: int
    first_in_group: int
    first: int
    rows: int


class StreamedReadings(RowReader):
    """Training readings of all corpora, read by row groups, and the batches of one process.

    `gaze_ratio` keeps the gaze of readings whose number, drawn from seed and name, lies below it: about that share.
    """

    def __init__(
        self, settings: TrainingSettings, folders: list[Path], weights: list[float] | None, rank: int, world: int
    ) -> None:
        self.settings, self.rank, self.world = settings, rank, world
        shards = [[Path(path) for path in split_files(folder, "train")] for folder in folders]
        self.images = numbers_of(pq.read_table(path, columns=["image_id"])[0] for paths in shards for path in paths)
        total = len(self.images)
        self.batches_per_epoch = total // (settings.batch_size * world)
        if self.batches_per_epoch == 0:
            raise UserError(
                f"the training split has {total} readings, fewer than one batch of {settings.batch_size} on each "
                f"of {world} process(es); lower --batch_size"
            )
        self.units = _units(shards, max(1, total // (UNITS_A_LANE * world)))
        self.firsts = np.array([unit.first for unit in self.units])
        possible = len(self.units) // (world * UNITS_A_LANE)
        self.lanes = max(lanes for lanes in (1, 2, 4, MOST_LANES) if lanes <= max(1, possible))
        self.rows_together = max(settings.shuffle_buffer // self.lanes, 4 * settings.batch_size)
        self.held: dict[tuple[str, int], pa.Table] = {}
        sizes = [sum(unit.rows for unit in self.units if unit.corpus == number) for number in range(len(shards))]
        shares = weights or sizes
        self.passes = [total * share / sum(shares) / size for share, size in zip(shares, sizes, strict=True)]
        self.rows = Dataset(pa.concat_tables([_first_rows(paths) for paths in shards], promote_options="default"))
        self.has_gaze = settings.gaze_ratio > 0 and any(_has_fixations(path) for paths in shards for path in paths)
        self.summary = f"{total} training readings, streamed, about {settings.gaze_ratio:.0%} of the gaze kept"

    def workers_of(self, workers: int) -> int:
        """As many of `workers` as can have lanes of their own."""
        return max(count for count in (0, 1, 2, 4, MOST_LANES) if count <= min(workers, self.lanes))

    def batches(self, first: int) -> Iterator[tuple[int, Indices]]:
        """This process's batches of the run from its batch `first` on: the epoch and the rows."""
        start, first = divmod(first, self.batches_per_epoch)
        for epoch in itertools.count(start):
            lanes = [self._lane(dealt, epoch, lane) for lane, dealt in enumerate(self._deal(epoch))]
            turns = (next(lanes[number % self.lanes]) for number in range(self.batches_per_epoch))
            yield from ((epoch, rows) for rows in itertools.islice(turns, first, None))
            first = 0

    def keeps(self, index: int, row: dict[str, Any]) -> bool:
        number = text_number(f"{self.settings.seed} {row['reading_id']}") % RATIO_STEPS
        fixations = row["fixations"]
        recorded = fixations is not None and fixations["x"] is not None and len(fixations["x"]) > 0
        return recorded and number < self.settings.gaze_ratio * RATIO_STEPS

    def table(self, indices: list[int], columns: list[str]) -> pa.Table:
        rows = []
        for index in indices:
            unit = self.units[int(np.searchsorted(self.firsts, index, side="right")) - 1]
            group = self._group(unit.path, unit.group, columns)
            rows.append(group.slice(unit.first_in_group + index - unit.first, 1))
        return pa.concat_tables(rows)

    def _group(self, path: str, group: int, columns: list[str]) -> pa.Table:
        """A row group; those used last are held, as many rows as this worker's lanes shuffle together."""
        table = self.held.pop((path, group), None)
        if table is None:
            table = pq.ParquetFile(path).read_row_group(group, columns=columns)
            worker = get_worker_info()
            lanes = self.lanes // (1 if worker is None else worker.num_workers)
            while self.held and sum(map(len, self.held.values())) > 2 * lanes * self.rows_together:
                del self.held[next(iter(self.held))]
        self.held[path, group] = table
        return table

    def _deal(self, epoch: int) -> list[list[Indices]]:
        """Rows of this process's units of an epoch, lane by lane, those left out whose image another process has."""
        random = np.random.default_rng([self.settings.seed, 6, epoch])
        order = random.permutation(len(self.units))
        loads = np.zeros(self.world * self.lanes, dtype=np.int64)
        places = [range(unit.first, unit.first + unit.rows) for unit in self.units]
        owner = np.zeros(self.images.max() + 1, dtype=np.int64)
        lane_of = np.zeros(len(self.units), dtype=np.int64)
        for number in order:
            lane_of[number] = lane = int(loads.argmin())
            loads[lane] += len(places[number])
            owner[self.images[places[number]]] = lane % self.world
        lanes: list[list[Indices]] = [[] for _ in range(self.lanes)]
        for number in self._repeated(order, random):
            lane, rank = divmod(int(lane_of[number]), self.world)
            if rank == self.rank:
                rows = np.array(places[number])
                lanes[lane].append(rows[owner[self.images[rows]] == rank])
        return lanes

    def _repeated(self, order: Indices, random: np.random.Generator) -> Indices:
        """Numbers of the units, each as often as its corpus' weight asks for."""
        corpus = np.array([self.units[number].corpus for number in order])
        times = np.zeros(len(order), dtype=np.int64)
        for number, passes in enumerate(self.passes):
            count = int((corpus == number).sum())
            times[corpus == number] = np.floor(passes + (random.permutation(count) + 0.5) / count)
        return np.repeat(order, times)

    def _lane(self, dealt: list[Indices], epoch: int, lane: int) -> Iterator[Indices]:
        """Batches without end, of rows that are read together, in ever new orders."""
        size = self.settings.batch_size
        for passage in itertools.count():
            seed = text_number(f"{self.settings.seed} {epoch} {self.rank} {lane} {passage}")
            random = np.random.default_rng(seed)
            rows = np.concatenate([np.zeros(0, np.int64), *(dealt[place] for place in random.permutation(len(dealt)))])
            made = 0
            for block in np.array_split(rows, max(1, len(rows) // self.rows_together)):
                if len(np.unique(self.images[block])) >= size:
                    batches = EpochPlan(self.images[block], [len(block)], None, size, seed + made).epoch(0)
                    made += len(batches)
                    yield from block[batches]
            if not made:
                raise UserError(
                    f"the training split has fewer than {size} different images in what process {self.rank + 1} of "
                    f"{self.world} reads; lower --batch_size"
                )


def _units(shards: list[list[Path]], largest: int) -> list[Unit]:
    units: list[Unit] = []
    first = 0
    for corpus, path in ((number, path) for number, paths in enumerate(shards) for path in paths):
        about = pq.read_metadata(path)
        for group in range(about.num_row_groups):
            rows = about.row_group(group).num_rows
            for start in range(0, rows, largest):
                units.append(Unit(corpus, str(path), group, start, first, min(largest, rows - start)))
                first += units[-1].rows
    return units


def _first_rows(paths: list[Path]) -> pa.Table:
    batches = itertools.chain.from_iterable(pq.ParquetFile(path).iter_batches(100) for path in paths)
    tables = [pa.Table.from_batches([batch]) for batch in itertools.islice(batches, SAMPLE // 100)]
    return pa.concat_tables(tables, promote_options="default")


def _has_fixations(path: Path) -> bool:
    file = pq.ParquetFile(path)
    groups = (file.read_row_group(group, columns=["fixations.x"])[0] for group in range(file.num_row_groups))
    return any(list_lengths(group, "x").any() for group in groups)
