"""The peak is taken back through the padding, ties share credit, baselines are what they say."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egma.evaluation.protocols.blind_baselines import finding_boxes, mean_boxes
from egma.evaluation.protocols.pointing import (
    Target,
    covered_share,
    other_patient,
    peak_credit,
    pointing_game,
    pointing_targets,
    target_maps,
)
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.geometry import frame_to_image, inside_any, patch_centres
from tests.egma.evaluation.fakes import GRID, PROMPTS, Lookup, box, corpus, encode, oracle, random_model, reading

NAME = "Atelectasis"
PROMPT = {NAME: ["There is atelectasis."]}


def credit_of(bright: list[int], width: int, height: int, corners: tuple[float, ...], shape: str = "box") -> float:
    """Credit of a map that is 1 at the `bright` patches (row by row) and 0 elsewhere."""
    row = reading(0, width=width, height=height, findings={NAME: 1}, boxes=[box(NAME, *corners, shape=shape)])
    patches = torch.tensor([[0.0, 1.0]]).repeat(1, GRID * GRID, 1)
    patches[0, bright] = torch.tensor([1.0, 0.0])
    model = Lookup(patches, {PROMPT[NAME][0]: torch.tensor([1.0, 0.0])})
    images, texts = encode(model, [row])
    targets = pointing_targets([row], PROMPT)
    return float(peak_credit(target_maps(targets, images, texts), targets)[0])


# patch (row 1, column 0) of 4 x 4 has its centre at frame (0.125, 0.375); in an image twice as wide as high
# that is image (0.125, 0.25), in one twice as high as wide it is in the padding
@pytest.mark.parametrize(
    ("width", "height", "patch", "centre"),
    [(80, 40, 4, (0.125, 0.25)), (40, 80, 1, (0.25, 0.125)), (40, 40, 4, (0.125, 0.375))],
)
def test_peak_lands_where_the_padding_is_undone(
    width: int, height: int, patch: int, centre: tuple[float, float]
) -> None:
    x, y = centre
    assert credit_of([patch], width, height, (x - 0.02, y - 0.02, x + 0.02, y + 0.02)) == 1
    assert credit_of([patch], width, height, (x + 0.03, y + 0.03, x + 0.2, y + 0.2)) == 0


def test_peak_in_the_padding_is_a_miss() -> None:
    assert credit_of([0], 80, 40, (-1, -1, 2, 2)) == 0
    assert credit_of([4], 40, 80, (-1, -1, 2, 2)) == 0


def test_tied_peaks_share_the_credit() -> None:
    assert credit_of([0, 1, 14], 40, 40, (0, 0, 0.5, 0.5)) == pytest.approx(2 / 3)


def test_ellipse_is_the_inscribed_one() -> None:
    assert credit_of([0], 40, 40, (0.1, 0.1, 0.9, 0.9)) == 1
    assert credit_of([0], 40, 40, (0.1, 0.1, 0.9, 0.9), shape="ellipse") == 0
    assert covered_share([box(NAME, 0.1, 0.3, 0.9, 0.7, shape="ellipse")]) == pytest.approx(np.pi / 4 * 0.32, abs=5e-3)


def test_overlapping_boxes_count_once() -> None:
    assert covered_share([box(NAME, 0, 0, 0.5, 0.5), box(NAME, 0.25, 0, 0.5, 1)]) == pytest.approx(0.375, abs=5e-3)


def test_points_go_back_by_hand() -> None:
    np.testing.assert_allclose(frame_to_image(np.array([[0.25, 0.5], [0.5, 0.25]]), 100, 50), [[0.25, 0.5], [0.5, 0.0]])


def test_only_present_and_marked_findings_with_prompts_are_targets() -> None:
    boxes = [box(name, 0, 0, 1, 1) for name in (NAME, "Consolidation", "Scoliosis")]
    rows = [reading(0, findings={NAME: 1, "Consolidation": -1, "Pneumothorax": 1, "Scoliosis": 1}, boxes=boxes)]
    assert [target.finding for target in pointing_targets(rows, PROMPTS)] == [NAME]


def test_game_by_loop_and_its_baselines() -> None:
    rows = corpus(12)
    model = random_model(rows)
    images, texts = encode(model, rows)
    training = [reading(0, findings={NAME: 1}, boxes=[box(NAME, 0, 0, 0.3, 0.3)])]
    result = pointing_game(
        pointing_targets(rows, PROMPTS), images, texts, mean_boxes(training), PatientBootstrap(rows, 50)
    )
    hits = []
    for place, row in enumerate(rows):
        name = row["boxes"][0]["label"]
        cosines = [max(float(patch @ text) for text in texts.of(PROMPTS[name])) for patch in images.patches[place]]
        y, x = divmod(int(np.argmax(cosines)), GRID)
        hits.append(inside_any(np.array([[(x + 0.5) / GRID, (y + 0.5) / GRID]]), row["boxes"])[0])
    assert result["pointing_game"]["value"] == pytest.approx(np.mean(hits))
    assert result["chance"]["value"] == pytest.approx(0.25)
    # the image's centre is a corner of all three quadrants, and the one training box lies in the first of them
    assert result["centre_gaussian"]["value"] == pytest.approx(1 / 4)
    assert result["finding_prior"]["value"] == pytest.approx(1 / 3)
    assert result["without_training_boxes"] == {"Consolidation": 4, "Pneumothorax": 4}
    best = max(result[name]["value"] for name in ("finding_prior", "other_image", "centre_gaussian"))
    share = result["image_dependent"]["pointing_game"]
    assert share["value"] == pytest.approx(np.mean(hits) - best) and share["n"] == 12
    assert sum(finding["pointing_game"]["n"] for finding in result["per_finding"].values()) == 12


def test_no_training_boxes_leave_the_centre() -> None:
    rows = corpus(6)
    images, texts = encode(oracle(rows), rows)
    result = pointing_game(
        pointing_targets(rows, PROMPTS), images, texts, mean_boxes([reading(0)]), PatientBootstrap(rows, 0)
    )
    assert result["box_source"] == "centred Gaussian" and result["finding_prior"] == result["centre_gaussian"]


def test_the_map_of_another_patient_is_read_on_its_own_image() -> None:
    """Its padding lies elsewhere: the peak is taken to fractions of the image it is of."""
    wide = reading(0, width=80, height=40, findings={NAME: 1}, boxes=[box(NAME, 0.1, 0.2, 0.15, 0.3)])
    high = reading(1, width=40, height=80, findings={NAME: 1}, boxes=[box(NAME, 0.1, 0.2, 0.15, 0.3)])
    patches = torch.tensor([[0.0, 1.0]]).repeat(2, GRID * GRID, 1)
    patches[0, 4] = patches[1, 1] = torch.tensor([1.0, 0.0])  # at image (0.125, 0.25) and (0.25, 0.125)
    model = Lookup(patches, {PROMPT[NAME][0]: torch.tensor([1.0, 0.0])})
    images, texts = encode(model, [wide, high])
    targets = pointing_targets([wide, high], PROMPT)
    result = pointing_game(targets, images, texts, mean_boxes([]), PatientBootstrap([wide, high], 0))
    assert result["pointing_game"]["value"] == 0.5  # wide's own map
    assert result["other_image"]["value"] == 0.5  # and the same map for high


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=12), st.randoms())
def test_partner_is_another_patient_with_the_same_finding(rows: list[tuple[int, int]], order: random.Random) -> None:
    targets = [
        Target(reading(k, subject_id=f"patient {who}"), f"finding {what}", (), []) for k, (who, what) in enumerate(rows)
    ]
    partner = other_patient(targets).tolist()
    for place, (who, what) in enumerate(rows):
        others = [k for k, (other, same) in enumerate(rows) if other != who and same == what]
        assert partner[place] in others if others else partner[place] == -1
    shuffled = order.sample(range(len(targets)), len(targets))
    again = other_patient([targets[place] for place in shuffled]).tolist()
    found = {shuffled[k]: shuffled[other] if other >= 0 else -1 for k, other in enumerate(again)}
    assert [found[place] for place in range(len(targets))] == partner


def test_patch_centres_run_row_by_row() -> None:
    assert patch_centres(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_boxes_of_anatomy_mark_no_finding() -> None:
    boxes = [box("Chest", 0, 0, 1, 1), box(NAME, 0, 0, 0.5, 0.5)]
    assert finding_boxes(reading(0, findings={NAME: 1}, boxes=boxes)) == boxes[1:]
    assert finding_boxes(reading(0, boxes=boxes)) == boxes
