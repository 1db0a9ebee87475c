"""The interval over seeds and patients by a formula written down again, and by simulation at small sizes."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binom, t

from egma.evaluation.statistics.auroc import auroc_interval, placements
from egma.evaluation.statistics.proportions import wilson
from egma.evaluation.statistics.seeds import Spread

REPETITIONS, PATIENTS = 400, 60
LOWEST_COVERAGE, LEVEL = 0.93, 0.05


def test_interval_is_the_formula() -> None:
    values, intervals = (0.6, 0.7, 0.65), ((0.5, 0.68), (0.62, 0.79), (0.55, 0.75))
    found = Spread(values, intervals)
    reach = t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    low = found.mean - (((0.1 + 0.08 + 0.1) / 3) ** 2 + reach**2) ** 0.5
    high = found.mean + (((0.08 + 0.09 + 0.1) / 3) ** 2 + reach**2) ** 0.5
    assert found.interval == pytest.approx((low, high))
    assert found.percent() == f"65.0 ± 5.0 [{100 * low:.1f}, {100 * high:.1f}]"
    assert found.to_json()["interval"] == found.interval


def test_equal_runs_have_the_interval_of_one_and_no_share_exceeds_one() -> None:
    assert Spread((0.5,) * 3, ((0.4, 0.7),) * 3).interval == pytest.approx((0.4, 0.7))
    assert Spread((1.0, 0.6), ((0.9, 1.0), (0.5, 0.7))).interval == (0.0, 1.0)
    low, high = Spread((1.0, 0.6), ((0.9, 1.0), (0.5, 0.7)), (-np.inf, np.inf)).interval or (0, 0)
    assert low < 0 and high > 1


def test_no_interval_of_one_run_or_where_one_has_none() -> None:
    assert Spread((0.5,), ((0.4, 0.6),)).interval is None and Spread((0.5, 0.6)).interval is None
    assert Spread((0.5, 0.6), ((0.4, 0.6), None)).interval is None
    assert Spread((0.5,)).deviation is None


def run_shares(seeds: int, share: float, spread: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """(seeds, patients) hits, of which `share` is expected over all seeds and patients; patients are hard or easy."""
    scale = np.sqrt(2 + spread**2)
    latent = scale * ndtri(share) + random.normal(size=PATIENTS) + spread * random.normal(size=(seeds, 1))
    return np.asarray(latent + random.normal(size=(seeds, PATIENTS)) > 0)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("seeds", "share"), [(2, 0.5), (3, 0.1), (3, 0.5), (5, 0.9)])
def test_coverage_of_shares(seeds: int, share: float, spread: float) -> None:
    random, ones = np.random.default_rng([seeds, int(100 * share), int(10 * spread)]), np.ones(PATIENTS)
    covered = bootstrapped = 0
    for _ in range(REPETITIONS):
        hits = run_shares(seeds, share, spread, random)
        low, high = Spread(tuple(hits.mean(axis=1)), tuple(wilson(row.astype(float), ones) for row in hits)).interval
        covered += low <= share <= high
        # both levels drawn, the same patients for all runs
        drawn = random.multinomial(PATIENTS, ones / PATIENTS, size=100) @ hits.T / PATIENTS
        means = (drawn * random.multinomial(seeds, np.ones(seeds) / seeds, size=100)).sum(axis=1) / seeds
        bootstrapped += np.quantile(means, 0.025) <= share <= np.quantile(means, 0.975)
    assert binom.cdf(covered, REPETITIONS, LOWEST_COVERAGE) >= LEVEL
    assert covered > bootstrapped
    if spread == 1.0 and seeds <= 3:
        assert bootstrapped / REPETITIONS < 0.9


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("auroc", [0.7, 0.9])
def test_coverage_of_auroc(auroc: float, spread: float) -> None:
    """Three runs that separate better or worse by seed, on the same 60 patients with 12 positives."""
    random, unit = np.random.default_rng([int(100 * auroc), int(10 * spread)]), np.arange(PATIENTS)
    positive, covered = unit < 12, 0
    for _ in range(REPETITIONS):
        shifts = np.sqrt(2 + spread**2) * ndtri(auroc) + spread * random.normal(size=(3, 1))
        noise = np.sqrt(0.5) * (random.normal(size=PATIENTS) + random.normal(size=(3, PATIENTS)))
        placed = [placements(row, positive, unit, PATIENTS) for row in noise + shifts * positive]
        intervals = [found[0] for one in placed if (found := auroc_interval([one]))]
        low, high = Spread(tuple(one.auroc for one in placed), tuple(intervals)).interval
        covered += low <= auroc <= high
    assert binom.cdf(covered, REPETITIONS, LOWEST_COVERAGE) >= LEVEL
