"""Sentences against their own gaze: oracle, constant and random models, windows, wide images, readers."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from dataset_scripts.schema import FEATURES, Reading, UserError
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols import gaze_agreement as module
from egma.evaluation.protocols.gaze_agreement import (
    centre_bias,
    counted,
    drawn,
    during,
    recorded_readings,
    recording_of,
)
from egma.evaluation.reporting.report import markdown_report
from modeling_egma.gaze_egma import gaze_matrix, square_frame, transform_fixations
from tests.egma.evaluation.fakes import GRID, Lookup, constant_model, processor, random_model, reading

METRICS = {"nss", "auc_judd", "shuffled_auc", "cc", "sim", "kl"}
SENTENCES = 2


def spoken(number: int, seed: int | None = None, count: int = 6, **fields: Any) -> Reading:
    """Two sentences of 3 s each, `count` fixations of 0.4 s spread over them."""
    random_state = np.random.default_rng([1, number if seed is None else seed])
    x, y = random_state.uniform(0, 1, (2, count)).tolist()
    start = np.linspace(0.1, 5.4, count).tolist()
    sentences = [
        {"text": f"Sentence {number} {k}.", "start_seconds": 3.0 * k, "end_seconds": 3.0 * k + 3} for k in range(2)
    ]
    fixations = {"x": x, "y": y, "start": start, "duration": [0.4] * count}
    row: Any = reading(number, **fields) | {"sentences": sentences, "fixations": fixations}
    return row


def evaluate(model: Lookup, rows: Any, **settings: Any) -> dict[str, Any]:
    settings = {"prompts": {}, "bootstrap": 50} | settings
    return evaluate_model(model, processor, rows, ["gaze_agreement"], **settings)["details"]["gaze_agreement"]


def looking(rows: list[Reading], maps: dict[str, np.ndarray]) -> Lookup:
    """A model whose cosine of a sentence with the patches of its own image is half its map (G, G)."""
    images = len({row["image_id"] for row in rows})
    texts = {text: torch.eye(SENTENCES + 1)[place % SENTENCES] for place, text in enumerate(sorted(maps))}
    patches = torch.zeros(images, GRID * GRID, SENTENCES + 1)
    for text, heat in maps.items():
        patches[int(text.split()[1]), :, texts[text].argmax()] = torch.from_numpy(heat.ravel()).float() / 2
    patches[..., -1] = (1 - (patches**2).sum(dim=-1)).sqrt()
    return Lookup(patches, texts)


def gaze_oracle(rows: list[Reading], shift: float = 0.0) -> Lookup:
    """Looks where the reader looked, by the gaze matrix that training would use; `shift` moves all its cosines."""
    maps = {}
    for row in rows:
        frame = square_frame(row["width"], row["height"])
        assert row["fixations"] is not None
        fixations = transform_fixations(row["fixations"], frame)
        spans = [(s["start_seconds"], s["end_seconds"]) for s in row["sentences"]]
        heat = gaze_matrix(fixations, spans, GRID).double().numpy()  # type: ignore[arg-type]
        maps |= {s["text"]: part + shift for s, part in zip(row["sentences"], heat, strict=True)}
    return looking(rows, maps)


def test_oracle_earns_the_maximum_through_the_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GAZE_CELLS", GRID)  # the model's own resolution: its map is the gaze map
    rows = [spoken(k) for k in range(8)]
    figures = evaluate(gaze_oracle(rows), rows)["model"]
    assert figures["cc"]["value"] == pytest.approx(1, abs=1e-5)
    assert figures["sim"]["value"] > 0.95 and figures["kl"]["value"] < 0.2  # but for the shift of its minimum to 0
    # one fixation a sentence lies in the brightest cell of its map
    single = [spoken(k, count=2) for k in range(8)]
    figures = evaluate(gaze_oracle(single), single)["model"]
    assert figures["auc_judd"]["value"] == 1 and figures["auc_judd"]["interval"] == (1, 1)
    assert set(figures) == METRICS and figures["nss"]["n"] == 16


def test_oracle_beats_every_baseline_at_full_resolution() -> None:
    rows = [spoken(k) for k in range(30)]
    result = evaluate(gaze_oracle(rows), rows, training_rows=[spoken(k, seed=100 + k) for k in range(30)])
    for baseline in ("mean_gaze", "text_gaze", "location_prior", "uniform"):
        for metric in METRICS - {"kl"}:
            assert result["model"][metric]["value"] > result[baseline][metric]["value"] + 0.05
        assert result["model"]["kl"]["value"] < result[baseline]["kl"]["value"]
    assert result["gaze_source"] == "mean of 30 training recordings"


def test_negative_cosines_change_nothing() -> None:
    rows = [spoken(k) for k in range(6)]
    high, low = (evaluate(gaze_oracle(rows, shift), rows)["model"] for shift in (0.0, -1.2))
    for metric in METRICS:
        assert low[metric]["value"] == pytest.approx(high[metric]["value"], abs=1e-4)


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90)])
def test_padding_is_undone(width: int, height: int) -> None:
    """The same fractions of a wide image are other places on the frame; a model that ignores it does worse."""
    rows = [spoken(k, width=width, height=height) for k in range(40)]
    right = evaluate(gaze_oracle(rows), rows)["model"]
    as_square: list[Any] = [row | {"width": 30, "height": 30} for row in rows]
    wrong = evaluate(gaze_oracle(as_square), rows)["model"]
    assert right["cc"]["value"] > wrong["cc"]["value"] + 0.1
    assert right["auc_judd"]["value"] > wrong["auc_judd"]["value"] + 0.05


def test_constant_model_earns_what_the_uniform_map_does() -> None:
    rows = [spoken(k) for k in range(6)]
    result = evaluate(constant_model(rows), rows)
    assert result["model"] == result["uniform"]
    values = {metric: result["model"][metric]["value"] for metric in METRICS}
    assert (values["nss"], values["cc"], values["auc_judd"], values["shuffled_auc"]) == (0, 0, 0.5, 0.5)


def test_random_model_is_at_chance() -> None:
    rows = [spoken(k) for k in range(120)]
    figures = evaluate(random_model(rows), rows, bootstrap=300)["model"]
    for metric, chance in (("nss", 0), ("auc_judd", 0.5), ("shuffled_auc", 0.5), ("cc", 0)):
        low, high = figures[metric]["interval"]
        assert low <= chance <= high and low < figures[metric]["value"] < high


def test_order_of_rows_changes_nothing_nor_does_a_dataset() -> None:
    rows = [spoken(k, subject_id=f"patient {k // 2}") for k in range(8)]
    first = evaluate(random_model(rows), rows, training_rows=rows)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert evaluate(random_model(rows), shuffled, training_rows=rows, batch_size=3) == first
    table = Dataset.from_list([dict(row) for row in rows], features=FEATURES)
    assert evaluate(random_model(rows), table, training_rows=table) == first


def test_what_is_left_out_is_counted() -> None:
    rows = [spoken(0), spoken(1), spoken(2), spoken(3)]
    rows[0]["sentences"] += [
        {"text": "Untimed.", "start_seconds": None, "end_seconds": None},
        {"text": " ", "start_seconds": 0.0, "end_seconds": 1.0},
        {"text": "Later.", "start_seconds": 60.0, "end_seconds": 61.0},
    ]
    rows[1] |= {"fixations": None}
    rows[2]["fixations"] |= {"x": [1.5] * 6}  # type: ignore[operator]
    result = evaluate(random_model(rows), rows)
    assert result["left_out"] == {
        "readings": {"no_recording": 1, "no_fixation_on_the_image": 1},
        "sentences": {"untimed": 1, "no_text": 1, "no_fixation": 1},
    }
    assert result["sentences"] == 4 == result["model"]["nss"]["n"] and result["readings"] == 2
    with pytest.raises(UserError, match="no sentence has a fixation while it is said"):
        evaluate(random_model(rows), rows[1:3])


def test_one_image_has_no_shuffled_auc() -> None:
    rows = [spoken(0)]
    result = evaluate(random_model(rows), rows)
    assert result["model"]["shuffled_auc"] == {"value": None, "interval": None, "n": 0} | {
        "reason": "needs fixations on a second image"
    }
    assert result["model"]["nss"]["interval"] is None and result["readers"] == {
        "reason": "no image was read by several people"
    }


def test_a_bad_recording_is_named() -> None:
    rows = [spoken(0)]
    rows[0]["fixations"] |= {"duration": [-1.0] * 6}  # type: ignore[operator]
    with pytest.raises(UserError, match="reading 'reading 000': fixation 0 has duration"):
        evaluate(random_model(rows), rows)


def test_windows_follow_the_lead_and_cut_fixations() -> None:
    row = spoken(0)
    recording = recording_of(row, 0.05)
    assert recording is not None
    part = during(recording, np.array([0.3, 1.3]))
    assert part["start"].tolist() == pytest.approx([0.3, 1.16]) and part["duration"].tolist() == pytest.approx(
        [0.2, 0.14]
    )
    late = [{"text": "Late.", "start_seconds": 7.0, "end_seconds": 8.0}]
    assert recorded_readings([row | {"sentences": late}], 0.05, 0.0)[0][0].texts == ()
    assert recorded_readings([row | {"sentences": late}], 0.05, 2.0)[0][0].texts == ("Late.",)


@pytest.mark.parametrize(("width", "height"), [(40, 40), (80, 40), (30, 90)])
def test_heat_map_is_that_of_the_gaze_matrix_on_the_image(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn on the frame by `gaze_matrix`, at a grid on which the image is a whole number of cells."""
    row = spoken(3, width=width, height=height)
    side, unit = max(width, height), 10
    frame = transform_fixations(row["fixations"], square_frame(width, height))  # type: ignore[arg-type]
    heat = gaze_matrix(frame, [(0.0, 3.0)], side // unit, sigma=0.05)[0].double().numpy()
    top, left = (side - height) // 2 // unit, (side - width) // 2 // unit
    expected = heat[top : top + height // unit, left : left + width // unit]
    monkeypatch.setattr(module, "GAZE_CELLS", side // unit)
    recording = recording_of(row, 0.05)
    assert recording is not None
    cells = drawn([during(recording, np.array([0.0, 3.0]))])[0]
    rows, columns = side // height, side // width
    pooled = cells.reshape(height // unit, rows, width // unit, columns).sum(axis=(1, 3))
    np.testing.assert_allclose(pooled, expected / expected.sum(), atol=1e-6)
    assert cells.sum() == pytest.approx(1)


def test_many_recordings_at_once_are_the_gaze_matrix_of_each() -> None:
    """Of other lengths, some with a shown part and widths of their own; counts by a loop over the fixations."""
    rows = [spoken(k, count=k + 1, width=30 + k) for k in range(5)]
    edges = {"x_min": [0.0] * 4, "x_max": [0.7] * 4, "y_min": [0.2] * 4, "y_max": [1.0] * 4}
    rows[3]["fixations"] |= {"x": [0.1, 0.3, 0.5, 0.7], "y": [0.2, 0.4, 0.6, 1.0], **edges}  # type: ignore[operator]
    rows[3]["fixations"] |= {"sigma_x": [0.02] * 4, "sigma_y": [0.1] * 4}  # type: ignore[operator]
    recordings = [found for row in rows if (found := recording_of(row, 0.05)) is not None]
    heat, counts = drawn(recordings), counted(recordings)
    for place, recording in enumerate(recordings):
        alone = gaze_matrix(recording, [None], module.GAZE_CELLS)[0].double().numpy()
        np.testing.assert_allclose(heat[place], alone / alone.sum(), rtol=2e-7, atol=0)
        expected = np.zeros_like(alone)
        for x, y in zip(recording["x"], recording["y"], strict=True):
            expected[min(int(y * len(alone)), len(alone) - 1), min(int(x * len(alone)), len(alone) - 1)] += 1
        np.testing.assert_array_equal(counts[place], expected)


def test_fixations_are_counted_in_their_cells() -> None:
    columns = {"x": np.array([0.0, 0.99, 1.0]), "y": np.array([0.0, 0.5, 0.5])}
    counts = counted([columns])[0]
    half = module.GAZE_CELLS // 2
    assert counts.sum() == 3 and counts[0, 0] == 1 and counts[half, -1] == 2


def test_fixations_outside_of_the_shown_part_are_not_on_the_image() -> None:
    shown = {"x_min": [0.6] * 6, "x_max": [0.7] * 6, "y_min": [-0.1] * 6, "y_max": [1.2] * 6}
    row = spoken(0)
    row["fixations"] |= {"x": [0.1, 0.2, 0.3, 0.65, 0.8, 0.9]} | shown  # type: ignore[operator]
    recording = recording_of(row, 0.05)
    assert recording is not None and recording["x"].tolist() == [0.65]


def test_centre_bias_is_the_mean_of_the_training_recordings() -> None:
    rows = [spoken(0), spoken(1), reading(2)]
    mean, source = centre_bias(rows, 0.05)
    maps = [drawn([recording_of(row, 0.05)])[0] for row in rows[:2]]  # type: ignore[list-item]
    np.testing.assert_allclose(mean, (maps[0] + maps[1]) / 2)
    assert source == "mean of 2 training recordings" and centre_bias([], 0.05)[1] == "centred Gaussian"


def test_other_readers_of_an_image_are_the_ceiling() -> None:
    """Two readers who look alike agree more than any map; the same reader twice is no other reader."""
    rows = []
    for k in range(6):
        rows += [spoken(k, reading_id=f"{k} {name}", reader_id=name) for name in "ab"]
    result = evaluate(random_model(rows), rows)["readers"]
    assert result["recordings"] == 12
    assert result["other_readers"]["cc"]["value"] == pytest.approx(1)
    assert result["other_readers"]["kl"]["value"] == pytest.approx(0, abs=1e-3)
    assert result["model"]["cc"]["value"] < 0.5 and set(result["model"]) == METRICS
    same = [row | {"reader_id": "a"} for row in rows]
    assert "reason" in evaluate(random_model(rows), same)["readers"]
    unnamed = [row | {"reader_id": None} for row in rows]
    assert evaluate(random_model(rows), unnamed)["readers"] == result


def test_lead_and_width_come_from_the_processor() -> None:
    class Recorder:
        gaze_kwargs = {"sigma": 0.1, "lead": 0.5}  # noqa: RUF012

        def __call__(self, **inputs: Any) -> Any:
            return processor(**inputs)

    rows = [spoken(0), spoken(1)]
    model, settings = random_model(rows), {"prompts": {}, "bootstrap": 0}
    details = evaluate_model(model, Recorder(), rows, ["gaze_agreement"], **settings)["details"]  # type: ignore[arg-type]
    result, default = details["gaze_agreement"], evaluate(model, rows, **settings)
    assert (result["sigma"], result["lead_seconds"]) == (0.1, 0.5)
    assert (default["sigma"], default["lead_seconds"]) == (0.05, 0.0)
    assert result["model"]["cc"]["value"] != default["model"]["cc"]["value"]


def test_report_shows_every_metric_beside_the_baselines() -> None:
    rows = [spoken(k, reading_id=f"{k} {name}", reader_id=name) for k in range(4) for name in "ab"]
    results = evaluate_model(constant_model(rows), processor, rows, ["gaze_agreement"], prompts={}, bootstrap=20)
    text = markdown_report(results)
    assert "| metric | model | mean gaze | text gaze | location prior | whole recording | uniform | n |" in text
    assert "| auc judd | 0.500 [0.500, 0.500] (few) |" in text and "| other readers | n |" in text
