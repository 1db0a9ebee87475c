"""Every data set, converted from a tiny tree and scored through the whole path by an oracle, a constant and a dice."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dataset_scripts.corpora.chexpert import EIGHT, FIVE
from dataset_scripts.schema import PRESENT, Reading, load_readings
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.published import NO_FINDING, PHANTOM, protocol_of
from egma.evaluation.protocols.zero_shot import zero_shot_classes
from egma.inference.geometry import frame_to_image, inside_any, patch_centres
from egma.inference.prompts import load_prompts
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.corpora.test_chexpert import image_path, sample_table, write_images
from tests.dataset_scripts.corpora.test_siim_acr import converted as siim_acr
from tests.dataset_scripts.corpora.test_siim_acr import run_lengths
from tests.dataset_scripts.evaluation_trees import (
    MS_CXR_HEADER,
    NIH_BOX_HEADER,
    RSNA_CLASSES,
    RSNA_LABELS,
    ms_cxr_line,
    nih_line,
    nih_tree,
    rsna_tree,
)
from tests.egma.evaluation.fakes import Lookup, box, processor, reading

GRID = 16
CORPORA = ("chexpert_5x200", "chexpert_8x200", "rsna", "siim_acr", "ms_cxr", "nih", "phantom")


def sampled_chexpert(folder: Path, corpus: str) -> list[Reading]:
    classes = FIVE if corpus == "chexpert_5x200" else EIGHT
    sample_table(folder / "raw", classes, each=3)
    paths = [image_path(1000 * place + n) for place in range(len(classes)) for n in range(3)]
    write_images(folder / "raw", [f"x/{path.partition('/')[2]}" for path in paths])
    ids = raw.write_lines(folder / "ids.txt", paths)
    return [*convert(corpus, folder / "raw", folder / "out", ids=ids)[0].values()]


def ms_cxr(folder: Path) -> list[Reading]:
    images = raw.mimic_cxr_tree(folder / "mimic-cxr-jpg")
    lines = [
        ms_cxr_line(raw.REFLACX_IMAGE, "Pneumonia", "patchy opacity", "20,40,60,80"),
        ms_cxr_line(raw.EGD_IMAGE, "Edema", "mild edema", "100,200,80,160"),
        ms_cxr_line(raw.REFLACX_IMAGE, "Pneumothorax", "an apical pneumothorax", "100,0,50,100"),
    ]
    raw.write_lines(folder / "raw" / "MS_CXR_Local_Alignment_v1.1.0.csv", [MS_CXR_HEADER, *lines])
    return [*convert("ms_cxr", folder / "raw", folder / "out", images=images)[0].values()]


def nih(folder: Path) -> list[Reading]:
    lines = [
        nih_line("1_000.png", "Cardiomegaly", "1"),
        nih_line("2_000.png", "No Finding", "2"),
        nih_line("3_000.png", "Hernia", "3"),
        nih_line("4_000.png", "Cardiomegaly", "4"),
    ]
    boxes = [NIH_BOX_HEADER, "1_000.png,Cardiomegaly,256.0,128.0,512.0,256.0,,,"]
    return [*convert("nih", nih_tree(folder / "raw", lines, boxes[1:]), folder / "out")[0].values()]


def siim(folder: Path) -> list[Reading]:
    ids = ("1.2.276.1", "1.2.276.2", "1.2.276.3")
    lines = [
        "ImageId, EncodedPixels",
        f"{ids[0]}, {run_lengths((256, 128, 512, 384))}",
        f"{ids[1]}, -1",
        f"{ids[2]}, -1",
    ]
    return [*siim_acr(folder, lines, ids)[0].values()]


@pytest.fixture
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> list[Reading]:
    """The rows of a data set; the picture of image k is grey k, so that a model can look its labels up."""
    name = request.param
    if name == "phantom":
        found = PHANTOM.apply(list(load_readings(request.getfixturevalue("phantom_data"), "test")))
    elif name.startswith("chexpert"):
        found = sampled_chexpert(tmp_path, name)
    elif name == "rsna":
        labels, classes = (*RSNA_LABELS, "second,64.0,640.0,256.0,256.0,1"), (*RSNA_CLASSES, "second,Lung Opacity")
        found = [*convert("rsna", rsna_tree(tmp_path / "raw", labels, classes), tmp_path / "out")[0].values()]
    else:
        found = {"siim_acr": siim, "ms_cxr": ms_cxr, "nih": nih}[name](tmp_path)
    numbers = {image_id: place for place, image_id in enumerate(sorted({row["image_id"] for row in found}))}
    pictures = {image_id: Image.new("L", (8, 8), number) for image_id, number in numbers.items()}
    return [{**row, "image": pictures[row["image_id"]]} for row in found]


def every_corpus(test: Any) -> Any:
    return pytest.mark.parametrize("rows", CORPORA, indirect=True)(test)


def prompts_of(rows: list[Reading]) -> dict[str, list[str]]:
    """The package's for the corpus, less those that another class of the same corpus shares."""
    file = protocol_of(rows).prompt_file()
    known = load_prompts() if file is None else file.classes
    names = {finding["name"] for row in rows for finding in row["findings"]} | {NO_FINDING}
    chosen: dict[str, list[str]] = {}
    taken: set[str] = set()
    for name in sorted(names & known.keys(), key=lambda name: (name == "Normal", name)):
        if not taken & set(known[name]):
            chosen[name] = known[name]
            taken |= set(known[name])
    return chosen


