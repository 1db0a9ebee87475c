"""Phrases and findings against boxes: oracle, constant and random models, wide images, what is left out."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from dataset_scripts.schema import Reading, UserError
from egma_evaluation import grounding as module
from egma_evaluation.bootstrap import PatientBootstrap
from egma_evaluation.grounding import centre_map, grounding, grounding_targets, other_image
from egma_evaluation.protocol import evaluate_model
from tests.egma_evaluation.fakes import (
    GRID,
    PROMPTS,
    Lookup,
    box,
    constant_model,
    corpus,
    encode,
    oracle,
    processor,
    random_model,
    reading,
)

METRICS = ("cnr", "signed_cnr", "miou_cosine", "miou_min_max", "pointing_game")


def evaluate(model: Lookup, rows: Any, **settings: Any) -> dict[str, Any]:
    settings = {"prompts": PROMPTS, "bootstrap": 50} | settings
    return evaluate_model(model, processor, rows, ["grounding"], **settings)["details"]["grounding"]


def phrases(count: int, **fields: Any) -> list[Reading]:
    """As MS-CXR has them: an image and a phrase, with the box of image k in quadrant k modulo 4."""
    rows = []
    for k in range(count):
        left, top = 0.5 * (k % 2), 0.5 * (k % 4 // 2)
        boxes = [box("Pneumonia", left, top, left + 0.5, top + 0.5)]
        rows.append(reading(k, sentences=[f"Phrase {k}."], boxes=boxes, **fields))
    return rows


def bright(rows: list[Reading], cells: Any, low: float = -1.0, high: float = 1.0) -> Lookup:
    """Cosine `high` of every row's own sentence with its patches in `cells(row number)`, `low` elsewhere."""
    cosines = torch.full((len(rows), GRID * GRID), low)
    for k in range(len(rows)):
        cosines[k, cells(k)] = high
    patches = torch.stack([cosines, (1 - cosines**2).clamp(min=0).sqrt()], dim=-1)
    return Lookup(patches, {row["sentences"][0]["text"]: torch.tensor([1.0, 0.0]) for row in rows})


