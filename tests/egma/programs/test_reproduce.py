"""The reproduction kit rehearsed: the generated corpus in the raw layouts of all five corpora."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from dataset_scripts.corpora.chexpert import EIGHT, FIVE
from dataset_scripts.phantom import write_phantom
from dataset_scripts.phantom.corpus import LAYOUTS
from egma.programs import reproduce
from modeling_egma import EgmaModel
from tests.dataset_scripts.corpora import test_chexpert as chexpert
from tests.dataset_scripts.corpora import test_siim_acr as siim
from tests.dataset_scripts.evaluation_trees import rsna_tree
from tests.dataset_scripts.raw_trees import write_lines

MIMIC_EYE, _, _, MIMIC_CXR = (tree.folder for tree in LAYOUTS["all"])
EACH, PATIENTS = 200, 60  # of a class; of RSNA and SIIM-ACR


def chexpert_tree(root: Path) -> Path:
    """200 images that show a class alone, of each of the samples' classes, and a labelled test table."""
    classes = sorted({*FIVE, *EIGHT})
    lines = [
        chexpert.line(chexpert.image_path(1000 * place + n), **{name.replace(" ", "_"): "1.0"})
        for place, name in enumerate(classes)
        for n in range(EACH)
    ]
    known = [dict.fromkeys((name.replace(" ", "_") for name in FIVE), str(float(n % 2))) for n in range(12)]
    valid = [chexpert.line(chexpert.image_path(90_000 + n, "valid"), **values) for n, values in enumerate(known)]
    for name, rows in (("train.csv", lines), ("valid.csv", valid)):
        write_lines(root / name, [",".join(chexpert.HEADER), *rows])
        chexpert.write_images(root, [row.split(",")[0] for row in rows])
    return root


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("raw")
    write_phantom(folder / "phantom", readings=120, seed=3, layout="all")
    of_phantom = {"mimic-eye": f"phantom/{MIMIC_EYE}", "mimic-cxr": f"phantom/{MIMIC_CXR}"}
    chexpert_tree(folder / "chexpert")
    boxes = [f"p{n},256.0,128.0,128.0,256.0,1" if n % 2 else f"p{n},,,,,0" for n in range(PATIENTS)]
    classes = [f"p{n},{'Lung Opacity' if n % 2 else 'Normal'}" for n in range(PATIENTS)]
    rsna_tree(folder / "rsna", boxes, classes)
    images = [f"1.2.276.{n}" for n in range(PATIENTS)]
    regions = [siim.run_lengths((300, 300, 500, 600)) if n % 2 else "-1" for n in range(PATIENTS)]
    lines = [siim.HEADER, *(f"{image}, {region}" for image, region in zip(images, regions, strict=True))]
    siim.tree(folder / "siim", lines, images)
    names = of_phantom | {"chexpert": "chexpert", "rsna": "rsna", "siim": "siim"}
    return [word for option, name in names.items() for word in (f"--{option}", str(folder / name))]


@pytest.fixture
def towers(tiny_model: EgmaModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> list[str]:
    tiny_model.vision_model.save_pretrained(tmp_path / "vision")
    tiny_model.text_model.save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    return ["--vision-model", str(tmp_path / "vision"), "--text-model", str(tmp_path / "text")]


def test_the_rehearsal_fills_every_table_and_is_done_once(
    sources: list[str], towers: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*sources, *towers, "--output", str(tmp_path / "run"), "--limit", "100", "--max-steps", "2"]
    assert reproduce.main(arguments) == 0
    results: dict[str, Any] = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sorted(results["evaluations"]) == sorted(reproduce.PROTOCOLS)
    assert results["without_test_readings"] == []
    for name, found in results["evaluations"].items():
        assert set(found["baselines"]) == {"published", "no_gaze"}, name
    figures = {name: found["n"] for name, found in results["evaluations"].items()}
    for name, key in {
        "mimic_eye": "pointing_game",
        "chexpert_5x200": "zero_shot_accuracy",
        "chexpert_8x200": "class_precision_at_1",
        "rsna": "linear_probe_auroc",
        "siim_acr": "linear_probe_auroc",
        "mimic_cxr": "recall_at_1",
    }.items():
        assert figures[name][key], (name, key)
    assert len(set(results["models"].values())) == 3 and None not in results["models"].values()
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Not evaluated" not in report and "comparable with the published figure" in report
    assert (tmp_path / "run" / "model_card.md").is_file()
    capfd.readouterr()
    assert reproduce.main(arguments) == 0
    said = capfd.readouterr().out
    assert said.count("reused") == 7 + 3 + 7 and "..." not in said.split("#")[0]


def test_a_dry_run_says_what_it_takes_and_trains_nothing(
    sources: list[str], towers: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    here = [word.replace(f"{tmp_path}/", "") for word in towers]  # as one types a folder
    assert reproduce.main([*sources[:2], *here, "--output", "run", "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "h for 3689" in said and "s a step" in said and "GB of disk" in said
    assert not (run / "egma").exists() and not list(run.rglob("model.safetensors"))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["--mimic-eye", str(tmp_path / "no"), "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"error: --mimic-eye {tmp_path / 'no'}: no such folder\n"
    assert not (tmp_path / "run").exists()
