"""The probe against scikit-learn used by hand, subsets of patients, splits that leak, and fine-tuning that learns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import nn
from transformers import AutoModelForImageClassification

from dataset_scripts.corpora.chexpert import FIVE
from dataset_scripts.schema import Finding, Reading, UserError
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols import fine_tuning as module
from egma.evaluation.protocols.fine_tuning import fine_tuning
from egma.evaluation.protocols.linear_probe import (
    competition_labels,
    features,
    linear_probe,
    patient_subset,
    probe_labels,
)
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import Images
from modeling_egma import EgmaForImageClassification, EgmaModel, EgmaProcessor
from tests.egma.evaluation.fakes import oracle, reading
from tests.modeling_egma.tower_configs import config_of

RANDOM = np.random.default_rng(0)


def rows_of(first: int, count: int) -> list[Reading]:
    """Image k is dark without and bright with the finding."""
    made = []
    for number in range(first, first + count):
        value = number % 2
        grey = 40 + 150 * value
        picture = Image.fromarray(np.full((40, 40), grey, dtype=np.uint8))
        findings = {"Edema": value, "Fracture": int(RANDOM.random() < 0.5)}
        made.append(reading(number, findings=findings, image=picture, subject_id=f"patient {number}"))
    return made


TRAIN, VALIDATION, TEST = rows_of(0, 40), rows_of(100, 20), rows_of(200, 30)


def random_features(rows: list[Reading]) -> dict[str, Any]:
    values = {row["image_id"]: {finding["name"]: finding["value"] for finding in row["findings"]} for row in rows}
    random = np.random.default_rng(len(rows))
    return {name: random.normal(size=5) + 1.2 * np.eye(5)[0] * of["Edema"] for name, of in values.items()}


def test_probe_is_scikit_learn_by_hand() -> None:
    labels = probe_labels(TRAIN, VALIDATION, TEST)
    splits = [random_features(rows) for rows in (TRAIN, VALIDATION, TEST)]
    result = linear_probe(labels, (splits[0], splits[1], splits[2]), PatientBootstrap(TEST, 20), seed=0)
    whole = result["fractions"]["100 %"]
    x = [
        np.stack([split[row["image_id"]] for row in rows])
        for split, rows in zip(splits, (TRAIN, VALIDATION, TEST), strict=True)
    ]
    mean, deviation = x[0].mean(axis=0), x[0].std(axis=0)
    for column, name in enumerate(("Edema", "Fracture")):
        y = [np.array([row["findings"][column]["value"] for row in rows]) for rows in (TRAIN, TEST)]
        head = LogisticRegression(C=whole["strength"], max_iter=1000).fit((x[0] - mean) / deviation, y[0])
        expected = roc_auc_score(y[1], head.decision_function((x[2] - mean) / deviation))
        assert whole["auroc_per_class"][name]["value"] == pytest.approx(expected)
    assert whole["patients"] == 40 and result["fractions"]["10 %"]["patients"] == 4
    decided, edema = whole["decisions"], labels.test.values[:, 0] == 1
    held_edema = labels.validation.values[:, 0] == 1
    head = LogisticRegression(C=whole["strength"], max_iter=1000).fit(
        (x[0] - mean) / deviation, labels.training.values[:, 0]
    )
    held, scores = (head.decision_function((of - mean) / deviation) for of in x[1:])
    false, true, cuts = roc_curve(held_edema, held)
    threshold = decided["fits"]["Edema"]["threshold"]
    assert (held[held_edema] >= threshold).mean() + (held[~held_edema] < threshold).mean() == pytest.approx(
        1 + (true - false).max()
    )
    assert np.isclose(cuts, threshold).any()
    assert decided["figures"]["threshold_sensitivity"]["Edema"]["value"] == pytest.approx(
        (scores[edema] >= threshold).mean()
    )
    assert decided["figures"]["auprc"]["Edema"]["value"] == pytest.approx(average_precision_score(edema, scores))
    smallest = result["fractions"]["1 %"]
    assert smallest["decisions"]["figures"]["auprc"]["Edema"]["reason"].endswith("one value of this class only")
    assert smallest["patients"] == 1 and smallest["auroc"]["value"] is None
    assert smallest["auroc_per_class"]["Edema"]["reason"] == "the training readings have one value of this class only"


def test_subsets_are_nested_and_by_patient() -> None:
    rows = [reading(n, subject_id=f"patient {n // 3}") for n in range(60)]
    small, large = (set(patient_subset(rows, fraction, 3).tolist()) for fraction in (0.1, 0.5))
    assert small < large and len(small) == 6 and len(large) == 30
    assert {n // 3 for n in small} == {n // 3 for n in small if {n // 3 * 3, n // 3 * 3 + 2} <= small}


def test_a_patient_in_two_splits_is_refused_by_name() -> None:
    shared = [*TEST, reading(5, subject_id="patient 5", findings={"Edema": 1})]
    with pytest.raises(UserError, match="patient patient 5 lies in the training and the test split"):
        probe_labels(TRAIN, VALIDATION, shared)
    with pytest.raises(UserError, match="need a validation split"):
        probe_labels(TRAIN, [], TEST)


def test_chexperts_uncertain_labels_follow_the_competition() -> None:
    def of(rows: list[Reading], value: int) -> list[Reading]:
        findings = [{"name": "Edema", "value": value}, {"name": "Cardiomegaly", "value": value}]
        return [{**row, "source": "chexpert", "findings": findings} for row in rows]

    training, _, _ = probe_labels(of(TRAIN, -1), of(VALIDATION, 1), of(TEST, 0))
    assert len(training.classes) == 5
    by_name = dict(zip(training.classes, training.values[0], strict=True))
    assert by_name["Edema"] == 1 and by_name["Cardiomegaly"] == 0 and by_name["Pleural Effusion"] == 0


def test_fine_tuning_learns_leaves_the_model_alone_and_is_the_same_twice(
    tiny_model: EgmaModel, processor: EgmaProcessor, tmp_path: Path
) -> None:
    labels = probe_labels(TRAIN, VALIDATION, TEST)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    runs = [
        fine_tuning(tiny_model, processor, labels, (TRAIN, VALIDATION, TEST), PatientBootstrap(TEST, 0), 8, 1, kept_in)
        for kept_in in (None, tmp_path / "kept")
    ]
    assert runs[0] == runs[1]
    whole = runs[0]["fractions"]["100 %"]
    assert whole["auroc_per_class"]["Edema"]["value"] > 0.95
    assert whole["decisions"]["figures"]["threshold_sensitivity"]["Edema"]["value"] > 0.9
    assert all(value.equal(before[name]) for name, value in tiny_model.state_dict().items())
    kept = AutoModelForImageClassification.from_pretrained(tmp_path / "kept")
    assert list(kept.config.id2label.values()) == list(labels[0].classes)
    images = Images(EgmaProcessor.from_pretrained(tmp_path / "kept"), VALIDATION)
    found = module.mean_auroc(labels[1], module._scores(kept, images, labels[1], 8))
    assert found == pytest.approx(whole["validation_auroc"])
    assert {"modeling_egma.py", "model.safetensors"} <= {path.name for path in (tmp_path / "kept").iterdir()}
    with pytest.raises(UserError, match="takes EGMA models"):
        fine_tuning(oracle([]), processor, labels, (TRAIN, VALIDATION, TEST), PatientBootstrap(TEST, 0), 8, seed=1)


def test_fine_tuning_trains_in_float32_and_keeps_learned_statistics(
    processor: EgmaProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EgmaModel(config_of("resnet"))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
    model = model.to(torch.bfloat16).eval()
    made: list[EgmaForImageClassification] = []
    make = module._classifier
    monkeypatch.setattr(module, "_classifier", lambda *given: made.append(make(*given)) or made[-1])
    labels = probe_labels(TRAIN, VALIDATION, TEST)
    fine_tuning(model, processor, labels, (TRAIN, VALIDATION, TEST), PatientBootstrap(TEST, 0), 13, seed=1)
    start, end = model.vision_model.state_dict(), made[-1].vision_model.state_dict()
    assert {value.dtype for value in end.values() if value.is_floating_point()} == {torch.float32}
    statistics = [name for name in start if "running_" in name or "tracked" in name]
    assert statistics and all(torch.equal(end[name], start[name].to(end[name].dtype)) for name in statistics)
    kernels = [name for name in start if name.endswith("convolution.weight")]
    assert kernels and all((end[name] != start[name].float()).float().mean() > 0.9 for name in kernels)


def test_features_are_the_mean_patch_token_before_projection(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    found = features(tiny_model, processor, TEST[:3], batch_size=2)
    pixels = processor(images=[TEST[1]["image"].convert("RGB")])["pixel_values"]
    tokens = tiny_model.get_image_features(pixels).last_hidden_state
    np.testing.assert_allclose(found[TEST[1]["image_id"]], tokens.mean(dim=1)[0].detach().numpy(), rtol=1e-4, atol=1e-5)
    assert tokens.shape[-1] != tiny_model.config.projection_dim


def test_whole_path_names_the_probe_in_the_headline(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    results = evaluate_model(
        tiny_model, processor, TEST, ["linear_probe"], training_rows=TRAIN, validation_rows=VALIDATION, bootstrap=10
    )
    assert results["linear_probe_auroc"] == results["details"]["linear_probe"]["fractions"]["100 %"]["auroc"]["value"]
    assert results["chance"]["linear_probe_auroc"] == 0.5 and results["zero_shot_auroc"] is None


def test_uncertainty_rule_of_the_five_competition_labels() -> None:
    def findings(value: int) -> list[Finding]:
        return [Finding(name=name, value=value) for name in (*FIVE, "Fracture")]

    uncertain = competition_labels(findings(-1))
    assert uncertain == {
        "Atelectasis": 1, "Cardiomegaly": 0, "Consolidation": 0, "Edema": 1, "Pleural Effusion": 1
    }  # fmt: skip
    assert set(competition_labels(findings(1)).values()) == {1}
    assert competition_labels([]) == dict.fromkeys(FIVE, 0)
