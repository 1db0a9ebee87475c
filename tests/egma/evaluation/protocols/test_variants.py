"""The named protocols against plain loops, and what may not be asked of them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from dataset_scripts.schema import Reading, UserError
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.grounding import by_category
from egma.evaluation.protocols.variants import VARIANTS, Variant, filled
from egma.evaluation.protocols.zero_shot import NO_PREDICTION, macro_f1, uniform_guess
from egma.inference.embeddings import encode_texts
from egma.inference.scores import class_scores
from tests.egma.evaluation.fakes import (
    CLASSES,
    GRID,
    PROMPTS,
    Lookup,
    box,
    constant_model,
    corpus,
    encode,
    processor,
    random_model,
    reading,
)

KINDS = ("pooled", "late_interaction")


def test_gloria_takes_each_class_by_its_mean_and_deviation_over_the_images() -> None:
    rows = corpus(30)
    images, texts = encode(random_model(rows), rows)
    plain = class_scores(images, texts, PROMPTS, "max")
    found = VARIANTS["gloria"].class_scores(images, texts, PROMPTS, "max")
    for kind in KINDS:
        for column in range(3):
            values = [float(value) for value in plain[kind][:, column]]
            mean = sum(values) / 30
            deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 30)
            expected = [(value - mean) / deviation for value in values]
            assert found[kind][:, column] == pytest.approx(expected)


def test_gloria_undoes_a_class_that_every_image_likes() -> None:
    """One class is nearer to all images; only the protocol that sees all test images does not fall for it."""
    rows, angle = corpus(30), 0.3
    patches = torch.zeros(30, GRID * GRID, 4)
    for number in range(30):
        patches[number, :, number % 3], patches[number, :, 3] = angle, 1.0
    texts = {prompt: torch.eye(4)[place].clone() for place, name in enumerate(CLASSES) for prompt in PROMPTS[name]}
    for prompt in PROMPTS[CLASSES[0]]:
        texts[prompt][3] = 1.0
    texts |= {row["sentences"][0]["text"]: torch.ones(4) for row in rows}
    model = Lookup(patches, texts)
    plain, named = (
        evaluate_model(model, processor, rows, ["zero_shot"], prompts=PROMPTS, protocol=name, bootstrap=0)
        for name in (None, "gloria")
    )
    assert plain["zero_shot_accuracy"] < 0.5 and named["zero_shot_accuracy"] == 1.0
    assert plain["zero_shot_auroc"] == named["zero_shot_auroc"]  # of one class alone
    assert (plain["protocol"], named["protocol"]) == (None, "gloria")


def test_standardising_what_is_constant_says_nothing() -> None:
    rows = corpus(9)
    images, texts = encode(constant_model(rows), rows)
    for scores in VARIANTS["gloria"].class_scores(images, texts, PROMPTS, "max").values():
        assert (scores == 0).all()


def test_chexzero_is_the_softmax_of_the_name_and_its_negation() -> None:
    rows = corpus(30)
    model = random_model(rows)
    generator = torch.Generator().manual_seed(1)
    pairs = [sentence for name in CLASSES for sentence in (name, f"no {name}")]
    model.texts |= {sentence: torch.randn(16, generator=generator) for sentence in pairs}
    results = evaluate_model(model, processor, rows, ["zero_shot", "pointing_game"], protocol="chexzero", bootstrap=0)
    assert results["prompts_per_class"] == dict.fromkeys(CLASSES, 1)
    images, _ = encode(model, rows)
    texts = encode_texts(model, processor, pairs, 4)
    for name in CLASSES:
        scores, labels = [], []
        for row in rows:
            vector = images.pooled[images.places([row])[0]]
            present, absent = (math.exp(float(vector @ texts.of([text])[0])) for text in (name, f"no {name}"))
            scores.append(present / (present + absent))
            labels.append(next(of["value"] for of in row["findings"] if of["name"] == name))
        figure = results["details"]["zero_shot"]["pooled"]["auroc_per_class"][name]
        assert figure["value"] == pytest.approx(roc_auc_score(labels, scores))
        column = sorted(CLASSES).index(name)
        found = VARIANTS["chexzero"].class_scores(images, texts, filled("{}", CLASSES), "max")
        assert found["pooled"][images.places(rows), column] == pytest.approx(scores, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found = macro_f1(truth, predicted, 5, every=True)(np.ones((1, len(truth))))[0]
    assert found == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))
    assert found <= macro_f1(truth, predicted, 5)(np.ones((1, len(truth))))[0] + 1e-12


def test_no_prediction_is_no_class_of_scikit_learns_average() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, NO_PREDICTION, 1, 2])
    found = macro_f1(truth, predicted, 4, every=True)(np.ones((1, 4)))[0]
    assert found == pytest.approx(f1_score(truth, predicted, labels=[0, 1, 2], average="macro", zero_division=0))
    many = np.repeat([0, 1], 30000)
    guess = np.random.default_rng(0).integers(0, 3, len(many))
    expected = f1_score(many, guess, average="macro")
    assert uniform_guess(many, 3, every=True)["macro_f1"] == pytest.approx(expected, abs=0.01)


def test_the_protocol_of_scikit_learn_reaches_the_headline() -> None:
    """The third class is never shown alone, so never the truth, and is predicted for some."""
    rows = corpus(60)
    for row in rows[2::3]:
        row["findings"] = [{"name": name, "value": int(name != CLASSES[1])} for name in CLASSES]
    model = random_model(rows)
    found = {
        name: evaluate_model(
            model, processor, rows, ["zero_shot"], prompts=PROMPTS, classes=CLASSES, protocol=name, bootstrap=0
        )["zero_shot_f1"]
        for name in (None, "scikit_learn_f1")
    }
    single = [row for place, row in enumerate(rows) if place % 3 < 2]
    images, texts = encode(model, rows)
    predicted = class_scores(images, texts, PROMPTS, "max")["pooled"][images.places(single)].argmax(axis=1)
    truth = np.arange(len(single)) % 2
    assert found["scikit_learn_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found[None] == pytest.approx(f1_score(truth, predicted, average="macro", labels=[0, 1]))
    assert found["scikit_learn_f1"] < found[None]


def naive_blur(grid: np.ndarray, sigma: float) -> np.ndarray:
    """The mean of all cells, those beyond the edge mirrored at it, weighted by a normal density cut at four."""
    side, reach = len(grid), int(4 * sigma + 0.5)
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(-reach, reach + 1)]

    def mirrored(place: int) -> int:
        place %= 2 * side
        return place if place < side else 2 * side - 1 - place

    blurred = np.zeros_like(grid)
    for row in range(side):
        for column in range(side):
            for down, weight in zip(range(-reach, reach + 1), weights, strict=True):
                for right, other in zip(range(-reach, reach + 1), weights, strict=True):
                    blurred[row, column] += weight * other * grid[mirrored(row + down), mirrored(column + right)]
    return blurred / sum(weights) ** 2


def phrases() -> list[Reading]:
    """Nine of one category, three of another."""
    rows = []
    for k in range(12):
        name = "Pneumonia" if k < 9 else "Edema"
        place = (0.0, 0.25, 0.5)[k % 3]
        boxes = [box(name, place, place, place + 0.5, place + 0.4)]
        rows.append(reading(k, sentences=[f"Phrase {k}."], boxes=boxes))
    return rows


def test_ms_cxr_smooths_the_maps_and_averages_the_categories() -> None:
    rows = phrases()
    model = random_model(rows)
    results = evaluate_model(model, processor, rows, ["grounding"], protocol="ms_cxr", bootstrap=40)
    images, texts = encode(model, rows)
    blurred = {}
    for k, row in enumerate(rows):
        assert images.patches is not None
        cosines = images.patches[images.places([row])[0]] @ texts.of([f"Phrase {k}."])[0]
        blurred[k] = naive_blur(cosines.double().numpy().reshape(GRID, GRID), 1.5)
    # the same model with the naive map in its patches, as it is scored without a protocol
    direct = torch.stack(
        [torch.stack([torch.tensor(blurred[k].ravel()), (1 - torch.tensor(blurred[k].ravel()) ** 2).sqrt()], -1)
         for k in range(12)]
    ).float()  # fmt: skip
    plain = Lookup(direct, {row["sentences"][0]["text"]: torch.tensor([1.0, 0.0]) for row in rows})
    expected = evaluate_model(plain, processor, rows, ["grounding"], bootstrap=0)["details"]["grounding"]
    found = results["details"]["grounding"]
    for metric in ("cnr", "miou_cosine", "miou_min_max", "pointing_game"):
        means = [expected["per_label"][name][metric]["value"] for name in ("Pneumonia", "Edema")]
        assert found["model"][metric]["value"] == pytest.approx(sum(means) / 2, abs=2e-4)
        assert found["model"][metric]["interval"] is not None
    assert found["model"]["cnr"]["value"] != pytest.approx(expected["model"]["cnr"]["value"], abs=1e-4)
    assert results["grounding_cnr"] == found["model"]["cnr"]["value"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-5, 5) | st.just(math.nan)), min_size=1, max_size=20))
def test_the_mean_over_categories_by_loop(entries: list[tuple[str, float]]) -> None:
    labels, values = np.array([name for name, _ in entries]), np.array([value for _, value in entries])
    found = by_category(values, labels)
    of_category: dict[str, list[float]] = {}
    for name, value in entries:
        if not math.isnan(value):
            of_category.setdefault(name, []).append(value)
    means = [sum(of) / len(of) for of in of_category.values()]
    if means:
        assert np.nanmean(found) == pytest.approx(sum(means) / len(means), abs=1e-9)
    assert np.isnan(found).tolist() == np.isnan(values).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "convirt"}, "unknown protocol 'convirt'; expected chexzero, gloria, ms_cxr, scikit_learn_f1"),
        ({"protocol": "egma"}, "unknown protocol 'egma'"),  # a paper that scores as the project does
        ({"protocol": "chexzero", "prompts": PROMPTS}, "protocol 'chexzero' makes its own prompts"),
    ],
)
def test_what_is_refused_in_one_sentence(settings: dict[str, Any], message: str) -> None:
    rows = corpus(6)
    with pytest.raises(UserError, match=message):
        evaluate_model(random_model(rows), processor, rows, ["zero_shot"], bootstrap=0, **settings)


def test_without_a_protocol_nothing_is_otherwise() -> None:
    rows = corpus(12)
    images, texts = encode(random_model(rows), rows)
    for kind, scores in Variant().class_scores(images, texts, PROMPTS, "mean").items():
        assert (scores == class_scores(images, texts, PROMPTS, "mean")[kind]).all()
