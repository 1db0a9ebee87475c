"""Several runs of one setting as one result: what `results.json` holds of one model, over their seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from egma.evaluation.reporting.report import HEADLINE_LABELS, PERCENT_LABELS
from egma.evaluation.statistics.proportions import Interval
from egma.evaluation.statistics.seeds import SEEDS, Spread

UNBOUNDED = (-np.inf, np.inf)
PAIRS = ("baselines", "differences")  # what runs have only beside each other


def over_seeds(results: Mapping[str, Any]) -> dict[str, Any]:
    """Means in place of values, their `deviations` and intervals; each run's own figures are in `runs`.

    Args:
        results: of `evaluate_model` for one run with its `model`, the other runs among its `baselines`.
    """
    runs: dict[str, Any] = {results["model"]["name"]: results, **results["baselines"]}
    every = [{part: found for part, found in run.items() if part not in PAIRS} for run in runs.values()]
    keys = [key for key in HEADLINE_LABELS if all(run.get(key) is not None for run in every)]
    spreads = {
        key: _spread([run[key] for run in every], [run["intervals"][key] for run in every], key in PERCENT_LABELS)
        for key in keys
    }
    return {
        **every[0],
        "model": {"name": ", ".join(runs)},
        **{key: spreads[key].mean if key in keys else None for key in HEADLINE_LABELS},
        "intervals": {key: spread.interval for key, spread in spreads.items()},
        "interval_methods": dict.fromkeys(keys, SEEDS),
        "deviations": {key: spread.deviation for key, spread in spreads.items()},
        "few_patients": {key: any(run["few_patients"][key] for run in every) for key in keys},
        "blind": {
            key: {name: float(np.mean([run["blind"][key][name] for run in every])) for name in of_key}
            for key, of_key in results["blind"].items()
        },
        "image_dependent": {
            key: _share([run["image_dependent"][key] for run in every]) for key in every[0]["image_dependent"]
        },
        "runs": dict(zip(runs, every, strict=True)),
        "details": {},
    }


def _spread(values: list[float], intervals: list[Interval | None], is_share: bool) -> Spread:
    return Spread(tuple(values), tuple(intervals), (0.0, 1.0) if is_share else UNBOUNDED)


def _share(shares: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The image-dependent share; each run's is over its own best blind baseline."""
    spread = _spread([of["value"] for of in shares], [of["interval"] for of in shares], is_share=False)
    found = {"value": spread.mean, "interval": spread.interval, "p_value": None, "method": SEEDS}
    few = any(of["few_patients"] for of in shares)
    return {**shares[0], **found, "few_patients": few, "against": " or ".join(sorted({of["against"] for of in shares}))}