def oracle(rows: list[Reading], prompts: dict[str, list[str]]) -> Lookup:
    """Patches in the boxes of a class that is present, or all where none is marked, say the class; a little of every
    patch says which image it is, so that nothing ties.
    """
    place = {name: number for number, name in enumerate(sorted(prompts))}
    images = sorted({row["image_id"] for row in rows})
    phrases = sorted({sentence["text"] for row in rows for sentence in row["sentences"]})
    first_image, first_phrase = len(place), len(place) + len(images)
    axes = torch.eye(first_phrase + len(phrases) + 1)
    centres = patch_centres(GRID)
    patches = torch.zeros(len(images), GRID * GRID, len(axes))
    for row in rows:
        number = images.index(row["image_id"])
        patches[number, :, first_image + number] = 0.3 + 0.001 * number
        present = {finding["name"] for finding in row["findings"] if finding["value"] == PRESENT}
        target = protocol_of(rows).target
        if target is not None and target not in present:
            present.add(NO_FINDING)
        for name in present:
            boxes = [box for box in row["boxes"] if box["label"] == name]
            inside = torch.ones(GRID * GRID, dtype=torch.bool)
            if boxes:
                inside = torch.from_numpy(
                    inside_any(frame_to_image(centres, row["width"], row["height"]), boxes)
                ).bool()
            if name in place:
                patches[number, inside] += axes[place[name]]
            for sentence in row["sentences"] if boxes else []:
                patches[number, inside] += axes[first_phrase + phrases.index(sentence["text"])]
    texts = {
        prompt: axes[place[name]] + 0.01 * turn * axes[-1]
        for name, of_class in prompts.items()
        for turn, prompt in enumerate(sorted(of_class))
    }
    texts |= {text: axes[first_phrase + number] for number, text in enumerate(phrases) if text not in texts}
    return Lookup(patches, texts, "late_interaction")


def evaluate(model: Lookup, rows: list[Reading], **settings: Any) -> dict[str, Any]:
    return evaluate_model(model, processor, rows, **({"bootstrap": 20} | settings))


@every_corpus
def test_an_oracle_scores_one_in_every_order_of_rows_prompts_and_classes(rows: list[Reading]) -> None:
    prompts = prompts_of(rows)
    # the phantom's protocol asks for more positives than this one has: its classes are named
    names = zero_shot_classes(rows, prompts) if protocol_of(rows) == PHANTOM else None
    first = evaluate(oracle(rows, prompts), rows, prompts=prompts, classes=names)
    expected = ["pointing_game"] if rows[0]["source"] == "ms_cxr" else ["zero_shot_auroc"]
    expected += ["pointing_game"] if any(row["boxes"] for row in rows) else []
    if rows[0]["source"].startswith("chexpert"):
        expected += ["zero_shot_accuracy", "zero_shot_f1", "class_precision_at_1"]
    for key in expected:
        assert first[key] == pytest.approx(1.0), key
    shuffled = random.Random(1).sample(rows, len(rows))
    backwards = {name: prompts[name][::-1] for name in reversed(prompts)}
    assert evaluate(oracle(rows, prompts), shuffled, prompts=backwards, classes=names, batch_size=3) == first


