"""Percentile intervals by resampling patients (images where the patient is unknown).

A draw is a row of weights: how often each reading's patient was drawn, with replacement, among all patients. A
statistic takes a whole block of draws at once, `(draws, n) -> (draws,)`, and says NaN where a draw leaves it undefined.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    draws: Array | None = field(default=None, compare=False, repr=False)  # NaN where a draw leaves it undefined

    def to_json(self) -> dict[str, Any]:
        """With `draws`, by which two models' figures are compared, until `without_draws` takes them off."""
        record: dict[str, Any] = {"value": self.value, "interval": self.interval, "n": self.n}
        if self.draws is not None:
            record["draws"] = [float(value) if np.isfinite(value) else None for value in self.draws]
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
        drawn = self._drawn(statistic, readings)
        return Figure(value, _interval(drawn), len(readings), draws=drawn)

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
        of_each = [None] * len(values) if drawn is None else list(drawn.T)
        means = columns.mean(axis=0).tolist()
        return {
            name: Figure(mean, _interval(column), len(readings), draws=column)
            for name, mean, column in zip(values, means, of_each, strict=True)
        }

    def paired(self, first: Statistic, second: Statistic, readings: Sequence[Reading]) -> Difference:
        """Compare two models on the same entries, both under the same draws of patients; see `paired_difference`.

        Args:
            first, second: statistics over the same `readings`, such as `mean_of` of each model's values.
        """
        figures = [self.figure(statistic, readings) for statistic in (first, second)]
        return paired_difference(figures[0].to_json(), figures[1].to_json())

    def _drawn(self, statistic: Statistic, readings: Sequence[Reading]) -> Array | None:
        """The statistic in every draw, NaN where it is undefined; None where nothing can be drawn."""
        if not self._can_draw(readings):
            return None
        weights = self.weights(readings)
        blocks = [statistic(weights[at : at + DRAWS_AT_ONCE]) for at in range(0, self.draws, DRAWS_AT_ONCE)]
        return np.concatenate(blocks)

    def _drawn_means(self, columns: Array, readings: Sequence[Reading]) -> Array | None:
        if not self._can_draw(readings):
            return None
        units = np.array([self.unit[patient(reading)] for reading in readings])
        sums = np.zeros((len(self.unit), columns.shape[1]))
        np.add.at(sums, units, columns)
        entries = self.counts @ np.bincount(units, minlength=len(self.unit))
        with np.errstate(invalid="ignore"):
            return np.asarray((self.counts @ sums) / np.where(entries > 0, entries, np.nan)[:, None])

    def _can_draw(self, readings: Sequence[Reading]) -> bool:
        return self.draws > 0 and len({patient(reading) for reading in readings}) >= 2


def paired_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> Difference:
    """Two models' figures over the same entries, as `Figure.to_json` of the same bootstrap has them.

    The p-value is the share of draws whose difference, once centred at 0, is at least as far from 0 as the
    observed one, both sides, with one added to both counts (Davison & Hinkley, "Bootstrap Methods", 1997, 4.4).

    Raises:
        ValueError: the figures do not count as many entries, or one has no value.
    """
    if first["n"] != second["n"] or first["value"] is None or second["value"] is None:
        raise ValueError("expected two figures over the same entries, both with a value")
    observed = first["value"] - second["value"]
    if "draws" not in first or "draws" not in second:
        return Difference(observed, None, None, first["n"])
    drawn = np.array(first["draws"], dtype=np.float64) - np.array(second["draws"], dtype=np.float64)
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Difference(observed, None, None, first["n"])
    # a difference that is 0 but for rounding is no evidence
    far = np.abs(drawn - observed) >= abs(observed) - 1e-12
    return Difference(observed, _percentiles(drawn), (1 + int(far.sum())) / (1 + len(drawn)), first["n"])


def without_draws(details: Any) -> Any:
    """The same figures, fit for `results.json`."""
    if isinstance(details, Mapping):
        return {name: without_draws(value) for name, value in details.items() if name != "draws"}
    return [without_draws(value) for value in details] if isinstance(details, list) else details


def _interval(drawn: Array | None) -> tuple[float, float] | None:
    """Percentiles of the draws that define the figure."""
    if drawn is None:
        return None
    defined = drawn[np.isfinite(drawn)]
    return _percentiles(defined) if defined.size else None


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
