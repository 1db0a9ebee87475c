"""Figures over patients (images where the patient is unknown): closed intervals of `statistics`, else a bootstrap.

A draw is a row of weights: how often each reading's patient was drawn, with replacement, among all patients. A
statistic takes a whole block of draws at once, `(draws, n) -> (draws,)`, and says NaN where a draw leaves it undefined.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, harmonic_mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.schema import Reading
from egma.evaluation.statistics.auroc import auroc_interval, placements, scarcer_patients
from egma.evaluation.statistics.pairs import (
    FEW_DISAGREEING,
    SIGN_FLIPS,
    Ranked,
    auroc_difference,
    disagreeing_patients,
    sign_flip,
)
from egma.evaluation.statistics.proportions import CONFIDENCE, WILSON, Interval, wilson
from egma.tools.arrays import Array

Statistic = Callable[[Array], Array]

BOOTSTRAP = "percentile bootstrap"
FEW_PATIENTS = 10
DRAWS_AT_ONCE = 100
PAIRED_KEYS = ("draws", "paired")


@dataclass(frozen=True)
class Figure:
    """A number with its interval and the count of what it averages, or the reason why there is none.

    `patients` are those it rests on: of an AUROC the scarcer kind. A figure of fewer than FEW_PATIENTS is marked.
    """

    value: float | None
    interval: Interval | None = None
    n: int = 0
    reason: str | None = None
    method: str | None = None
    patients: int | None = None
    draws: Array | None = field(default=None, compare=False, repr=False)  # NaN where a draw leaves it undefined
    paired: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)  # see PatientBootstrap.difference

    def to_json(self) -> dict[str, Any]:
        """With `draws` or `paired`, by which two models' figures are compared, until `without_draws` takes them off."""
        record: dict[str, Any] = {"value": self.value, "interval": self.interval, "n": self.n}
        if self.interval is not None:
            record["method"] = self.method
        if self.patients is not None:
            record |= {"patients": self.patients, "few_patients": self.patients < FEW_PATIENTS}
        if self.paired is not None:
            record["paired"] = self.paired
        elif self.draws is not None:
            record["draws"] = [float(value) if np.isfinite(value) else None for value in self.draws]
        return record if self.reason is None else record | {"reason": self.reason}


