"""Published figures stand only beside figures that were made as they were; the reasons are what was really run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dataset_scripts.schema import Reading
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.published import protocol_of
from egma.evaluation.protocols.variants import PAPERS, VARIANTS
from egma.evaluation.reporting.comparable import COLUMNS, seen_by_backbone
from egma.evaluation.reporting.report import HEADLINE_LABELS, headline_rows, latex_report, markdown_report
from egma.tools.processes import ROOT
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.evaluation.fakes import GRID, Lookup, box, processor, reading

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
TABLES = [table for paper in PAPERS.values() for table in paper.get("tables", ())]


def row_of(results: dict[str, Any], label: str) -> dict[str, str]:
    header, rows = headline_rows(results)
    assert tuple(header[-3:]) == COLUMNS and all(len(row) == len(header) for row in rows)
    return dict(zip(header, next(row for row in rows if row[0] == label), strict=True))


def sample(each: int) -> list[Reading]:
    """As a converted `chexpert_5x200` is, with `each` images of a class."""
    return [
        reading(
            number % 250, image_id=f"train/{number}", reading_id=str(number), subject_id=str(number),
            source="chexpert_5x200", findings={other: int(other == FIVE[number % 5]) for other in FIVE},
        )
        for number in range(5 * each)
    ]  # fmt: skip


def evaluate(rows: list[Reading], tasks: list[str], **settings: Any) -> dict[str, Any]:
    file = protocol_of(rows).prompt_file()
    prompts = file.classes if file is not None else settings.get("prompts", {})
    texts = {prompt: torch.randn(8) for of_class in prompts.values() for prompt in of_class}
    texts |= {sentence["text"]: torch.randn(8) for row in rows for sentence in row["sentences"]}
    model = Lookup(torch.randn(256, GRID * GRID, 8), texts)
    return evaluate_model(model, processor, rows, tasks, bootstrap=0, **settings)


def test_forty_five_images_are_no_5x200() -> None:
    results = evaluate(sample(9), ["zero_shot"])
    row = row_of(results, "Zero-shot accuracy")
    assert row["comparable with the published figure"].startswith(
        "no, because images: 45, not 1000; images of a class: 9, not 200"
    )
    assert row["published"] == "" and "61.3" not in markdown_report(results) + latex_report(results)


def test_a_sample_of_the_right_size_is_still_another_sample() -> None:
    results = evaluate(sample(200), ["zero_shot"])
    found = results["published"]["zero_shot_accuracy"]
    assert found["because"] == ["it is not known which images were sampled and how the prompts are worded"]
    assert found["figures"] == {} and results["published"]["zero_shot_auroc"]["because"] == [
        "no such figure on these data is known here"
    ]
    uneven = [*sample(200)[:-5], *sample(200)[:5]]
    for number, row in enumerate(uneven):
        row["image_id"] = f"image {number}"
    uneven[0]["findings"] = uneven[1]["findings"]
    assert (
        "images of a class: 199, 200, 201, not 200"
        in evaluate(uneven, ["zero_shot"])["published"]["zero_shot_f1"]["because"]
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"prompts_per_class": 5}, "prompts in all: 25, not 183"),
        ({"pooling": "mean"}, "pooling: mean, not max"),
        ({"classes": FIVE[:3]}, "prompts in all: 115, not 183"),
        ({"protocol": "gloria"}, "protocol: gloria, not none"),
        ({"split": "validation"}, "split: validation, not test"),
    ],
)
def test_the_reason_is_what_was_run(settings: dict[str, Any], reason: str) -> None:
    found = evaluate(sample(200), ["zero_shot"], **settings)["published"]["zero_shot_accuracy"]
    assert reason in found["because"] and not found["figures"]


def test_own_prompts_are_named() -> None:
    prompts = {name: [f"{name}."] for name in FIVE}
    rows = sample(9)
    texts = {prompt: torch.randn(8) for of_class in prompts.values() for prompt in of_class}
    model = Lookup(torch.randn(256, GRID * GRID, 8), texts)
    results = evaluate_model(model, processor, rows, ["zero_shot"], prompts=prompts, bootstrap=0)
    assert "prompts: given, not chexpert_5x200.yaml" in results["published"]["zero_shot_accuracy"]["because"]


def chexpert(first: int, frontals: int, laterals: int) -> list[Reading]:
    rows = []
    for number in range(first, first + frontals + laterals):
        findings = {name: (number + place) % 2 for place, name in enumerate(FIVE)}
        picture = Image.fromarray(np.full((32, 32), 40 + 100 * (number % 2), dtype=np.uint8))
        view = "AP" if number < first + frontals else "LATERAL"
        names = {"source": "chexpert", "image": picture, "view": view, "image_id": f"{number:04}"}
        rows.append(reading(0, findings=findings, reading_id=f"{number}", subject_id=f"{number}", **names))
    return rows


def test_the_probe_on_chexpert_is_on_the_202_frontal_images(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    def probe(frontals: int, **settings: Any) -> dict[str, Any]:
        splits = {"training_rows": chexpert(0, 40, 4), "validation_rows": chexpert(100, 20, 2)}
        test = chexpert(1000, frontals, 32)
        return evaluate_model(tiny_model, processor, test, ["linear_probe"], bootstrap=0, **splits, **settings)

    results = probe(202)
    assert results["n"]["linear_probe_auroc"] == 202
    assert results["details"]["linear_probe"]["fractions"]["100 %"]["readings"] == 40
    row = row_of(results, "Linear probe AUROC, 100 %")
    assert row["comparable with the published figure"] == "yes"
    assert row["published"] == "EGMA 89.5; MGCA 89.3; MedCLIP 88.0"  # AUROC: no count of hits, no interval
    with_laterals = probe(202, laterals=True)
    assert with_laterals["n"]["linear_probe_auroc"] == 234
    assert with_laterals["published"]["linear_probe_auroc"]["because"] == ["readings: 234, not 202"]
    assert row_of(with_laterals, "Linear probe AUROC, 100 %")["published"] == ""


def ms_cxr(count: int) -> list[Reading]:
    return [
        reading(
            number, source="ms_cxr", sentences=["A phrase."], findings={"Pneumonia": 1},
            boxes=[box("Pneumonia", 0.0, 0.0, 0.5, 0.5)],
        )
        for number in range(count)
    ]  # fmt: skip


def test_a_published_share_has_its_interval() -> None:
    prompts = {"Pneumonia": ["Pneumonia."]}
    row = row_of(evaluate(ms_cxr(167), ["pointing_game"], prompts=prompts), "Pointing game")
    assert row["comparable with the published figure"] == "yes"
    assert row["published"] == "SentZero 92.2 [87.1, 95.4]"  # 154 of 167
    row = row_of(evaluate(ms_cxr(166), ["pointing_game"], prompts=prompts), "Pointing game")
    assert row["comparable with the published figure"] == "no, because targets: 166, not 167"
    assert row["published"] == ""


def test_rows_of_several_corpora_and_generated_ones_are_nobodys() -> None:
    mixed = [*ms_cxr(166), *[{**row, "source": "phantom/ms_cxr"} for row in ms_cxr(167)[166:]]]
    generated = [{**row, "source": "phantom/ms_cxr"} for row in ms_cxr(167)]
    for rows in (mixed, generated):
        found = evaluate(rows, ["pointing_game"], prompts={"Pneumonia": ["Pneumonia."]})["published"]["pointing_game"]
        assert found == {"because": ["no such figure on these data is known here"], "figures": {}, "targets": None}


def test_every_paper_can_be_held_against_its_file() -> None:
    pairs = [(table["source"], key) for table in TABLES for key in table["figures"]]
    assert len(pairs) == len(set(pairs)) and {key for _, key in pairs} <= HEADLINE_LABELS.keys()
    for name, paper in PAPERS.items():
        assert paper["paper"] and paper["score"] and ("tables" in paper) != ("variant" in paper), name
        if "tables" in paper:
            assert paper["prompts"] and paper["normalisation"] and paper["selection"], name
    assert all(0 < value < 100 for table in TABLES for row in table["figures"].values() for value in row.values())
    page = (ROOT / "docs" / "evaluation.md").read_text()
    assert all(page.count(f"| `{name}` |") >= 1 for name in VARIANTS)


def test_the_highest_published_figures_are_there() -> None:
    found = {(table["source"], key): max(row.items(), key=lambda item: item[1])
             for table in TABLES for key, row in table["figures"].items()}  # fmt: skip
    auroc = {source: value for (source, key), value in found.items() if key == "zero_shot_auroc"}
    assert auroc == {
        "open_i": ("SentZero", 88.9), "nih": ("SentZero", 83.9), "padchest": ("SentZero", 86.1),
        "chestx_det10": ("SentZero", 84.3), "chexpert": ("CARZero", 92.3), "vindr_cxr": ("AlphaRAD", 92.4),
        "siim_acr": ("AlphaRAD", 94.8),
    }  # fmt: skip
    pointing = {source: value for (source, key), value in found.items() if key == "pointing_game"}
    assert pointing == {
        "ms_cxr": ("SentZero", 92.2), "chestx_det10": ("SentZero", 73.2), "padchest_gr": ("AlphaRAD", 74.3)
    }  # fmt: skip
    assert found["chexpert_5x200", "zero_shot_accuracy"] == ("EGMA", 61.3)


CARDS = [
    ({"datasets": ["StanfordAIMI/CheXpert-v1"]}, "chexpert_5x200", "yes"),
    ({"datasets": "mimic-cxr"}, "ms_cxr", "yes"),
    ({"datasets": ["MIMIC-CXR"]}, "chexpert", "unknown"),  # nobody says that this is all
    ({"pretraining_datasets": ["MIMIC-CXR", "PadChest"]}, "chexpert", "no"),
    ({"pretraining_datasets": ["MIMIC-CXR"], "datasets": ["alkzar90/NIH-Chest-X-ray-dataset"]}, "rsna", "yes"),
    ({"pretraining_datasets": ["ChestX-ray14"]}, "siim_acr", "yes"),
    ({"pretraining_datasets": []}, "nih", "no"),
    ({"pretraining_datasets": ["MIMIC-CXR"]}, "image_text", "unknown"),  # whose images nobody knows
    ({"license": "mit"}, "nih", "unknown"),
]


@pytest.mark.parametrize(("metadata", "source", "expected"), CARDS)
def test_seen_is_what_the_card_says(metadata: dict[str, Any], source: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n# A model\n")
    assert seen_by_backbone(tmp_path, [source]) == expected


@pytest.mark.parametrize("card", ["", "# A model of CheXpert\n", "---\ndatasets: [\n---\n", "---\n- chexpert\n---\n"])
def test_a_card_that_says_nothing_is_unknown(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    assert seen_by_backbone(tmp_path, ["chexpert"]) == "unknown"
    assert (
        seen_by_backbone("a-lab/its-model", ["chexpert"]) == seen_by_backbone(tmp_path / "none", ["nih"]) == "unknown"
    )


def test_each_model_is_named_in_the_column() -> None:
    rows = sample(9)
    results = evaluate(rows, ["zero_shot"]) | {"seen": "no"}
    assert row_of(results, "Zero-shot AUROC")["seen by the backbone"] == "no"
    other = {key: results[key] for key in (*HEADLINE_LABELS, "intervals", "few_patients", "image_dependent")}
    results["baselines"] = {"other": other | {"differences": {}, "seen": "yes"}}
    assert row_of(results, "Zero-shot AUROC")["seen by the backbone"] == "no; other: yes"
