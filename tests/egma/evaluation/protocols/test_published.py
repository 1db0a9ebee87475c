"""The generated corpus' classes: each thing that is drawn has one name, whatever the layout's tables call it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_scripts.phantom.findings import KINDS
from dataset_scripts.phantom.labels import _CHEXPERT_KINDS, _PHASE_1_NAMES, ALL_PHASES_LABELS, PHASE_1_LABELS
from dataset_scripts.schema import UserError, load_readings
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.published import PHANTOM, few_positives, protocol_of
from egma.evaluation.reporting.report import latex_report, markdown_report
from egma.inference.embeddings import records
from egma.inference.prompts import load_prompts
from tests.egma.evaluation.fakes import box, processor, random_model, reading

CLASSES = PHANTOM.distinct.by_name
SOURCES = ("phantom/reflacx", "phantom/egd")


def merged(findings: dict[str, int], **fields: Any) -> dict[str, int]:
    [row] = PHANTOM.apply([reading(0, findings=findings, source=SOURCES[1], **fields)])
    return {finding["name"]: finding["value"] for finding in row["findings"]}


def test_every_name_of_the_tables_means_what_is_drawn() -> None:
    for name, kinds in _CHEXPERT_KINDS.items():
        drawn = {KINDS[kind].label for kind in kinds}
        assert drawn == {CLASSES[name.casefold()]} if name.casefold() in CLASSES else len(drawn) > 1, name
    for kind, name in _PHASE_1_NAMES.items():
        assert name == "Other" or CLASSES[name.casefold()] == KINDS[kind].label, name
    for name in ALL_PHASES_LABELS:
        unused = name in ("Airway wall thickening", "Other", "Quality issue")
        assert (name.casefold() in CLASSES) != unused, name
    assert {kind.label for kind in KINDS.values()} == set(CLASSES.values()) - {"No Finding"}
    assert set(PHASE_1_LABELS) <= set(ALL_PHASES_LABELS)


def test_no_two_classes_share_a_prompt() -> None:
    file = PHANTOM.prompt_file()
    assert file is not None and set(file.classes) == set(CLASSES.values())
    prompts = [prompt for of_class in file.classes.values() for prompt in of_class]
    assert len(prompts) == len(set(prompts))
    every = load_prompts()
    assert every["Edema"] == every["Pulmonary edema"]  # which competed


def test_names_of_one_class_are_merged() -> None:
    found = merged(
        {"Edema": 0, "Pulmonary edema or hazy opacity": 1, "Fracture": -1, "Acute fracture": 0, "Lung opacity": 1}
    )
    assert (found["Pulmonary edema"], found["Acute fracture"], found["Lung opacity"]) == (1, -1, 1)
    assert "Edema" not in found and "Fracture" not in found
    assert merged({"Normal": 1, "No finding": 1})["No Finding"] == 1
    [row] = PHANTOM.apply(
        [reading(0, findings={"Fracture": 1}, boxes=[box("Fracture", 0, 0, 1, 1), box("Chest", 0, 0, 1, 1)])]
    )
    assert [one["label"] for one in row["boxes"]] == ["Acute fracture", "Chest"]


def test_what_is_not_listed_is_unknown_and_not_absent() -> None:
    assert merged({"Pneumothorax": 0})["Hiatal hernia"] == -1 == merged({"Pneumothorax": 0})["No Finding"]
    every = dict.fromkeys(sorted(set(CLASSES.values()) - {"No Finding"}), 0)
    assert merged(every)["No Finding"] == 1 and merged(every | {"Atelectasis": 1})["No Finding"] == 0
    assert merged(every | {"Atelectasis": -1})["No Finding"] == -1


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (SOURCES, "phantom.yaml"),
        (SOURCES[:1], "phantom.yaml"),
        (("reflacx", "egd"), None),  # of real readers nobody knows that two names are one thing
        (("phantom/chexpert",), None),  # a raw layout's own labels
        (("phantom/reflacx", "phantom/nih_cxr14"), None),
    ],
)
def test_the_sources_choose_the_protocol(sources: tuple[str, ...], names: str | None) -> None:
    rows = [reading(number, source=source) for number, source in enumerate(sources)]
    assert protocol_of(rows).names == names


def test_positives_are_images_and_not_readings() -> None:
    rows = [reading(k // 2, findings={"Atelectasis": 1, "Pneumothorax": -1}) for k in range(6)]
    assert few_positives(rows, ["Pneumothorax", "Atelectasis"], 4) == {"Atelectasis": 3, "Pneumothorax": 0}
    assert few_positives(rows, ["Atelectasis"], 3) == {}


def test_classes_with_few_positives_are_left_out_and_named() -> None:
    names = sorted(set(CLASSES.values()) - {"No Finding"})
    shown = ["Atelectasis"] * 24 + ["Pneumothorax"] * 20 + ["Pulmonary edema"] * 19
    rows = [
        reading(
            number, source=SOURCES[number % 2], findings={other: int(other == name) for other in names},
            boxes=[box(name, 0, 0, 0.5, 0.5)],
        )
        for number, name in enumerate(shown)
    ]  # fmt: skip
    prompts = {name: load_prompts()[name] for name in {*names, "No Finding"}}
    model = random_model(rows)
    every = [prompt for of_class in prompts.values() for prompt in of_class]
    model.texts |= dict(zip(every, torch.randn(len(every), 16), strict=True))
    result = evaluate_model(model, processor, rows, bootstrap=0)
    assert result["details"]["zero_shot"]["classes"] == ["Atelectasis", "Pneumothorax"]
    assert result["details"]["class_retrieval"]["images"] == 44
    assert set(result["details"]["pointing_game"]["per_finding"]) == {"Atelectasis", "Pneumothorax", "Pulmonary edema"}
    assert result["classes_left_out"]["positive_images"]["Pulmonary edema"] == 19
    for text in (markdown_report(result), latex_report(result)):
        assert "fewer than 20 positive images" in text and "Pulmonary edema 19" in text
    asked = evaluate_model(
        model, processor, rows, ["zero_shot"], classes=["pulmonary edema", "Atelectasis"], bootstrap=0
    )
    assert asked["details"]["zero_shot"]["classes"] == ["Atelectasis", "Pulmonary edema"]
    with pytest.raises(UserError, match=r"no class has as many positive images .* Atelectasis 15"):
        evaluate_model(model, processor, rows[:15], ["zero_shot"], bootstrap=0)


def test_a_converted_phantom_has_one_name_for_everything(phantom_data: Path) -> None:
    readings = records(load_readings(phantom_data, "train"))
    protocol = protocol_of(readings)
    assert protocol == PHANTOM
    for row in protocol.apply(readings):
        names = [finding["name"] for finding in row["findings"]]
        assert len(names) == len(set(names)) and set(CLASSES.values()) <= set(names)
        assert not {"Edema", "Normal", "No finding", "Cardiomegaly", "Fracture"} & set(names)
