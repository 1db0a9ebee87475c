"""Operating points against scikit-learn, calibration against loops, and that the test split decides nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_curve

from dataset_scripts.schema import Reading
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.decisions import FITTED, METRICS, decisions, operating_points, platt
from egma.evaluation.protocols.zero_shot import Labels, finding_labels
from egma.evaluation.reporting.result_plots import reliability_figure
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from tests.egma.evaluation.fakes import PROMPTS, corpus, oracle, processor, random_model, reading

RANDOM = np.random.default_rng(0)


def split(count: int, tag: str, shift: float = 1.0, seed: int = 0) -> tuple[Labels, np.ndarray]:
    """Two classes in readings of one patient each; the scores of positives are `shift` higher."""
    random = np.random.default_rng([seed, count])
    values = (random.random((count, 2)) < 0.3).astype(float)
    rows = [reading(0, image_id=f"{tag} {k}", subject_id=f"{tag} {k}") for k in range(count)]
    return Labels(rows, ["Edema", "Fracture"], values), random.normal(size=(count, 2)) + shift * values


def decide(test: Any, held: Any, draws: int = 100) -> dict[str, Any]:
    return decisions(*test, held, PatientBootstrap(test[0].readings, draws))


def sensitivity_by_loop(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray, specificity: float) -> float:
    false, true, _ = roc_curve(positive, scores, sample_weight=weights, drop_intermediate=False)
    best = max(height for share, height in zip(false, true, strict=True) if share <= 1 - specificity + 1e-9)
    for left, right, low, high in zip(false, false[1:], true, true[1:], strict=False):
        if left <= 1 - specificity + 1e-9 < right:
            best = max(best, low + (high - low) * (1 - specificity - left) / (right - left))
    return float(best)


@given(st.integers(0, 10_000))
def test_operating_points_are_scikit_learns_in_every_draw(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, positive = random.integers(0, 12, 40).astype(float), random.random(40) < 0.4
    weights = random.integers(0, 4, (3, 40)).astype(float)
    found = operating_points(scores, positive)(weights)
    for row, of_draw in zip(found, weights, strict=True):
        if of_draw[positive].sum() == 0 or of_draw[~positive].sum() == 0:
            assert np.isnan(row).all()
            continue
        expected = [average_precision_score(positive, scores, sample_weight=of_draw)]
        expected += [sensitivity_by_loop(positive, scores, of_draw, share) for share in (0.9, 0.95)]
        np.testing.assert_allclose(row, expected, atol=1e-9)


def test_a_constant_is_at_chance_and_an_oracle_at_one() -> None:
    labels, _ = split(60, "t")
    prevalence = labels.values.mean(axis=0)
    constant = decide((labels, np.full((60, 2), 0.25)), "none")["figures"]
    assert [constant["auprc"][name]["value"] for name in labels.classes] == pytest.approx(prevalence)
    assert constant["sensitivity_at_90_specificity"]["mean"]["value"] == pytest.approx(0.1)
    assert constant["sensitivity_at_95_specificity"]["Edema"]["value"] == pytest.approx(0.05)
    perfect = decide((labels, labels.values), "none")["figures"]
    for metric in ("auprc", "sensitivity_at_90_specificity", "sensitivity_at_95_specificity"):
        for figure in perfect[metric].values():
            assert figure["value"] == 1 and 0.5 < figure["interval"][0] < figure["interval"][1] == 1
    assert constant["prevalence"]["Edema"]["value"] == pytest.approx(prevalence[0])


def test_platt_is_a_logistic_regression_on_his_targets() -> None:
    positive = RANDOM.random(80) < 0.3
    scores = 0.25 + 0.01 * (RANDOM.normal(size=80) + positive)
    target = np.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    x = (np.tile(scores, 2)[:, None] - 0.25) / 0.01
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    fit.fit(x, np.repeat([1, 0], 80), np.append(target, 1 - target))
    slope, intercept = platt(scores, positive)
    np.testing.assert_allclose(expit(slope * scores + intercept), fit.predict_proba(x[:80])[:, 1], atol=1e-3)
    assert np.isfinite(platt(positive * 1.0, positive)).all() and platt(positive * 1.0, positive)[0] > 0
    wrong = platt(-scores, positive)
    assert wrong[0] == 0 and expit(wrong[1]) == pytest.approx(target.mean(), abs=1e-3)
    assert platt(np.full(80, 0.3), positive)[0] == 0


def test_fitted_figures_by_loop_on_the_other_split() -> None:
    test, held = split(200, "t"), split(90, "v", seed=1)
    found = decide(test, held)
    fit, scores, positive = found["fits"]["Edema"], test[1][:, 0], test[0].values[:, 0] == 1
    held_scores, held_positive = held[1][:, 0], held[0].values[:, 0] == 1

    def youden(cut: float) -> float:
        return float((held_scores[held_positive] >= cut).mean() + (held_scores[~held_positive] < cut).mean())

    assert youden(fit["threshold"]) == pytest.approx(max(map(youden, held_scores)))
    figures = {metric: of["Edema"]["value"] for metric, of in found["figures"].items()}
    assert figures["threshold_sensitivity"] == (scores[positive] >= fit["threshold"]).mean()
    assert figures["threshold_specificity"] == pytest.approx((scores[~positive] < fit["threshold"]).mean())
    probabilities = expit(fit["slope"] * scores + fit["intercept"])
    assert figures["brier"] == pytest.approx(brier_score_loss(positive, probabilities))
    constant = np.full(200, held_positive.mean())
    assert figures["constant_brier"] == pytest.approx(brier_score_loss(positive, constant))
    edges = np.quantile(expit(fit["slope"] * held_scores + fit["intercept"]), np.linspace(0.1, 0.9, 9))
    ece, shown = 0.0, 0
    for low, high in zip([-1, *edges], [*edges, 2], strict=True):
        inside = (low < probabilities) & (probabilities <= high)
        ece += abs((probabilities[inside] - positive[inside]).sum()) / 200
        shown += inside.any()
    assert figures["ece"] == pytest.approx(ece) and len(fit["reliability"]) == shown
    redrawn = [
        sum(abs((probabilities[b] - hit[b]).sum()) / 200 for b in np.array_split(np.argsort(probabilities), 10))
        for hit in RANDOM.random((400, 200)) < probabilities
    ]
    assert figures["calibrated_ece"] == pytest.approx(np.mean(redrawn), rel=0.15)
    for predicted, observed in fit["reliability"]:
        assert 0 < predicted < 1 and observed["interval"][0] <= observed["value"] <= observed["interval"][1]


def test_the_test_split_decides_nothing() -> None:
    (labels, scores), held = split(80, "t"), split(90, "v", seed=1)
    first = decide((labels, scores), held)["fits"]
    turned = decide((Labels(labels.readings, labels.classes, 1 - labels.values), -scores), held)["fits"]
    for name in labels.classes:
        assert all(first[name][key] == turned[name][key] for key in ("slope", "intercept", "threshold"))


def test_intervals_and_marks() -> None:
    test, held = split(400, "t"), split(20, "v", seed=1)
    figures = decide(test, held, draws=300)["figures"]
    auprc = figures["auprc"]
    assert auprc["mean"]["value"] == pytest.approx(np.mean([auprc[name]["value"] for name in test[0].classes]))
    low, high = np.transpose([auprc[name]["interval"] for name in ("mean", "Edema", "Fracture")])
    assert all(low < [auprc[name]["value"] for name in ("mean", "Edema", "Fracture")])
    assert high[0] - low[0] < min(high[1:] - low[1:])
    assert auprc["Edema"]["method"] == auprc["mean"]["method"] == "bootstrap, logit"
    assert figures["threshold_sensitivity"]["Edema"]["method"] == "Wilson, design effect"
    # ten positive patients of the test split, but not of the validation split
    assert not auprc["Edema"]["few_patients"] and figures["brier"]["Edema"]["few_patients"]
    assert all("draws" not in figure for of in figures.values() for figure in of.values())
    without = decide(test, held, draws=0)["figures"]
    assert all(figure["interval"] is None for of in without.values() for figure in of.values())


def test_what_cannot_be_known_says_why() -> None:
    labels, scores = split(60, "t")
    held, held_scores = split(90, "v", seed=1)
    held.values[:, 1] = 0
    figures = decide((labels, scores), (held, held_scores))["figures"]
    assert figures["auprc"]["Fracture"]["value"] is not None
    for metric in FITTED:
        figure = figures[metric]["Fracture"]
        assert (
            figure["value"] is None and "no positive reading of this class in the validation split" in figure["reason"]
        )
        assert figures[metric]["mean"]["value"] == figures[metric]["Edema"]["value"]
    none = decide((labels, scores), "no validation split")
    assert none["fits"] == {} and none["figures"]["ece"]["mean"]["reason"] == "no validation split"
    labels.values[:, 0] = 1
    one_sided = decide((labels, scores), (held, held_scores))["figures"]
    assert {one_sided[metric]["Edema"]["reason"] for metric in METRICS} == {"no negative reading of this class"}


def of_patients(rows: list[Reading], tag: str) -> list[Reading]:
    return [row | {"subject_id": f"{tag} {row['subject_id']}", "image_id": f"{row['image_id']} {tag}"} for row in rows]


def test_whole_path_takes_the_validation_split_and_refuses_what_is_evaluated() -> None:
    rows = corpus(40)
    tasks, settings = ["zero_shot", "decisions"], {"prompts": PROMPTS, "bootstrap": 20}
    model = random_model(rows)
    held = of_patients(rows, "v")
    details = evaluate_model(model, processor, rows, tasks, validation_rows=held, **settings)["details"]  # type: ignore[arg-type]
    fits = details["decisions"]["fits"]
    other = evaluate_model(model, processor, rows[:30], tasks, validation_rows=held, **settings)["details"]  # type: ignore[arg-type]
    for name, fit in fits.items():
        assert other["decisions"]["fits"][name]["threshold"] == fit["threshold"]
        assert other["decisions"]["fits"][name]["slope"] == fit["slope"]
    for refused, reason in (
        (rows, "patient 000 lies in the validation split and in what is evaluated"),
        (None, "no val"),
    ):
        found = evaluate_model(oracle(rows), processor, rows, tasks, validation_rows=refused, **settings)  # type: ignore[arg-type]
        assert reason in found["details"]["decisions"]["figures"]["brier"]["mean"]["reason"]
        assert found["details"]["decisions"]["figures"]["auprc"]["mean"]["value"] == 1


def test_reliability_has_a_panel_for_each_and_a_line_a_class() -> None:
    fits = decide(split(60, "t"), split(90, "v", seed=1))["fits"]
    figure = reliability_figure({"Zero-shot": fits, "Linear probe": {"Edema": fits["Edema"]}}, generated=True)
    assert isinstance(figure, Figure) and [axes.get_title() for axes in figure.axes] == ["Zero-shot", "Linear probe"]
    line = figure.axes[0].lines[0]
    assert line.get_label() == "Edema" and list(line.get_xdata()) == [
        place for place, _ in fits["Edema"]["reliability"]
    ]
    assert len(figure.axes[0].lines) == 3 and len(figure.axes[1].lines) == 2


def test_readings_that_do_not_list_a_class_are_left_out() -> None:
    rows = [reading(k, findings={"Edema": k % 2} if k < 20 else {}) for k in range(30)]
    scores = np.arange(30.0)[:, None]
    figures = decisions(finding_labels(rows, ["Edema"]), scores, "none", PatientBootstrap(rows, 10))["figures"]
    assert figures["auprc"]["Edema"]["n"] == figures["prevalence"]["Edema"]["n"] == 20
