"""Sentences and their edited twins: what is true of which reading, and what blind and seeing scores earn."""

from typing import Any

import numpy as np
import pytest
import torch

from dataset_scripts.schema import Reading, UserError
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.edited_prompts import edited_prompts, edited_sentences, truths
from egma.evaluation.reporting.report import headline_table
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import ImageBank, TextBank
from tests.egma.evaluation.fakes import PROMPTS, Lookup, box, processor, reading

CLASSES = ("Atelectasis", "Lung nodule or mass")
LEFT, RIGHT = (0.6, 0.1, 0.9, 0.4), (0.1, 0.1, 0.4, 0.4)


def rows() -> list[Reading]:
    """Atelectasis in every third reading and only there a box, on either side by turns; two readings a patient."""
    found = []
    for number in range(36):
        present = number % 3 == 0
        boxes = [box("Atelectasis", *(LEFT if number % 2 else RIGHT))] if present else []
        values = {"Atelectasis": int(present), "Lung nodule or mass": int(number % 4 == 0), "No Finding": 0}
        found.append(reading(number, findings=values, boxes=boxes, subject_id=f"patient {number // 2}"))
    return found


def scored(readings: list[Reading], score: Any) -> dict[str, Any]:
    """The task on scores (images, sentences) of a function of the reading and the sentence."""
    sentences = sorted({text for kind in edited_sentences(CLASSES).values() for both in kind.values() for text in both})
    table = torch.tensor([[float(score(row, text)) for text in sentences] for row in readings])
    images = ImageBank({row["image_id"]: place for place, row in enumerate(readings)}, table, None)
    texts = TextBank({text: place for place, text in enumerate(sentences)}, torch.eye(len(sentences)))
    return edited_prompts(readings, images, texts, CLASSES, PatientBootstrap(readings, 100))


def is_true(row: Reading, text: str) -> bool:
    """Written down again, from the sentence."""
    name = next(name for name in CLASSES if name.lower() in text)
    present = {finding["name"]: finding["value"] for finding in row["findings"]}[name] == 1
    if "on the" in text:
        return present and any((one["x_min"] < 0.5) == ("right" in text) for one in row["boxes"])
    return present != text.startswith("no ")


def test_sentences_say_no_more_than_the_finding() -> None:
    found = edited_sentences(["Pleural_Thickening", "High lung volume / emphysema", "No Finding", "Normal report"])
    assert found["negation"] == {
        "Pleural_Thickening": ("pleural thickening.", "no pleural thickening."),
        "High lung volume / emphysema": ("high lung volume or emphysema.", "no high lung volume or emphysema."),
    }
    assert found["laterality"]["Pleural_Thickening"] == (
        "pleural thickening on the left.",
        "pleural thickening on the right.",
    )


@pytest.mark.parametrize(
    ("boxes", "view", "is_left"),
    [
        ([LEFT], None, True),
        ([RIGHT], "PA", False),
        ([LEFT, (0.5, 0.5, 0.7, 0.7)], "AP", True),
        ([LEFT, RIGHT], None, None),
        ([(0.4, 0.1, 0.6, 0.4)], None, None),
        ([LEFT], "LATERAL", None),
        ([LEFT], "LL", None),
        ([], None, None),
    ],
)
def test_the_images_left_is_the_patients_right(boxes: list[Any], view: str | None, is_left: bool | None) -> None:
    row = reading(0, findings={"A": 1, "B": 0, "C": -1}, boxes=[box("A", *one) for one in boxes], view=view)
    row["boxes"].append(box("B", *LEFT))
    assert truths(row) == {"negation": {"A": True, "B": False}, "laterality": {} if is_left is None else {"A": is_left}}


def test_what_is_right_and_wrong_and_blind() -> None:
    readings = rows()
    seeing, wrong = scored(readings, is_true), scored(readings, lambda *of: not is_true(*of))
    assert seeing["negation"]["findings"] == list(CLASSES) and seeing["laterality"]["findings"] == ["Atelectasis"]
    assert seeing["negation"]["entries"] == 72 and seeing["laterality"]["entries"] == 12
    for kind in ("negation", "laterality"):
        assert seeing[kind]["pooled"]["value"] == 1 and seeing[kind]["pooled"]["interval"][0] > 0.5
        assert wrong[kind]["pooled"]["value"] == 0 and wrong[kind]["pooled"]["interval"][1] < 0.5
        for blind in (len(CLASSES), "likes no", "knows the frequent", "text"):
            found = scored(readings, lambda _, text, blind=blind: blind_score(text, blind))
            assert found[kind]["pooled"]["value"] == pytest.approx(0.5), blind


def blind_score(text: str, kind: Any) -> float:
    scores = {"likes no": text.startswith("no"), "knows the frequent": ("atel" in text) == ("no" in text)}
    return scores.get(kind, sum(map(ord, text)) / 1e4 if kind == "text" else 1.0)


def test_the_figure_is_the_mean_of_both_truths_and_findings_by_loop() -> None:
    readings, random = rows(), np.random.default_rng(0)
    table = {(row["image_id"], text): random.random() for row in readings for text in all_sentences()}
    found = scored(readings, lambda row, text: table[row["image_id"], text])["negation"]["pooled"]
    by_finding = []
    for name in CLASSES:
        first, second = edited_sentences(CLASSES)["negation"][name]
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for row in readings:
            present = is_true(row, first)
            likes_first = table[row["image_id"], first] > table[row["image_id"], second]
            hits[present].append(likes_first == present)
        by_finding.append((np.mean(hits[True]) + np.mean(hits[False])) / 2)
    assert found["value"] == pytest.approx(np.mean(by_finding))
    assert found["interval"][0] < found["value"] < found["interval"][1] and found["patients"] == 18


def all_sentences() -> list[str]:
    return [text for kind in edited_sentences(CLASSES).values() for both in kind.values() for text in both]


def test_the_task_stands_in_the_headline_when_it_is_named() -> None:
    readings, generator = rows(), torch.Generator().manual_seed(0)
    texts = [*all_sentences(), *PROMPTS["Atelectasis"]]
    model = Lookup(
        torch.randn(36, 4, 8, generator=generator), {text: torch.randn(8, generator=generator) for text in texts}
    )
    prompts = {"Atelectasis": PROMPTS["Atelectasis"], "Lung nodule or mass": PROMPTS["Atelectasis"]}
    results = evaluate_model(model, processor, readings, ["edited_prompts"], prompts=prompts, bootstrap=20)
    for key in ("negation", "laterality"):
        assert results[key] == results["details"]["edited_prompts"][key]["pooled"]["value"]
        assert results["chance"][key] == 0.5 and results["intervals"][key] is not None
        assert "late_interaction" in results["details"]["edited_prompts"][key]
    assert "| Negation, accuracy |" in headline_table(results)
    alone = [row | {"boxes": [], "findings": [{"name": "Atelectasis", "value": 1}]} for row in readings]
    with pytest.raises(UserError, match="no class is both present and absent"):
        evaluate_model(model, processor, alone, ["edited_prompts"], prompts=prompts)