def quadrant(k: int) -> list[int]:
    half = GRID // 2
    return [(k % 4 // 2 * half + row) * GRID + k % 2 * half + column for row in range(half) for column in range(half)]


def test_oracle_on_phrases_and_on_findings_is_right_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate(oracle(corpus()), corpus())
    assert found["model"]["pointing_game"]["value"] == 1
    assert found["targets"] == 24 and set(found["per_label"]) == set(PROMPTS)
    monkeypatch.setattr(module, "GROUNDING_CELLS", GRID)  # the model's own resolution: nothing is blurred
    model = bright(phrases(8), quadrant, low=-0.5)
    model.patches += 1e-3 * torch.randn(model.patches.shape)  # without spread the contrast would be infinite
    result = evaluate(model, phrases(8))
    for metric in ("miou_cosine", "miou_min_max", "pointing_game"):
        assert result["model"][metric]["value"] == 1 and result["model"][metric]["interval"][1] == 1
    assert 0.5 < result["model"]["pointing_game"]["interval"][0] < 0.7  # 8 of 8
    assert result["model"]["signed_cnr"]["value"] > 100


def test_oracle_at_full_resolution_is_far_above_every_baseline() -> None:
    result = evaluate(bright(phrases(6), quadrant), phrases(6), training_rows=phrases(8))
    assert result["model"]["pointing_game"]["value"] == 1
    assert result["model"]["miou_min_max"]["value"] > 0.6
    for baseline in ("centre_map", "whole_image", "other_image"):
        assert result[baseline]["miou_min_max"]["value"] < 0.35


def test_negative_cosines_lose_only_what_has_a_fixed_threshold() -> None:
    high, low = (
        evaluate(bright(phrases(8), quadrant, *cosines), phrases(8))["model"] for cosines in ((0.0, 0.8), (-0.9, -0.1))
    )
    for metric in ("cnr", "signed_cnr", "miou_min_max", "pointing_game"):
        assert low[metric]["value"] == pytest.approx(high[metric]["value"], abs=1e-4)
    assert high["miou_cosine"]["value"] > 0.5 and low["miou_cosine"]["value"] == 0


@pytest.mark.parametrize(("width", "height"), [(80, 40), (40, 80)])
def test_padding_is_undone(width: int, height: int) -> None:
    """The top left quarter of an image with padding is another place on the frame than on a square one."""
    row = reading(0, width=width, height=height, sentences=["Phrase 0."], boxes=[box("a", 0, 0, 0.5, 0.5)])
    on_image = [GRID, GRID + 1] if width > height else [1, GRID + 1]
    in_padding = [0, 1] if width > height else [0, GRID]
    right = evaluate(bright([row], lambda k: on_image), [row], bootstrap=0)["model"]
    wrong = evaluate(bright([row], lambda k: in_padding), [row], bootstrap=0)["model"]
    assert right["pointing_game"]["value"] == 1 and right["miou_min_max"]["value"] > 0.5
    assert wrong["pointing_game"]["value"] == 0
    assert wrong["miou_min_max"]["value"] < right["miou_min_max"]["value"]
    assert wrong["signed_cnr"]["value"] < right["signed_cnr"]["value"]


def test_constant_model_earns_the_shares_and_no_luck() -> None:
    rows = corpus()
    result = evaluate(constant_model(rows), rows)
    assert result["model"]["signed_cnr"]["value"] == result["model"]["cnr"]["value"] == 0
    assert result["model"]["miou_min_max"]["value"] == 0
    assert result["model"]["pointing_game"]["value"] == result["whole_image"]["pointing_game"]["value"] == 0.25
    assert result["model"]["miou_cosine"]["value"] == 0.25  # a cosine of 1 marks the whole image


def test_random_model_is_at_chance() -> None:
    rows = corpus(200)
    result = evaluate(random_model(rows), rows, bootstrap=300)
    figures, other = result["model"], result["other_image"]
    for metric, chance in (("signed_cnr", 0), ("pointing_game", 0.25)):
        low, high = figures[metric]["interval"]
        assert low <= chance <= high and low < figures[metric]["value"] < high
    for metric in METRICS:
        (low, high), (other_low, other_high) = figures[metric]["interval"], other[metric]["interval"]
        assert low < other_high and other_low < high
    assert figures["cnr"]["value"] > 0.1  # its absolute value is not 0 by chance


def test_order_of_rows_and_batches_changes_nothing() -> None:
    rows = corpus()
    first = evaluate(random_model(rows), rows, training_rows=rows)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert evaluate(random_model(rows), shuffled, training_rows=shuffled[::-1], batch_size=7) == first


def test_a_spoken_or_longer_report_is_asked_for_its_findings() -> None:
    boxes, findings = [box("Atelectasis", 0, 0, 0.5, 0.5)], {"Atelectasis": 1}
    timed = [{"text": "Report.", "start_seconds": 0.0, "end_seconds": 1.0}]
    gaze = {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]}
    rows = [
        reading(0, boxes=boxes, findings=findings) | {"sentences": timed},
        reading(1, boxes=boxes, findings=findings, fixations=gaze),
        reading(2, boxes=boxes, findings=findings, sentences=["One.", "Two."]),
        reading(3, boxes=boxes, findings=findings, sentences=[" "]),
        reading(4, boxes=boxes, findings=findings, sentences=["Left base."]),
        reading(5, boxes=[], findings=findings, sentences=["Left base."]),
        reading(6, boxes=boxes, findings=findings | {"Pneumothorax": 0}, sentences=["Left base."]),
    ]
    targets = grounding_targets(rows, PROMPTS)
    texts = {target.reading["reading_id"][-1]: target.texts for target in targets}
    assert texts == dict.fromkeys("01236", tuple(PROMPTS["Atelectasis"])) | {"4": ("Left base.",)}
    assert {target.finding for target in targets} == {"Atelectasis"}


def test_boxes_that_mark_nothing_or_everything_are_counted() -> None:
    rows = phrases(6)
    rows[0] |= {"boxes": [box("a", 1.2, 0, 1.5, 1)]}
    rows[1] |= {"boxes": [box("a", 0.5, 0.5, 0.5001, 0.5001)]}
    rows[2] |= {"boxes": [box("a", -1, -1, 2, 2)]}
    result = evaluate(bright(rows, quadrant), rows)
    assert result["left_out"] == {"outside_image_or_smaller_than_a_cell": 2, "whole_image": 1}
    assert result["targets"] == 3 == result["model"]["cnr"]["n"]
    with pytest.raises(UserError, match=r"part of its image \(2 outside_image_or_smaller_than_a_cell, 1 whole_image\)"):
        evaluate(bright(rows[:3], quadrant), rows[:3])
    with pytest.raises(UserError, match="grounding: no phrase or finding"):
        evaluate(random_model([reading(0)]), [reading(0)])


def test_centre_map_is_the_mean_of_the_training_boxes() -> None:
    rows = [reading(0, boxes=[box("a", 0, 0, 0.5, 1)]), reading(1, boxes=[box("b", 0, 0, 1, 0.5)]), reading(2)]
    mean, source = centre_map(rows)
    assert source == "mean of the boxes of 2 training readings"
    assert [mean[10, 10], mean[10, -10], mean[-10, 10], mean[-10, -10]] == pytest.approx([1, 0.5, 0.5, 0])
    assert centre_map([reading(0)])[1] == "centred Gaussian"


def test_one_training_box_equal_to_the_test_box_has_a_finite_contrast() -> None:
    rows = phrases(2)
    result = evaluate(bright(rows, quadrant), rows, training_rows=rows[:1])
    assert np.isfinite(result["centre_map"]["cnr"]["value"])


def test_partner_is_of_another_image() -> None:
    rows = [reading(k % 3, sentences=[f"Phrase {k}."], boxes=[box("a", 0, 0, 0.5, 0.5)]) for k in range(7)]
    targets = grounding_targets(rows, PROMPTS)
    partner = other_image(targets)
    assert partner is not None
    for place, other in enumerate(partner):
        assert targets[place].reading["image_id"] != targets[other].reading["image_id"]
    assert other_image(targets[:1]) is None


def test_one_image_has_no_other() -> None:
    rows = phrases(1)
    model = bright(rows, quadrant)
    images, texts = encode(model, rows)
    result = grounding(grounding_targets(rows, PROMPTS), images, texts, [], PatientBootstrap(rows, 10))
    assert "other_image" not in result and result["model"]["cnr"]["interval"] is None
    assert set(result["model"]) == set(METRICS)
