"""Percentile intervals by resampling patients (images where the patient is unknown).

A draw is a row of weights: how often each reading's patient was drawn, with replacement, among all patients. A
statistic takes a whole block of draws at once, `(draws, n) -> (draws,)`, and says NaN where a draw leaves it undefined.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.schema import Reading

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]

CONFIDENCE = 0.95
DRAWS_AT_ONCE = 100


@dataclass(frozen=True)
class Figure:
    """A number with its interval and the count of what it averages, or the reason why there is none."""

    value: float | None
    interval: tuple[float, float] | None = None
    n: int = 0
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"value": self.value, "interval": self.interval, "n": self.n}
        return record if self.reason is None else record | {"reason": self.reason}


@dataclass(frozen=True)
class Difference:
    """First model less second: value, interval, two-sided p-value of no difference, count of shared entries."""

    value: float
    interval: tuple[float, float] | None
    p_value: float | None
    n: int


def patient(reading: Reading) -> str:
    """The unit that is resampled: readings of one patient are not independent."""
    return f"patient {reading['subject_id']}" if reading["subject_id"] else f"image {reading['image_id']}"


class PatientBootstrap:
    """The same draws of patients for every figure, whatever the order of the rows.

    Args:
        readings: everything that is evaluated; their patients are the units.
        draws: how many resamples; 0 leaves the intervals out.
        seed: of the draws.
    """

    def __init__(self, readings: Sequence[Reading], draws: int = 1000, seed: int = 0):
        names = sorted({patient(reading) for reading in readings})
        self.unit = {name: place for place, name in enumerate(names)}
        self.seed, self.draws = seed, draws
        random = np.random.default_rng(seed)
        self.counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)

    def weights(self, readings: Sequence[Reading]) -> Array:
        """(draws, n): how often each reading counts in each draw."""
        units = [self.unit[patient(reading)] for reading in readings]
        return self.counts[:, units].astype(np.float64)

    def figure(self, statistic: Statistic, readings: Sequence[Reading], value: float | None = None) -> Figure:
        """A figure over `readings`, one entry each; `value` where a library computes it, else equal weights do."""
        if value is None:
            value = float(statistic(np.ones((1, len(readings))))[0])
        return Figure(value, self._interval(statistic, readings), len(readings))

    def means(self, values: Mapping[str, Array], readings: Sequence[Reading]) -> dict[str, Figure]:
        """`figure(mean_of(...))` of many columns (n,) at once: a draw needs only every patient's sums.

        Raises:
            ValueError: a value that is not finite; what is undefined has to be left out and counted before.
        """
        columns = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
        if not np.isfinite(columns).all():
            raise ValueError("expected finite values to average")
        if len(readings) == 0:
            return {name: Figure(None, reason="nothing to average") for name in values}
        drawn = self._drawn_means(columns, readings)
        intervals = [None] * len(values) if drawn is None else [_percentiles(column) for column in drawn.T]
        means = columns.mean(axis=0).tolist()
        return {
            name: Figure(mean, interval, len(readings))
            for name, mean, interval in zip(values, means, intervals, strict=True)
        }

    def paired(self, first: Statistic, second: Statistic, readings: Sequence[Reading]) -> Difference:
        """Compare two models on the same entries, both under the same draws of patients.

        The p-value is the share of draws whose difference, once centred at 0, is at least as far from 0 as the
        observed one, both sides, with one added to both counts (Davison & Hinkley, "Bootstrap Methods", 1997, 4.4).

        Args:
            first, second: statistics over the same `readings`, such as `mean_of` of each model's values.
        """

        def difference(weights: Array) -> Array:
            return first(weights) - second(weights)

        observed = float(difference(np.ones((1, len(readings))))[0])
        drawn = self._drawn(difference, readings)
        if drawn is None:
            return Difference(observed, None, None, len(readings))
        # a difference that is 0 but for rounding is no evidence
        far = np.abs(drawn - observed) >= abs(observed) - 1e-12
        p_value = (1 + int(far.sum())) / (1 + len(drawn))
        return Difference(observed, _percentiles(drawn), p_value, len(readings))

    def _interval(self, statistic: Statistic, readings: Sequence[Reading]) -> tuple[float, float] | None:
        drawn = self._drawn(statistic, readings)
        return None if drawn is None else _percentiles(drawn)

    def _drawn(self, statistic: Statistic, readings: Sequence[Reading]) -> Array | None:
        """The statistic in every draw that defines it; None where nothing can be drawn."""
        if not self._can_draw(readings):
            return None
        weights = self.weights(readings)
        blocks = [statistic(weights[at : at + DRAWS_AT_ONCE]) for at in range(0, self.draws, DRAWS_AT_ONCE)]
        values = np.concatenate(blocks)
        defined = values[np.isfinite(values)]
        return defined if defined.size else None

    def _drawn_means(self, columns: Array, readings: Sequence[Reading]) -> Array | None:
        if not self._can_draw(readings):
            return None
        units = np.array([self.unit[patient(reading)] for reading in readings])
        sums = np.zeros((len(self.unit), columns.shape[1]))
        np.add.at(sums, units, columns)
        entries = self.counts @ np.bincount(units, minlength=len(self.unit))
        defined = entries > 0
        return (self.counts[defined] @ sums) / entries[defined, None] if defined.any() else None

    def _can_draw(self, readings: Sequence[Reading]) -> bool:
        return self.draws > 0 and len({patient(reading) for reading in readings}) >= 2


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mean_of(credit: Array) -> Statistic:
    """Weighted mean of one credit per entry, (n,)."""

    def statistic(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return weights @ credit / weights.sum(axis=1)

    return statistic


def median_of(values: Array) -> Statistic:
    """Median of each resample of (n,) values, the mean of the two middle ones where their number is even."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def statistic(weights: Array) -> Array:
        entries = weights[:, order].cumsum(axis=1)
        total = entries[:, -1:]
        middle = [ordered[(entries > place).argmax(axis=1)] for place in ((total - 1) // 2, total // 2)]
        return np.where(total[:, 0] > 0, (middle[0] + middle[1]) / 2, np.nan)

    return statistic


def mean_of_defined(values: Array) -> Array:
    """(draws, classes) -> (draws,): mean over the classes that are defined in a draw."""
    return np.ma.masked_invalid(values).mean(axis=1).filled(np.nan)
