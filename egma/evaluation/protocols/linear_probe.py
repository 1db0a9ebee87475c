"""What a frozen or fine-tuned image encoder knows: AUROC with 1, 10 and 100 % of the training patients.

The feature is the pooled one before projection, the mean patch token. The linear probe standardises it by the training
readings and fits a logistic regression a class, its strength chosen on the validation split. Smaller shares of the
patients are contained in larger ones. CheXpert takes its frontal images (`frontal`) and the five competition labels
with their rule for uncertain ones (`competition_labels`); any other corpus the findings that are both present and
absent in the training readings, uncertain and unlisted ones left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from dataset_scripts.schema import ABSENT, GENERATED_PREFIX, PRESENT, UNCERTAIN, Finding, Reading, UserError
from egma.evaluation.protocols.decisions import decisions
from egma.evaluation.protocols.zero_shot import Labels, auroc_figures, entries, finding_labels, lacking
from egma.evaluation.statistics.bootstrap import PatientBootstrap, patient
from egma.inference.embeddings import Images, Processor, Readings, batches, finite, inference
from egma.tools.arrays import Array

FRACTIONS = {"1 %": 0.01, "10 %": 0.1, "100 %": 1.0}
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # scikit-learn's C
MAX_ITERATIONS = 1000
COMPETITION_SOURCE = "chexpert"
# the five labels of the competition, and what an uncertain one counts as
COMPETITION_UNCERTAIN = {
    "Atelectasis": PRESENT,
    "Cardiomegaly": ABSENT,
    "Consolidation": ABSENT,
    "Edema": PRESENT,
    "Pleural Effusion": PRESENT,
}

# places of the training readings -> scores (n, C) of the validation and of the test readings, what was chosen, and
# classes without a score
Fit = Callable[[NDArray[np.int64]], tuple[Array, Array, dict[str, Any], dict[str, str]]]


class SplitLabels(NamedTuple):
    """Labels of the same classes."""

    training: Labels
    validation: Labels
    test: Labels


def competition_labels(findings: Sequence[Finding]) -> dict[str, int]:
    """1 or 0 for each of the five competition labels: uncertain ones by COMPETITION_UNCERTAIN, unlisted ones 0."""
    values = {finding["name"]: finding["value"] for finding in findings}
    return {
        name: uncertain if values.get(name) == UNCERTAIN else values.get(name, ABSENT)
        for name, uncertain in COMPETITION_UNCERTAIN.items()
    }


def probe_labels(training: Sequence[Reading], validation: Sequence[Reading], test: Sequence[Reading]) -> SplitLabels:
    """The labels of the three splits, of the same classes.

    Raises:
        UserError: a patient lies in two splits, or no class has both values in training.
    """
    _check_patients({"training": training, "validation": validation, "test": test})
    splits = (training, validation, test)
    if all(reading["source"].removeprefix(GENERATED_PREFIX) == COMPETITION_SOURCE for reading in [*training, *test]):
        competition = [[competition_labels(reading["findings"]) for reading in split] for split in splits]
        classes = sorted(competition[0][0])
        return SplitLabels(
            *(
                Labels(split, classes, np.array([[row[name] for name in classes] for row in rows], dtype=np.float64))
                for split, rows in zip(splits, competition, strict=True)
            )
        )
    values: dict[str, set[int]] = {}
    for finding in (finding for reading in training for finding in reading["findings"]):
        values.setdefault(finding["name"], set()).add(finding["value"])
    tested = {finding["name"] for reading in test for finding in reading["findings"]}
    classes = sorted(name for name, seen in values.items() if {PRESENT, ABSENT} <= seen and name in tested)
    if not classes:
        raise UserError("linear probe: no finding of the test split is both present and absent in the training split")
    return SplitLabels(*(finding_labels(split, classes) for split in splits))


def frontal(readings: Sequence[Reading]) -> list[Reading]:
    """Without the lateral images of CheXpert."""
    return [of for of in readings if of["view"] != "LATERAL" or not of["source"].endswith(COMPETITION_SOURCE)]


def _check_patients(splits: Mapping[str, Sequence[Reading]]) -> None:
    owner: dict[str, str] = {}
    for name, readings in splits.items():
        if not readings:
            raise UserError(f"linear probe and fine-tuning need a {name} split")
        for unit in {patient(reading) for reading in readings}:
            if owner.setdefault(unit, name) != name:
                raise UserError(f"{unit} lies in the {owner[unit]} and the {name} split; expected each in one")


def patient_subset(readings: Sequence[Reading], fraction: float, seed: int) -> NDArray[np.int64]:
    """Places of the readings of a seeded share of the patients, at least one; a larger share contains a smaller."""
    names = sorted({patient(reading) for reading in readings})
    order = np.random.default_rng([seed, 6]).permutation(len(names))
    chosen = {names[place] for place in order[: max(1, round(fraction * len(names)))]}
    return np.flatnonzero([patient(reading) in chosen for reading in readings])


def by_fraction(labels: SplitLabels, fit: Fit, bootstrap: PatientBootstrap, seed: int) -> dict[str, Any]:
    """Figures of every share of the training patients."""
    (training, validation, test), results = labels, {}
    for name, fraction in tqdm(FRACTIONS.items(), desc="shares of the training patients", disable=None):
        places = patient_subset(training.readings, fraction, seed)
        held, scores, chosen, untrained = fit(places)
        readings = training.select(places)
        counts = {"patients": len({patient(reading) for reading in readings}), "readings": len(readings)}
        results[name] = counts | chosen | auroc_figures(test, scores, bootstrap, untrained)
        results[name]["decisions"] = decisions(test, scores, (validation, held), bootstrap, untrained)
    return {"classes": list(test.classes), "fractions": results, "chance": {"auroc": 0.5}}


def features(model: Any, processor: Processor, rows: Readings, batch_size: int) -> dict[str, Array]:
    """(width,) of each image, by its id: the mean patch token before projection."""
    images = Images(processor, rows)
    found: dict[str, Array] = {}
    with inference(model):
        for batch in tqdm(batches(sorted(images.place), batch_size), desc="features", disable=None):
            tokens = model.get_image_features(pixel_values=images.pixels(batch).to(model.device)).last_hidden_state
            means = finite("image", batch, tokens.mean(dim=1).double().cpu())
            found |= dict(zip(batch, means.numpy(), strict=True))
    return found


def linear_probe(
    labels: SplitLabels,
    features_of: tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]],
    bootstrap: PatientBootstrap,
    seed: int,
) -> dict[str, Any]:
    """A logistic regression a class on frozen features.

    Args:
        labels: of training, validation and test readings.
        features_of: the same splits' features by image id.
    """
    training, validation, test = labels
    x_train, x_validation, x_test = (
        np.stack([by_image[reading["image_id"]] for reading in of_split.readings])
        for by_image, of_split in zip(features_of, labels, strict=True)
    )

    def fit(places: NDArray[np.int64]) -> tuple[Array, Array, dict[str, Any], dict[str, str]]:
        scaler = StandardScaler().fit(x_train[places])
        x, y = scaler.transform(x_train[places]), training.values[places]
        trainable, untrained = trainable_classes(training.classes, y)
        found = []
        for strength in STRENGTHS:
            heads = {column: _head(x, y[:, column], strength) for column in trainable}
            held, scores = (_decide(heads, scaler.transform(of), len(test.classes)) for of in (x_validation, x_test))
            found.append((mean_auroc(validation, held), strength, held, scores))
        quality, strength, held, scores = max(found, key=lambda of: of[0])
        return held, scores, {"strength": strength, "validation_auroc": quality}, untrained

    return by_fraction(labels, fit, bootstrap, seed)


def trainable_classes(classes: Sequence[str], values: Array) -> tuple[list[int], dict[str, str]]:
    """Columns with both values, and why the others are none."""
    both = [{PRESENT, ABSENT} <= set(np.unique(column[np.isfinite(column)]).tolist()) for column in values.T]
    reason = "the training readings have one value of this class only"
    return [c for c, usable in enumerate(both) if usable], {
        name: reason for name, usable in zip(classes, both, strict=True) if not usable
    }


def mean_auroc(labels: Labels, scores: Array) -> float:
    """Mean over the classes with both values; 0.5 where there is none, which then decides nothing."""
    classes = [entries(labels, scores, column) for column in range(len(labels.classes))]
    found = [roc_auc_score(of[1], of[0]) for of in classes if lacking(of) is None]
    return float(np.mean(found)) if found else 0.5


def _head(x: Array, y: Array, strength: float) -> LogisticRegression:
    listed = np.isin(y, (PRESENT, ABSENT))
    return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(x[listed], y[listed])


def _decide(heads: Mapping[int, LogisticRegression], x: Array, classes: int) -> Array:
    scores = np.zeros((len(x), classes))
    for column, head in heads.items():
        scores[:, column] = head.decision_function(x)
    return scores
