"""How far AUROC hangs on the choice of prompts: each single one and random halves of them, beside all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dataset_scripts.schema import PRESENT
from egma.evaluation.protocols.zero_shot import Labels, auroc_figures
from egma.evaluation.statistics.auroc import share_below
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.scores import Pooling
from egma.tools.arrays import Array

SUBSETS = 20
ENDS: dict[str, Callable[[Array], Any]] = {"mean": np.mean, "lowest": np.min, "highest": np.max}


def prompt_sensitivity(
    labels: Labels, scores: Mapping[str, Array], bootstrap: PatientBootstrap, pooling: Pooling, seed: int
) -> dict[str, Any]:
    """AUROC by all prompts, and its spread over each `single` one and over SUBSETS of `half` of them, by class.

    Args:
        scores: (n, P) by class, of its prompts in the order of their texts.
    """
    reduce = np.max if pooling == "max" else np.mean
    every = np.stack([reduce(scores[name], axis=1) for name in labels.classes], axis=1)
    found, aurocs = auroc_figures(labels, every, bootstrap), dict[str, dict[str, Array]](single={}, half={})
    for column, name in enumerate(labels.classes):
        if found["auroc_per_class"][name]["value"] is not None:
            listed, count = labels.listed(column), scores[name].shape[1]
            positive, random = labels.values[listed, column] == PRESENT, np.random.default_rng([seed, *name.encode()])
            halves = [random.permutation(count)[: (count + 1) // 2] for _ in range(SUBSETS)]
            for kind, choices in (("single", np.arange(count)[:, None]), ("half", halves)):
                chosen = [reduce(scores[name][listed][:, places], axis=1) for places in choices]
                aurocs[kind][name] = np.array([share_below(one[positive], one[~positive]).mean() for one in chosen])
    spreads = {kind: {name: _spread([values]) for name, values in of.items()} for kind, of in aurocs.items()}
    return found | {kind: {"mean": _spread([*aurocs[kind].values()])} | of for kind, of in spreads.items() if of}


def _spread(classes: Sequence[Array]) -> dict[str, float]:
    """Of the mean over classes of AUROCs (choices,), chosen for each on its own; at the ends all worst, all best."""
    ends = {name: float(np.mean([of(aurocs) for aurocs in classes])) for name, of in ENDS.items()}
    return ends | {"deviation": float(np.sqrt(sum(aurocs.var() for aurocs in classes)) / len(classes))}