@dataclass(frozen=True)
class Difference:
    """First model less second: value, interval, two-sided p-value of no difference, count of shared entries."""

    value: float
    interval: Interval | None
    p_value: float | None
    n: int
    method: str | None = None
    few_patients: bool = False  # in the figures, or that disagree


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
        counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        self.counts = counts.astype(np.float64)

    @cached_property
    def flipped(self) -> NDArray[np.bool_]:
        """(draws, P): the patients whose figures two models exchange in each draw."""
        random = np.random.default_rng([self.seed, 1])
        return np.asarray(random.random((self.draws, len(self.unit)), dtype=np.float32) < 0.5)

    def units(self, readings: Sequence[Reading]) -> NDArray[np.int64]:
        """(n,) place of each reading's patient."""
        return np.array([self.unit[patient(reading)] for reading in readings], dtype=np.int64)

    def weights(self, readings: Sequence[Reading]) -> Array:
        """(draws, n): how often each reading counts in each draw."""
        return self.counts[:, self.units(readings)]

    def figure(
        self, statistic: Statistic, readings: Sequence[Reading], rests_on: NDArray[np.bool_] | None = None
    ) -> Figure:
        """A figure over `readings`, one entry each, with a percentile interval; see `figures`."""
        return self.figures(lambda weights: statistic(weights)[:, None], readings, {"": rests_on})[""]

    def figures(
        self, statistic: Statistic, readings: Sequence[Reading], rests_on: Mapping[str, NDArray[np.bool_] | None]
    ) -> dict[str, Figure]:
        """The columns of a statistic `(draws, n) -> (draws, k)`, by their names.

        A share that is 0 or 1 in every draw takes Wilson's interval, as of that share of hits in the entries it rests
        on: no resample holds an exception that the sample lacks.

        Args:
            rests_on: of every column; (n,) of a share: the entries that decide it.
        """
        units = self.units(readings)
        values, drawn = statistic(np.ones((1, len(readings))))[0].tolist(), self._drawn(statistic, units)
        patients, figures = len(np.unique(units)), {}
        for place, (name, value) in enumerate(zip(rests_on, values, strict=True)):
            draws, mask = None if drawn is None else drawn[:, place], rests_on[name]
            interval, method = _interval(draws), BOOTSTRAP
            if mask is not None and interval in ((0.0, 0.0), (1.0, 1.0)):
                entries = np.bincount(units[mask], minlength=len(self.unit)).astype(np.float64)
                interval, method = wilson(value * entries, entries) or (0.0, 1.0), WILSON
            figures[name] = Figure(value, interval, len(readings), None, method, patients, draws=draws)
        return figures

    def mean(self, figures: Mapping[str, Figure], n: int) -> Figure:
        """Of those that have a value, in every draw; where all draws are equal the mean of their intervals."""
        known = [figure for figure in figures.values() if figure.value is not None]
        if not known:
            return next(iter(figures.values()))
        value, patients = fmean(of.value or 0 for of in known), int(harmonic_mean([of.patients or 0 for of in known]))
        drawn = [figure.draws for figure in known if figure.draws is not None]
        if len(drawn) < len(known):
            return Figure(value, None, n, patients=patients)
        draws = mean_of_defined(np.stack(drawn, axis=1))
        low, high = _interval(draws) or (0.0, 1.0)
        if low == high:
            low, high = (fmean(ends) for ends in zip(*(figure.interval or (0.0, 1.0) for figure in known), strict=True))
        return Figure(value, (low, high), n, None, BOOTSTRAP, patients, draws)

    def proportion(self, credit: Array | NDArray[np.bool_], readings: Sequence[Reading], trials: int = 1) -> Figure:
        """Mean of (n,) credits from 0 to 1, with Wilson's interval; `trials` of which a credit is the mean."""
        return self.means({"share": credit}, readings, ("share",), trials)["share"]

    def mean_auroc(
        self, classes: Sequence[tuple[Array, NDArray[np.bool_], Sequence[Reading]]], n: int, paired: bool = False
    ) -> Figure:
        """Mean AUROC over classes, each with the scores, the positives and the readings of its entries."""
        units = [self.units(readings) for _, _, readings in classes]
        parts = list(zip(classes, units, strict=True))
        placed = [placements(scores, positive, unit, len(self.unit)) for (scores, positive, _), unit in parts]
        value = float(np.mean([one.auroc for one in placed]))
        found = auroc_interval(placed) if self.draws else None
        ranked = [Ranked.of(scores, positive, unit).to_json() for (scores, positive, _), unit in parts if paired]
        interval, method = found or (None, None)
        patients = int(scarcer_patients(placed))
        return Figure(value, interval, n, None, method, patients, paired={"ranked": ranked} if paired else None)

    def means(
        self,
        values: Mapping[str, Array | NDArray[np.bool_]],
        readings: Sequence[Reading],
        shares: Collection[str] = (),
        trials: int = 1,
    ) -> dict[str, Figure]:
        """`figure(mean_of(...))` of many columns (n,) at once: a draw needs only every patient's sums.

        Args:
            shares: the columns of credits from 0 to 1, which take Wilson's interval; `trials` see `proportion`.

        Raises:
            ValueError: a value that is not finite; what is undefined has to be left out and counted before.
        """
        columns = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
        if not np.isfinite(columns).all():
            raise ValueError("expected finite values to average")
        if len(readings) == 0:
            return {name: Figure(None, reason="nothing to average") for name in values}
        units = self.units(readings)
        sums = np.zeros((len(self.unit), columns.shape[1]))
        np.add.at(sums, units, columns)
        entries = np.bincount(units, minlength=len(self.unit)).astype(np.float64)
        seen = np.flatnonzero(entries)
        drawn = self._drawn_means(sums, entries) if self.draws > 0 and len(seen) >= 2 else None
        figures = {}
        for place, (name, mean) in enumerate(zip(values, columns.mean(axis=0).tolist(), strict=True)):
            draws = None if drawn is None else drawn[:, place]
            interval, method = _interval(draws), BOOTSTRAP
            if name in shares and interval is not None:
                interval, method = wilson(sums[:, place], entries, trials), WILSON
            paired = {"patients": seen.tolist(), "sums": sums[seen, place].tolist(), "entries": entries[seen].tolist()}
            figures[name] = Figure(mean, interval, len(readings), None, method, len(seen), draws, paired)
        return figures

    def difference(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Difference:
        """Two models' figures over the same entries, as `Figure.to_json` has them: sign-flips where patients add up.

        Raises:
            ValueError: see `paired_difference`.
        """
        one, other = first.get("paired"), second.get("paired")
        found = paired_difference(first, second)
        if one is None or other is None or first["interval"] is None:
            return found
        if "ranked" in one:
            models = [[Ranked.from_json(of_class) for of_class in ranked["ranked"]] for ranked in (one, other)]
            added, weights = auroc_difference(models[0], models[1], len(self.unit))
        else:
            added, weights = np.zeros(len(self.unit)), np.zeros(len(self.unit))
            added[one["patients"]] = (np.array(one["sums"]) - np.array(other["sums"])) / first["n"]
            weights[one["patients"]] = np.array(one["entries"]) / first["n"]
        few = first["few_patients"] or disagreeing_patients(added) < FEW_DISAGREEING
        return Difference(found.value, *sign_flip(added, weights, self.flipped), found.n, SIGN_FLIPS, few)

    def _drawn(self, statistic: Statistic, units: NDArray[np.int64]) -> Array | None:
        """The statistic in every draw, NaN where it is undefined; None where nothing can be drawn."""
        if self.draws == 0 or len(np.unique(units)) < 2:
            return None
        weights = self.counts[:, units]
        blocks = [statistic(weights[at : at + DRAWS_AT_ONCE]) for at in range(0, self.draws, DRAWS_AT_ONCE)]
        return np.concatenate(blocks)

    def _drawn_means(self, sums: Array, entries: Array) -> Array:
        drawn = self.counts @ entries
        with np.errstate(invalid="ignore"):
            return np.asarray((self.counts @ sums) / np.where(drawn > 0, drawn, np.nan)[:, None])


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
    return Difference(observed, _percentiles(drawn), (1 + int(far.sum())) / (1 + len(drawn)), first["n"], BOOTSTRAP)


def without_draws(details: Any) -> Any:
    """The same figures, fit for `results.json`."""
    if isinstance(details, Mapping):
        return {name: without_draws(value) for name, value in details.items() if name not in PAIRED_KEYS}
    return [without_draws(value) for value in details] if isinstance(details, list) else details


def _interval(drawn: Array | None) -> Interval | None:
    """Percentiles of the draws that define the figure."""
    if drawn is None:
        return None
    defined = drawn[np.isfinite(drawn)]
    return _percentiles(defined) if defined.size else None


def _percentiles(values: Array) -> Interval:
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
