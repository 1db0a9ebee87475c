"""Every `evaluate` module loads without a network and gives the mean of its plain function."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest

import egma.evaluation.metrics
from egma.evaluation.metrics import localisation, ranking, saliency

FOLDER = Path(egma.evaluation.metrics.__file__).parent
RANDOM = np.random.default_rng(0)
MAPS = RANDOM.random((3, 4, 5))
SPOTS = RANDOM.integers(0, 2, (3, 4, 5)).astype(float)
SCORES, RELEVANT = RANDOM.random((4, 6)), np.eye(4, 6)
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "precision_at_k": (ranking.precision_at_k, (SCORES, RELEVANT), {"k": 2}),
    "recall_at_k": (ranking.recall_at_k, (SCORES, RELEVANT), {"k": 2}),
    "cnr": (localisation.cnr, (MAPS, SPOTS), {}),
    "miou": (localisation.miou, (MAPS, SPOTS), {"thresholds": [0.3, 0.6]}),
    "pointing_game": (localisation.pointing_credit, (MAPS, SPOTS), {}),
    "nss": (saliency.nss, (MAPS, SPOTS), {}),
    "auc_judd": (saliency.auc_judd, (MAPS, SPOTS), {"thresholds": "fixations"}),
    "shuffled_auc": (saliency.shuffled_auc, (MAPS, SPOTS, SPOTS[::-1]), {}),
    "cc": (saliency.cc, (MAPS, MAPS**2), {}),
    "sim": (saliency.sim, (MAPS, MAPS**2), {}),
    "kl": (saliency.kl, (MAPS, MAPS**2), {}),
}


def test_every_folder_has_a_case() -> None:
    assert {path.stem for path in FOLDER.glob("*/*.py")} == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_module_gives_the_mean(name: str) -> None:
    function, parts, settings = CASES[name]
    module = evaluate.load(str(FOLDER / name))
    inputs = dict(zip(("predictions", "references", "other_fixations"), parts, strict=False))
    assert module.name == name and module.description
    expected = {name: pytest.approx(function(*parts, **settings).mean(), abs=1e-9)}
    assert module.compute(**inputs, **settings) == expected


def test_items_of_several_sizes_and_batches() -> None:
    module = evaluate.load(str(FOLDER / "nss"))
    wide, high = RANDOM.random((2, 6)), RANDOM.random((5, 3))
    for heat in (wide, high):
        module.add(prediction=heat.tolist(), reference=(heat > 0.5).astype(float).tolist())
    expected = [saliency.nss(heat[None], (heat > 0.5)[None].astype(float))[0] for heat in (wide, high)]
    assert module.compute()["nss"] == pytest.approx(np.mean(expected))


def test_refusal_of_the_plain_function_comes_through() -> None:
    with pytest.raises(ValueError, match="fixations: none"):
        evaluate.load(str(FOLDER / "nss")).compute(predictions=MAPS, references=0 * SPOTS)
