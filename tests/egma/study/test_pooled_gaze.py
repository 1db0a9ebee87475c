"""Whose looks stand in for whose: other readings of the same sentence, known gaze for unknown, weights of own looks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_scripts.schema import UserError
from egma.study import pooled_gaze
from egma.study.pooled_gaze import PooledGaze


def reading(name: str, text: str, x: float, gaze: bool = True) -> dict[str, Any]:
    fixations = {"x": [x, x], "y": [0.5, 0.5], "start": [0.0, 1.0], "duration": [0.5, 0.5], "sigma_x": None}
    sentences = [{"text": text, "start_seconds": 0.0, "end_seconds": 2.0}]
    return {"reading_id": name, "sentences": sentences, "fixations": fixations if gaze else None}


ROWS = [
    reading("a", "effusion", 0.1),
    reading("b", "effusion", 0.2),
    reading("c", "heart", 0.8),
    reading("d", "new", 0.5),
]


class Rows(list[dict[str, Any]]):
    def remove_columns(self, _: str) -> "Rows":
        return self


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pooled_gaze, "load_readings", lambda data, split: Rows(ROWS))
    return lambda kept=1.0: PooledGaze(Path("corpus"), kept)


def test_equals_are_the_other_readings_of_the_text_and_all_of_them_where_nobody_else_says_it(pooled: Any) -> None:
    random = np.random.default_rng(0)
    drawn = pooled().of_equals(ROWS[0], random)["fixations"]
    assert set(drawn["x"]) == {0.2} and sum(drawn["duration"]) == pytest.approx(2.0)
    assert set(pooled().of_equals(ROWS[3], random)["fixations"]["x"]) == {0.1, 0.2, 0.8}


def test_unknown_gaze_is_lent_or_withheld_and_lends_nothing(pooled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PooledGaze, "keeps", lambda self, row: row["reading_id"] != "a")
    some, random = pooled(), np.random.default_rng(0)
    assert some.withheld(ROWS[0], random)["fixations"] is None and some.withheld(ROWS[1], random) == ROWS[1]
    assert set(some.lent(ROWS[0], random)["fixations"]["x"]) == {0.2} and some.lent(ROWS[1], random) == ROWS[1]
    # b's only equal is a, whose gaze is not known
    assert 0.1 not in some.of_equals(ROWS[1], random)["fixations"]["x"]


def test_a_larger_share_of_known_gaze_contains_the_smaller(pooled: Any) -> None:
    names = [reading(str(number), "text", 0.5) for number in range(400)]
    whole, known = pooled(), []
    for whole.kept in (0.1, 0.5, 1.0):
        known.append({row["reading_id"] for row in names if whole.keeps(row)})
    assert known[0] < known[1] < known[2] and 20 < len(known[0]) < 60 and len(known[2]) == 400
    assert not pooled().keeps(reading("0", "text", 0.5, gaze=False))


def test_no_known_gaze_is_a_sentence(pooled: Any) -> None:
    with pytest.raises(UserError, match="no training reading has known gaze"):
        pooled(0.0)


def test_denoised_looks_count_where_the_equals_look_more_than_usual(pooled: Any) -> None:
    row = reading("a", "effusion", 0.1)
    row["fixations"]["x"] = [0.2, 0.8]
    weighed = pooled().denoised(row, np.random.default_rng(0))["fixations"]
    assert weighed["duration"][0] == pytest.approx(2.0) and weighed["duration"][1] == pytest.approx(0.0)
    # without an equal, own looks stay as they are
    assert pooled().denoised(ROWS[3], np.random.default_rng(0))["fixations"]["x"] == [0.5, 0.5]


def test_looks_in_boxes_are_where_what_the_sentence_names_is(pooled: Any) -> None:
    edges = ("x_min", "y_min", "x_max", "y_max")
    labelled = {"Pleural abnormality": (0.1, 0.6, 0.2, 0.7), "Left lung": (0.5, 0.1, 0.9, 0.9)}
    boxes = [{"label": label, **dict(zip(edges, box, strict=True))} for label, box in labelled.items()]
    found = pooled().in_boxes(reading("a", "Left PLEURAL effusion.", 0.9) | {"boxes": boxes}, np.random.default_rng(0))
    x, y = (np.asarray(found["fixations"][axis]) for axis in ("x", "y"))
    assert ((x > 0.1) & (x < 0.2)).all() and ((y > 0.6) & (y < 0.7)).all() and x.max() - x.min() > 0.05
    other = pooled().in_boxes(reading("a", "left heart border.", 0.9) | {"boxes": boxes}, np.random.default_rng(0))
    assert set(other["fixations"]["x"]) == {0.9}
