"""What never saw the image: made of training alone, beaten by an oracle, worth nothing where places are dealt."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import egma.evaluation.corpus
import egma.evaluation.tasks
from dataset_scripts.schema import Reading
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.metrics.ranking import held_share
from egma.evaluation.metrics.saliency import auc_judd, shuffled_auc
from egma.evaluation.protocols import blind_baselines as module
from egma.evaluation.protocols.blind_baselines import (
    BOX_CELLS,
    MeanMaps,
    image_dependent,
    mean_boxes,
    spoken_findings,
)
from egma.evaluation.protocols.class_retrieval import class_retrieval
from egma.evaluation.protocols.retrieval import places_of_truth, retrieval
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.geometry import inside_any, patch_centres
from tests.egma.evaluation.fakes import (
    CLASSES,
    PROMPTS,
    box,
    corpus,
    encode,
    oracle,
    processor,
    random_model,
    reading,
)
from tests.egma.evaluation.protocols.test_gaze_agreement import gaze_oracle, spoken

SHARES = ("pointing_game", "grounding_cnr", "gaze_nss")


def evaluate(model: Any, rows: Any, tasks: Any = None, **settings: Any) -> dict[str, Any]:
    return evaluate_model(model, processor, rows, tasks, **({"prompts": PROMPTS, "bootstrap": 200} | settings))


def dealt(rows: list[Reading], seed: int = 0) -> list[Reading]:
    """The rows with each other's boxes, under their own finding's name: a place says nothing about the finding."""
    places = random.Random(seed).sample([row["boxes"] for row in rows], len(rows))
    kept: list[Any] = [
        row | {"boxes": [one | {"label": row["boxes"][0]["label"]} for one in boxes]}
        for row, boxes in zip(rows, places, strict=True)
    ]
    return kept


def test_mean_boxes_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMOOTHING", 0)
    rows = [
        reading(0, findings={"a": 1, "b": 1}, boxes=[
            box("a", 0, 0, 0.5, 1), box("a", 0.2, 0, 0.7, 1), box("b", 0, 0, 1, 0.5),
        ]),
        reading(1, findings={"a": 1}, boxes=[
            box("a", 0.1, 0.1, 0.9, 0.9, shape="ellipse"), box("anatomy", 0, 0, 1, 1),
        ]),
        reading(2, findings={"a": 1}),
    ]  # fmt: skip
    found, centres = mean_boxes(rows), patch_centres(BOX_CELLS)

    def mean(*marked: list[Any]) -> Any:
        return np.mean([inside_any(centres, boxes) for boxes in marked], axis=0).reshape(BOX_CELLS, BOX_CELLS)

    first, second = rows[0]["boxes"], rows[1]["boxes"]
    np.testing.assert_allclose(found.by_name["a"], mean(first[:2], second[:1]))
    np.testing.assert_allclose(found.by_name["b"], mean(first[2:]))
    np.testing.assert_allclose(found.mean, mean(first, second[:1]))
    assert found.source == "mean of the boxes of 2 training readings" and set(found.by_name) == {"a", "b"}
    assert found.of("c", BOX_CELLS) is not None and found.fallbacks(["a", "c", "c"]) == {"c": 2}
    assert mean_boxes(rows[2:]).source == "centred Gaussian"


def test_one_training_box_has_no_step() -> None:
    edge = mean_boxes([reading(0, boxes=[box("a", 0, 0, 0.5, 1)])]).by_name["a"][10]
    assert len(set(edge.tolist())) > 4 and edge[0] == 1 and edge[-1] == 0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_entries_that_share_a_map_score_what_each_scores_alone(names: list[str]) -> None:
    state = np.random.default_rng(len(names))
    truth, maps = (
        state.uniform(size=(len(names), 4, 4)),
        MeanMaps(np.zeros((4, 4)), "", {"a": state.uniform(size=(4, 4))}),
    )
    found = maps.values(names, 4, lambda own, places: {"dot": (truth[places] * own).sum(axis=(1, 2))})["dot"]
    alone = [(part * maps.of(name, 4)).sum() for name, part in zip(names, truth, strict=True)]
    np.testing.assert_allclose(found, alone)


def test_other_sizes_take_the_nearest_cell() -> None:
    maps = MeanMaps(np.arange(16.0).reshape(4, 4), "")
    assert maps.of(None, 2).tolist() == [[5, 7], [13, 15]]
    assert maps.of(None, 8)[:2, :3].tolist() == [[0, 0, 1], [0, 0, 1]]


@given(st.integers(0, 1000))
def test_one_broadcast_map_has_the_area_of_its_copies(seed: int) -> None:
    state = np.random.default_rng(seed)
    one, counts, others = (state.integers(0, 4, size=(n, 5, 6)).astype(float) for n in (1, 7, 7))
    counts[:, 0, 0], others[:, 1, 1], counts[:, -1, -1] = 1, 1, 0
    same, copies = np.broadcast_to(one, counts.shape), np.repeat(one, 7, axis=0)
    np.testing.assert_allclose(auc_judd(same, counts), auc_judd(copies, counts))
    np.testing.assert_allclose(shuffled_auc(same, counts, others), shuffled_auc(copies, counts, others))


def test_a_text_speaks_of_what_comes_with_it() -> None:
    rows = [reading(k, sentences=["Hazy  BASE.", "Same words."], findings={"a": 1, "b": 0}) for k in range(2)]
    rows += [reading(k, sentences=["Same words."], findings={"b": int(k == 5), "c": 1}) for k in range(2, 8)]
    assert spoken_findings(rows, {"a", "b", "c"}) == {"hazy base.": "a"}
    assert spoken_findings(rows, {"b"}) == {} == spoken_findings([], {"a"})


def test_the_share_is_over_the_baseline_that_leaves_least_on_the_same_entries() -> None:
    rows = corpus(8)
    model = {"hit": np.array([1.0, 1, 1, 1, 0, 0, 0, 0])}
    blind = {
        "half": {"hit": np.full(8, 0.4)},
        "partial": {"hit": np.array([np.nan, np.nan, 0, 0, 0, 1, 1, 1])},  # higher mean, over other entries
        "rare": {"hit": np.array([1.0, 1, *[np.nan] * 6])},
    }
    found = image_dependent(model, blind, ["hit"], rows, PatientBootstrap(rows, 100))["hit"]
    assert found["against"] == "partial" and found["n"] == 6
    assert found["value"] == pytest.approx(2 / 6 - 3 / 6)
    assert found["interval"][0] < found["value"] < found["interval"][1]
    del blind["partial"]
    assert image_dependent(model, blind, ["hit"], rows, PatientBootstrap(rows, 0))["hit"]["against"] == "half"
    assert image_dependent(model, {"rare": blind["rare"]}, ["hit"], rows, PatientBootstrap(rows, 0)) == {}


@pytest.mark.parametrize("deal", [list, dealt])
def test_places_that_say_the_finding_make_the_prior_right_and_dealt_places_leave_it_at_chance(
    deal: Callable[[list[Reading]], list[Reading]],
) -> None:
    """In the corpus each finding has a place of its own: there the prior is as good as looking."""
    rows, training = deal(corpus(150)), deal([row | {"subject_id": None} for row in corpus(90)])
    result = evaluate(random_model(rows), rows, ["pointing_game"], training_rows=training)
    prior = result["details"]["pointing_game"]["finding_prior"]
    if deal is list:
        assert prior["value"] == 1 and result["image_dependent"]["pointing_game"]["value"] < -0.5
        perfect = evaluate(oracle(rows), rows, ["pointing_game"], training_rows=training)
        assert perfect["image_dependent"]["pointing_game"]["value"] == 0
    else:
        low, high = prior["interval"]
        assert low < 1 / 3 < high and high < 0.5  # three places for every finding


def test_an_oracle_looks_where_places_are_dealt_and_a_dice_does_not() -> None:
    rows = corpus(60)
    moved = dealt(rows)
    quadrants = [(row["boxes"][0]["x_min"], row["boxes"][0]["y_min"]) for row in moved]
    model = oracle(rows)
    for number, (x, y) in enumerate(quadrants):
        grid = model.patches[number].reshape(4, 4, -1)
        grid[..., :3] = 0
        grid[int(4 * y) : int(4 * y) + 2, int(4 * x) : int(4 * x) + 2, number % 3] = 1
    result = evaluate(model, moved, ["pointing_game", "grounding"], training_rows=dealt(corpus(60), 5))
    assert result["pointing_game"] == 1
    for key in ("pointing_game", "grounding_cnr"):
        share = result["image_dependent"][key]
        assert share["interval"][0] > 0.2 and share["p_value"] < 0.05, key
    dice = evaluate(random_model(rows), moved, ["pointing_game"], training_rows=dealt(corpus(60), 5))
    assert dice["image_dependent"]["pointing_game"]["interval"][0] < 0


def test_gaze_is_beaten_by_an_oracle_and_nothing_by_a_text_said_anywhere() -> None:
    rows = [spoken(k) for k in range(30)]
    others: list[Any] = [spoken(k, seed=200 + k) for k in range(30)]  # the same texts, said while looking elsewhere
    result = evaluate(gaze_oracle(rows), rows, ["gaze_agreement"], training_rows=others)
    details, share = result["details"]["gaze_agreement"], result["image_dependent"]["gaze_nss"]
    assert details["sentences_without_training_gaze"] == 0
    low, high = details["text_gaze"]["nss"]["interval"]
    assert low < 0.1 and high > -0.1 and share["interval"][0] > 0.5 and share["n"] == details["sentences"]
    same = evaluate(gaze_oracle(rows), rows, ["gaze_agreement"], training_rows=rows)
    text = same["details"]["gaze_agreement"]["text_gaze"]
    assert text["cc"]["value"] == pytest.approx(1, abs=1e-6)  # its own gaze
    assert same["image_dependent"]["gaze_nss"]["against"] == "text_gaze"
    assert same["image_dependent"]["gaze_nss"]["value"] < 0
    nobody = evaluate(gaze_oracle(rows), rows, ["gaze_agreement"])["details"]["gaze_agreement"]
    assert (
        nobody["sentences_without_training_gaze"] == nobody["sentences"] and nobody["gaze_source"] == "centred Gaussian"
    )


def test_they_are_made_once_whatever_number_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [row | {"findings": found["findings"], "boxes": found["boxes"]} for row, found in zip(
        [spoken(k) for k in range(9)], corpus(9), strict=True
    )]  # fmt: skip
    calls: list[str] = []
    tasks_module, corpus_module = egma.evaluation.tasks, egma.evaluation.corpus
    places = {"mean_boxes": corpus_module, "mean_gaze": tasks_module}
    places |= {"gaze_corpus": tasks_module, "grounding_corpus": tasks_module}
    for name, place in places.items():
        plain = getattr(place, name)

        def counting(*args: Any, name: str = name, plain: Any = plain) -> Any:
            calls.append(name)
            return plain(*args)

        monkeypatch.setattr(place, name, counting)
    models = {str(seed): (random_model(rows, seed), processor) for seed in (1, 2)}
    tasks = ["pointing_game", "grounding", "gaze_agreement"]
    result = evaluate(random_model(rows), rows, tasks, training_rows=rows, others=models)
    assert sorted(calls) == ["gaze_corpus", "grounding_corpus", "mean_boxes", "mean_gaze"]
    for seed in (1, 2):
        alone = evaluate(random_model(rows, seed), rows, training_rows=rows)["details"]
        beside = result["baselines"][str(seed)]["details"]
        assert {task: beside[task] for task in tasks} == {task: alone[task] for task in tasks}


@given(st.permutations(range(12)))
def test_any_ranking_that_is_the_same_for_all_images_recalls_k_of_n(ranking: list[int]) -> None:
    places = places_of_truth(np.broadcast_to(np.array(ranking, dtype=float), (12, 12)))
    recalls = [float(held_share(*places, k).mean()) for k in (1, 5, 10)]
    assert recalls == pytest.approx([1 / 12, 5 / 12, 10 / 12])
    rows = corpus(12)
    images, texts = encode(oracle(rows), rows)
    assert retrieval(rows, images, texts, PatientBootstrap(rows, 0))["chance"]["recall_at_5"] == 5 / 12


def test_the_text_prior_puts_the_classes_by_their_number_in_training() -> None:
    rows = corpus(9)
    training = [reading(k, findings={name: int(name == CLASSES[max(0, k - 5)]) for name in CLASSES}) for k in range(8)]
    images, texts = encode(oracle(rows), rows)
    prior = class_retrieval(rows, images, texts, PROMPTS, PatientBootstrap(rows, 0), training)["text_prior"]
    # the two sentences of the commonest class come first for everyone, then those of the others
    assert prior["precision_at_1"]["value"] == pytest.approx(1 / 3)
    assert prior["precision_at_5"]["value"] == pytest.approx((2 + 2 + 1) / 3 / 5)
    only = [row for row in rows if row["findings"][0]["value"]]
    images, texts = encode(oracle(rows), rows)
    prior = class_retrieval(only, images, texts, PROMPTS, PatientBootstrap(only, 0), training)["text_prior"]
    assert prior["precision_at_1"]["value"] == 1
