"""Which readings meet in which batch: by the seed and the epoch alone, on any number of processes.

Several readings of one image never meet: as each other's negatives they would teach that an image does not fit its own
report. The same `image_id` is the same image, in whatever corpus it stands.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.schema import UserError

Indices = NDArray[np.int64]


class EpochPlan:
    """The batches of every epoch over rows 0 ... n - 1.

    Args:
        images: (n,) a number for every row's image, equal for equal images.
        sizes: rows of each corpus, which stand one after the other.
        weights: each corpus' share of an epoch; None: every row once. An epoch has n rows either way.
        batch_size: rows of a batch over all processes.

    Raises:
        UserError: a corpus whose share of an epoch is no reading.
    """

    def __init__(
        self, images: Indices, sizes: list[int], weights: list[float] | None, batch_size: int, seed: int
    ) -> None:
        self.images, self.sizes, self.batch_size, self.seed = images, sizes, batch_size, seed
        rows = sum(sizes)
        shares = sizes if weights is None else [rows * weight / sum(weights) for weight in weights]
        self.counts = [round(share) for share in shares]
        if weights is not None and 0 in self.counts:
            raise UserError(
                f"data_weights gives corpus {self.counts.index(0) + 1} less than half a reading of an epoch's {rows}, "
                "which is none; expected at least one of each corpus"
            )

    def batches(self, first: int) -> Iterator[tuple[int, Indices]]:
        """The run's batches without end, each with its epoch, from batch `first` on."""
        start = 0
        if self.counts == self.sizes:  # every row in every epoch: all are of one length
            start, first = divmod(first, len(self.epoch(0)))
        for epoch in itertools.count(start):
            batches = self.epoch(epoch)
            yield from ((epoch, batch) for batch in batches[first:])
            first = max(0, first - len(batches))

    def epoch(self, epoch: int) -> Indices:
        """(batches, batch_size) rows; what does not fill a batch is left out, others in every epoch.

        Raises:
            UserError: there are not enough rows, or images, for one batch.
        """
        random = np.random.default_rng([self.seed, 4, epoch])
        rows = random.permutation(self._rows(epoch))
        batches = self._possible_batches(rows)
        if batches == 0:
            raise UserError(
                f"the training split has {len(rows)} readings of {len(np.unique(self.images[rows]))} images, fewer "
                f"than one batch of {self.batch_size} different images on all processes together; lower --batch_size"
            )
        # image by image, at most one for each batch; so long a run of neighbours falls into different batches
        _, image = np.unique(self.images[rows], return_inverse=True)
        image = random.permutation(image.max() + 1)[image]
        rows = rows[np.argsort(image, kind="stable")]
        occurrence = _occurrence(np.sort(image))
        rows = rows[occurrence < batches]
        chosen = rows[: len(rows) // batches * batches].reshape(-1, batches).T
        # every column holds more than a batch when images repeat; which of them are left out is drawn
        chosen = random.permuted(chosen, axis=1)[:, : self.batch_size]
        return random.permutation(chosen, axis=0)

    def _rows(self, epoch: int) -> Indices:
        """The readings of an epoch: each corpus goes on where its share of the epoch before ended."""
        parts, first = [], 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            places = np.arange(epoch * count, (epoch + 1) * count)
            passes = {one: self._order(number, one) for one in np.unique(places // size).tolist()} if size else {}
            parts += [first + passes[one][places[places // size == one] % size] for one in passes]
            first += size
        return np.concatenate(parts)

    def _order(self, corpus: int, passage: int) -> Indices:
        random = np.random.default_rng([self.seed, 5, corpus, passage])
        return random.permutation(self.sizes[corpus])

    def _possible_batches(self, rows: Indices) -> int:
        """Most batches of different images: T with sum over images of min(readings, T) >= T * batch_size."""
        readings = np.unique(self.images[rows], return_counts=True)[1]
        low, high = 0, len(rows) // self.batch_size
        while low < high:
            middle = (low + high + 1) // 2
            enough = int(np.minimum(readings, middle).sum()) >= middle * self.batch_size
            low, high = (middle, high) if enough else (low, middle - 1)
        return low


def _occurrence(ordered: Indices) -> Indices:
    """(n,) sorted values -> how many equal ones stand before each."""
    starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1] if len(ordered) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.r_[starts, len(ordered)])
    return np.arange(len(ordered)) - np.repeat(starts, lengths)


def even_batches(images: Indices, batch_size: int) -> list[Indices]:
    """Rows of `images` (n,) in batches of nearly one size: as few as hold at most `batch_size` and no image twice."""
    number = max(-(-len(images) // batch_size), int(np.bincount(images).max(initial=0)))
    order = np.argsort(images, kind="stable")
    return [np.sort(order[first::number]) for first in range(number)]


def gaze_subset(has_gaze: NDArray[np.bool_], gaze_ratio: float, seed: int) -> NDArray[np.bool_]:
    """Which readings keep their gaze: a seeded share of those that have one (METHOD "gaze_ratio").

    A larger share contains the smaller one of the same seed.
    """
    recorded = np.flatnonzero(has_gaze)
    order = np.random.default_rng([seed, 0]).permutation(recorded)
    kept = np.zeros(len(has_gaze), dtype=bool)
    kept[order[: round(gaze_ratio * len(recorded))]] = True
    return kept