@pytest.mark.parametrize("rows", ["rsna", "siim_acr"], indirect=True)
def test_the_second_class_is_what_is_left_over(rows: list[Reading]) -> None:
    prompts = prompts_of(rows)
    model = oracle(rows, prompts)
    results = evaluate(model, rows, prompts=prompts, tasks=["zero_shot"])
    target = protocol_of(rows).target
    assert results["details"]["zero_shot"]["classes"] == sorted([NO_FINDING, target])
    assert results["zero_shot_accuracy"] == results["zero_shot_auroc"] == 1
    assert results["n"]["zero_shot_accuracy"] == len(rows)


@pytest.mark.parametrize("rows", ["rsna", "siim_acr", "chexpert_5x200", "chexpert_8x200"], indirect=True)
def test_a_constant_earns_the_constant_predictors_figure(rows: list[Reading]) -> None:
    prompts = prompts_of(rows)
    texts = {prompt: torch.ones(4) for of_class in prompts.values() for prompt in of_class}
    model = Lookup(torch.ones(len(rows), GRID * GRID, 4), texts)
    results = evaluate(model, rows, prompts=prompts, tasks=["zero_shot", "class_retrieval"])
    assert results["zero_shot_auroc"] == 0.5
    assert results["class_precision_at_1"] == pytest.approx(results["chance"]["class_precision_at_1"], rel=1e-11)
    assert results["zero_shot_accuracy"] <= results["constant_predictor"]["zero_shot_accuracy"] + 1e-12
    assert results["zero_shot_f1"] <= results["constant_predictor"]["zero_shot_f1"]


@pytest.mark.parametrize("rows", ["chexpert_8x200"], indirect=True)
def test_a_dice_is_at_chance(rows: list[Reading]) -> None:
    prompts = prompts_of(rows)
    texts = {prompt: torch.randn(32) for of_class in prompts.values() for prompt in of_class}
    many = [{**row, "image_id": f"{row['image_id']} {n}", "image": Image.new("L", (8, 8), n * len(rows) + k)}
            for n in range(8) for k, row in enumerate(rows)]  # fmt: skip
    model = Lookup(torch.randn(len(many), GRID * GRID, 32), texts)
    results = evaluate(model, many, prompts=prompts, tasks=["zero_shot", "class_retrieval"], bootstrap=300)
    for key in ("zero_shot_auroc", "zero_shot_accuracy", "class_precision_at_1"):
        low, high = results["intervals"][key]
        assert low <= results["chance"][key] <= high, key
    assert results["details"]["class_retrieval"]["sentences"] == 40


@pytest.mark.parametrize("rows", ["chexpert_5x200"], indirect=True)
def test_the_protocols_prompts_are_taken_by_the_source_of_the_rows(rows: list[Reading]) -> None:
    texts = {prompt: torch.randn(8) for of_class in prompts_of(rows).values() for prompt in of_class}
    results = evaluate(Lookup(torch.randn(len(rows), GRID * GRID, 8), texts), rows, tasks=["zero_shot"])
    counts = {"Atelectasis": 50, "Cardiomegaly": 15, "Consolidation": 50, "Edema": 18, "Pleural Effusion": 50}
    assert results["prompts_per_class"] == counts and sum(counts.values()) == 183
    assert results["prompts"] == "chexpert_5x200.yaml"
    found = results["published"]["zero_shot_accuracy"]
    assert found["because"][0] == "images: 15, not 1000" and found["figures"] == {}


def test_a_map_is_compared_with_boxes_of_the_image_and_not_of_the_frame() -> None:
    """Twice as wide as high: the top quarter of the square frame is padding, the image's top begins below it."""
    row = reading(0, findings={"Atelectasis": 1}, width=200, height=100, boxes=[box("Atelectasis", 0.0, 0.0, 0.5, 0.5)])
    hits = {}
    for name, frame_row in {
        "where it is on the frame": GRID // 4 + 1,
        "where it would be on a stretched image": 1,
    }.items():
        patches = torch.zeros(1, GRID, GRID, 2)
        patches[..., 1] = 1
        patches[0, frame_row, 2] = torch.tensor([1.0, 0.0])
        model = Lookup(patches.flatten(1, 2), {"It.": torch.tensor([1.0, 0.0])}, "late_interaction")
        prompts = {"Atelectasis": ["It."]}
        hits[name] = evaluate(model, [row], prompts=prompts, tasks=["pointing_game"])["pointing_game"]
    assert hits == {"where it is on the frame": 1, "where it would be on a stretched image": 0}
