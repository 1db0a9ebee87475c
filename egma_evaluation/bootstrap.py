"""Percentile intervals by resampling patients (images where the patient is unknown).

A draw is a row of weights: how often each reading's patient was drawn, with replacement, among all patients. A
statistic takes a whole block of draws at once, `(draws, n) -> (draws,)`, and says NaN where a draw leaves it undefined.
"""

from collections.abc import Callable, Sequence
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

    def _interval(self, statistic: Statistic, readings: Sequence[Reading]) -> tuple[float, float] | None:
        if self.draws == 0 or len({patient(reading) for reading in readings}) < 2:
            return None
        weights = self.weights(readings)
        blocks = [statistic(weights[at : at + DRAWS_AT_ONCE]) for at in range(0, self.draws, DRAWS_AT_ONCE)]
        values = np.concatenate(blocks)
        defined = values[np.isfinite(values)]
        if defined.size == 0:
            return None
        low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)


def mean_of(credit: Array) -> Statistic:
    """Weighted mean of one credit per entry, (n,)."""

    def statistic(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return weights @ credit / weights.sum(axis=1)

    return statistic


def median_of(values: Array) -> Statistic:
    """Median of each resample of (n,) values."""

    def statistic(weights: Array) -> Array:
        resamples = (np.repeat(values, row.astype(np.int64)) for row in weights)
        return np.array([np.median(resample) if resample.size else np.nan for resample in resamples])

    return statistic


def mean_of_defined(values: Array) -> Array:
    """(draws, classes) -> (draws,): mean over the classes that are defined in a draw."""
    return np.ma.masked_invalid(values).mean(axis=1).filled(np.nan)
