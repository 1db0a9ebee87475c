"""Runs of one setting with other seeds: their mean and spread, and an interval over seeds *and* patients.

A run is off by its seed, and by the patients, who are the same for all runs. The interval adds the squares of both
(MOVER; Zou & Donner, "Construction of confidence limits about effect measures", Stat. Med. 2008): how far the runs' own
intervals over patients reach, on average, and Student's t over the runs. What a seed does to single patients is in
both: it is rather too wide. A bootstrap that draws runs too is too narrow: three show it two thirds of the variance.
"""

from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from egma.evaluation.statistics.proportions import CONFIDENCE, Interval

SEEDS = "runs' own and Student's t over seeds (MOVER)"


class Spread(NamedTuple):
    """A figure of every run, with its interval over patients; `limits` are what a figure of its kind cannot exceed."""

    values: tuple[float, ...]
    intervals: tuple[Interval | None, ...] = ()
    limits: Interval = (0.0, 1.0)

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the runs, from two on."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """Over seeds and patients; None of one run, or where a run has none."""
        own = [interval for interval in self.intervals if interval is not None]
        if self.deviation is None or len(own) < len(self.values):
            return None
        runs = len(self.values)
        reach = float(stdtrit(runs - 1, (1 + CONFIDENCE) / 2)) * self.deviation / np.sqrt(runs)
        below, above = np.abs(np.mean(own, axis=0) - self.mean)
        low, high = np.clip([self.mean - np.hypot(below, reach), self.mean + np.hypot(above, reach)], *self.limits)
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "deviation": self.deviation, "interval": self.interval, "values": list(self.values)}

    def percent(self) -> str:
        text = f"{100 * self.mean:.1f}"
        text = text if self.deviation is None else f"{text} ± {100 * self.deviation:.1f}"
        return text if self.interval is None else f"{text} [{', '.join(f'{100 * end:.1f}' for end in self.interval)}]"
