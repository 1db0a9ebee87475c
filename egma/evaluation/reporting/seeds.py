"""Several runs of one setting as one result: what `results.json` holds of one model, over their seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egma.evaluation.reporting.report import PERCENT_LABELS
from egma.evaluation.statistics.seeds import SEEDS, Spread

PAIRS = ("baselines", "differences")  # what runs have only beside each other


def over_seeds(results: Mapping[str, Any]) -> dict[str, Any]:
    """Means in place of values, their `deviations` and intervals; each run's own figures are in `runs`.

    Args:
        results: of `evaluate_model` for one run with its `model`, the other runs among its `baselines`.
    """
    runs: dict[str, Any] = {results["model"]["name"]: results, **results["baselines"]}
    every = [{part: found for part, found in run.items() if part not in PAIRS} for run in runs.values()]
    found: dict[str, dict[str, Any]] = {}
    for key in results["intervals"]:
        own = [
            {"value": of[key], "interval": of["intervals"][key], "few_patients": of["few_patients"][key]}
            for of in every
        ]
        found[key] = _mean(own, key in PERCENT_LABELS)
    shares = {key: [of["image_dependent"][key] for of in every] for key in results["image_dependent"]}
    return {
        **every[0],
        **{key: of["value"] for key, of in found.items()},
        "intervals": {key: of["interval"] for key, of in found.items()},
        "deviations": {key: of["deviation"] for key, of in found.items()},
        "few_patients": {key: of["few_patients"] for key, of in found.items()},
        "interval_methods": dict.fromkeys(found, SEEDS),
        "model": {"name": ", ".join(runs)},
        "blind": {
            key: {name: float(np.mean([of["blind"][key][name] for of in every])) for name in of_key}
            for key, of_key in results["blind"].items()
        },
        "image_dependent": {
            key: _mean(own) | {"against": " or ".join(sorted({of["against"] for of in own}))}
            for key, own in shares.items()
        },
        "runs": dict(zip(runs, every, strict=True)),
        "details": {},
    }


def _mean(figures: Sequence[Mapping[str, Any]], is_share: bool = False) -> dict[str, Any]:
    limits = (0.0, 1.0) if is_share else (-np.inf, np.inf)
    spread = Spread(tuple(of["value"] for of in figures), tuple(of["interval"] for of in figures), limits)
    few, own = any(of["few_patients"] for of in figures), {"value": spread.mean, "interval": spread.interval}
    return {**figures[0], **own, "deviation": spread.deviation, "few_patients": few, "p_value": None, "method": SEEDS}
