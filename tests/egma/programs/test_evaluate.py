"""The program end to end on a tiny model and corpus, and its one-sentence refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from dataset_scripts.identity import corpus_identity, model_identity
from dataset_scripts.schema import FEATURES
from egma.evaluation.tasks import Tasks
from egma.programs import evaluate as evaluate_egma
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from tests.dataset_scripts.test_identity import write_corpus
from tests.egma.evaluation.fakes import corpus


@pytest.fixture
def model_folder(tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor) -> Path:
    folder = tmp_path / "model"
    tiny_model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        table = Dataset.from_list([dict(row) for row in corpus(9)], features=FEATURES)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "conversion_report.json").write_text('{"generated": true}')
    return folder


def test_program_writes_every_figure(
    model_folder: Path, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results"
    arguments = [str(model_folder), "--data", str(corpus_folder), "--output", str(output), "--bootstrap", "20"]
    assert evaluate_egma.main(arguments) == 0
    results = json.loads((output / "results.json").read_text())
    for key in ("zero_shot_auroc", "zero_shot_accuracy", "zero_shot_f1", "pointing_game", "recall_at_1"):
        assert 0 <= results[key] <= 1
        assert results["chance"][key] is not None and results["n"][key] > 0
    assert results["generated"] is True and results["bootstrap"]["seed"] == 0
    assert results["blind"]["pointing_game"]["finding_prior"] >= 0
    assert results["model"]["name"] == "model" and results["model"]["identity"] == model_identity(model_folder)
    assert "| Zero-shot AUROC |" in capsys.readouterr().out
    assert results["seen"] == "unknown" and results["protocol"] is None
    assert evaluate_egma.main([*arguments, "--protocol", "gloria"]) == 0
    named = json.loads((output / "results.json").read_text())
    assert named["protocol"] == "gloria" and "protocol 4, gloria." in (output / "results.md").read_text()
    assert named["zero_shot_auroc"] == pytest.approx(results["zero_shot_auroc"])
    assert named["zero_shot_accuracy"] != results["zero_shot_accuracy"]  # no finished task of the other is taken


def test_finished_tasks_survive_and_are_the_models_own(
    model_folder: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results"
    arguments = [str(model_folder), "--data", str(corpus_folder), "--output", str(output), "--bootstrap", "20"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("egma.evaluation.tasks.Tasks.pointing_game", interrupted)
        assert evaluate_egma.main(arguments) == 130
    assert not (output / "results.json").exists()
    assert {path.stem for path in (output / "tasks").iterdir()} == {
        *("zero_shot", "decisions", "prompt_sensitivity", "retrieval", "class_retrieval"),
    }
    with monkeypatch.context() as patch:
        patch.setattr("egma.evaluation.tasks.Tasks.zero_shot", interrupted)
        assert evaluate_egma.main(arguments) == 0
    resumed = (output / "results.json").read_bytes()
    assert evaluate_egma.main([*arguments[:3], "--output", str(tmp_path / "straight"), "--bootstrap", "20"]) == 0
    assert (tmp_path / "straight" / "results.json").read_bytes() == resumed
    # another seed, and other weights, are another evaluation
    assert evaluate_egma.main([*arguments, "--seed", "1"]) == 0
    assert json.loads((output / "results.json").read_text())["bootstrap"]["seed"] == 1
    weights = {name: value + 0.01 for name, value in load_file(model_folder / "model.safetensors").items()}
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    assert evaluate_egma.main([*arguments, "--seed", "1"]) == 0
    changed = json.loads((output / "results.json").read_text())
    assert changed["details"]["zero_shot"] != json.loads(resumed)["details"]["zero_shot"]


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def scale_grey_values(model: Path, corpus: Path) -> None:
    path = model / "processor_config.json"
    settings = json.loads(path.read_text())["image_processor"]
    edit_json(path, image_processor=settings | {"image_mean": [0.1, 0.1, 0.1], "image_std": [0.01, 0.01, 0.01]})


def mirror_boxes(model: Path, corpus: Path) -> None:
    write_corpus(corpus, mirrored=True)


@pytest.mark.parametrize(
    "change",
    [
        scale_grey_values,
        mirror_boxes,
        lambda model, _: edit_json(model / "config.json", text_layers=1),
        lambda model, _: edit_json(model / "tokenizer_config.json", model_max_length=3),
    ],
    ids=["processor", "boxes", "configuration", "tokenizer"],
)
def test_no_figure_of_before_a_change_stands(
    change: Callable[[Path, Path], None], model_folder: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    """Results beside those of another folder, in which nothing was evaluated before."""
    arguments = [str(model_folder), "--data", str(corpus_folder), "--bootstrap", "0", "--output"]
    found = []
    for output in ("again", "again", "anew"):
        assert evaluate_egma.main([*arguments, str(tmp_path / output)]) == 0
        found.append(json.loads((tmp_path / output / "results.json").read_text()))
        if len(found) == 1:
            change(model_folder, corpus_folder)
    assert found[1] == found[2] and found[1]["details"] != found[0]["details"]
    assert found[1]["data"]["identity"] == corpus_identity(corpus_folder)


def test_another_program_or_packaged_prompt_is_another_evaluation(
    model_folder: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(model_folder), "--data", str(corpus_folder), "--bootstrap", "0", "--tasks", "zero_shot"]
    done: list[str] = []
    task = Tasks.zero_shot
    monkeypatch.setattr(Tasks, "zero_shot", lambda self: done.append("zero_shot") or task(self))
    prompts = tmp_path / "prompts.yaml"
    monkeypatch.setattr(evaluate_egma, "EVALUATION_SOURCES", (prompts,))
    for text, times in (("1", 1), ("1", 1), ("2", 2)):
        prompts.write_text(text)
        assert evaluate_egma.main([*arguments, "--output", str(tmp_path / "out")]) == 0
        assert len(done) == times


def test_another_model_is_compared_and_everything_is_drawn(
    model_folder: Path, corpus_folder: Path, tmp_path: Path, tiny_config: EgmaConfig, processor: EgmaProcessor
) -> None:
    torch.manual_seed(9)
    EgmaModel(tiny_config).save_pretrained(tmp_path / "second")
    processor.save_pretrained(tmp_path / "second")
    output = tmp_path / "results"
    arguments = [str(model_folder), "--data", str(corpus_folder), "--output", str(output), "--bootstrap", "20"]
    assert evaluate_egma.main([*arguments, "--compare", str(tmp_path / "second")]) == 0
    results = json.loads((output / "results.json").read_text())
    second = results["baselines"]["second"]
    assert second["differences"]["zero_shot_auroc"]["value"] == pytest.approx(
        results["zero_shot_auroc"] - second["zero_shot_auroc"]
    )
    assert "| model - second |" in (output / "results.md").read_text()
    assert (output / "results.tex").read_text().count(r"\bottomrule") >= 1
    assert {path.name for path in (output / "figures").iterdir()} == {"roc.png", "confusion.png", "retrieval.png"}
    entries = json.loads((output / "model_index.json").read_text())
    assert (
        entries[0]["name"] == "model" and entries[0]["results"][0]["metrics"][0]["value"] == results["zero_shot_auroc"]
    )
    assert evaluate_egma.main([*arguments, "--compare", "nowhere"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--data", "CORPUS"], "nowhere: no such folder; expected one with a model, or an id"),
        (["no-one/nothing", "--data", "CORPUS"], "no-one/nothing: no such folder, and no such model on the Hub ("),
        (["MODEL", "--data", "CORPUS", "--compare", "/nowhere"], "/nowhere: no such folder; expected one with a model"),
        (["MODEL", "--data", "CORPUS", "--compare", "x y/z"], "x y/z: no such folder, and no such model on the Hub (R"),
        (["MODEL", "--data", "CORPUS", *["--compare", "a/b"] * 2], "a/b: 2 models have this name"),
        (
            ["MODEL", "--data", "CORPUS", "--compare", "MODEL/"],
            "model: 2 models have this name; the tables could not tell them apart",
        ),
        (["MODEL", "a/b", "--data", "CORPUS"], "expected one model, or two runs or more with --seeds"),
        (["MODEL", "--seeds", "--data", "CORPUS"], "expected one model, or two runs or more with --seeds"),
        (
            ["MODEL", "a/b", "--seeds", "--data", "CORPUS", "--compare", "c/d"],
            "expected one model, or two runs or more with --seeds",
        ),
        (["MODEL", "--data", "nowhere"], "nowhere: no such folder"),
        (["MODEL", "--data", "CORPUS", "--split", "validation"], "no split 'validation'"),
        (["MODEL", "--data", "CORPUS", "--tasks", "captioning"], "unknown task 'captioning'"),
        (["MODEL", "--data", "CORPUS", "--protocol", "biovil"], "unknown protocol 'biovil'; expected chexzero, gloria"),
        (["MODEL", "--data", "CORPUS", "--classes", "Scoliosis"], "class 'Scoliosis' is not in these readings"),
        (["MODEL", "--data", "CORPUS", "--prompts", "none.yaml"], "none.yaml: no such prompt file"),
    ],
)
def test_bad_input_exits_with_two_and_one_sentence(
    arguments: list[str], message: str, model_folder: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"MODEL": str(model_folder), "MODEL/": f"{model_folder}/", "CORPUS": str(corpus_folder)}
    assert evaluate_egma.main([places.get(argument, argument) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.startswith("error: ") and "\n" not in said


def test_another_kind_of_model_is_refused(
    tmp_path: Path, corpus_folder: Path, tiny_bert: BertConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bert.save_pretrained(tmp_path / "bert")
    assert evaluate_egma.main([str(tmp_path / "bert"), "--data", str(corpus_folder)]) == 2
    assert "a model of type 'bert'; expected an EGMA model" in capsys.readouterr().err


def test_incomplete_weights_are_refused(
    model_folder: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(model_folder / "model.safetensors")
    weights.pop("text_projection.weight")
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    assert evaluate_egma.main([str(model_folder), "--data", str(corpus_folder)]) == 2
    assert "they lack 1 tensors, such as text_projection.weight" in capsys.readouterr().err


def test_a_damaged_configuration_is_told_to_its_end(
    model_folder: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The libraries name the field in one line, and what is wrong with it in the next."""
    damaged = {"hidden_size": "many"}
    edit_json(model_folder / "config.json", text_config={"model_type": "bert"} | damaged)
    arguments = [str(model_folder), "--data", str(corpus_folder)]
    assert evaluate_egma.main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "'hidden_size'" in said and "'many'" in said and not said.endswith(":)") and "\n" not in said


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def refuse(url: str) -> None:
        asked.append(url)
        raise ConnectionError("no network")

    monkeypatch.setattr("egma.inference.models.get_hf_file_metadata", refuse)
    assert evaluate_egma.main(["no-one/nothing", "--data", "nowhere"]) == 2
    assert len(asked) == 1 and "(no network)" in capsys.readouterr().err


def test_seeds_become_one_result(
    model_folder: Path,
    corpus_folder: Path,
    tmp_path: Path,
    tiny_config: EgmaConfig,
    processor: EgmaProcessor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [model_folder]
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append(tmp_path / f"seed {seed}")
        EgmaModel(tiny_config).save_pretrained(runs[-1])
        processor.save_pretrained(runs[-1])
    arguments = ["--data", str(corpus_folder), "--bootstrap", "20", "--output"]
    alone = []
    for run in runs:
        assert evaluate_egma.main([str(run), *arguments, str(tmp_path / "alone")]) == 0
        alone.append(json.loads((tmp_path / "alone" / "results.json").read_text()))
    assert evaluate_egma.main([*map(str, runs), "--seeds", *arguments, str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for key in ("zero_shot_auroc", "pointing_game", "recall_at_1", "grounding_cnr"):
        values = [run[key] for run in alone]
        assert [run[key] for run in results["runs"].values()] == values
        assert results[key] == pytest.approx(np.mean(values))
        assert results["deviations"][key] == pytest.approx(np.std(values, ddof=1))
        low, high = results["intervals"][key]
        assert low <= min(np.mean([run["intervals"][key][0] for run in alone]), results[key]) and high >= results[key]
    share = results["image_dependent"]["pointing_game"]
    assert share["value"] == pytest.approx(np.mean([run["image_dependent"]["pointing_game"]["value"] for run in alone]))
    assert [run["details"] for run in results["runs"].values()] == [run["details"] for run in alone]
    report = (tmp_path / "out" / "results.md").read_text()
    assert "| figure | mean of the seeds | ± deviation | model | seed 1 | seed 2 | chance |" in report
    assert "intervals over seeds and patients" in report and not (tmp_path / "out" / "model_index.json").exists()
    widths = {line.replace(r"\|", "").count("|") for line in report.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    edit_json(runs[1] / "config.json", zero_shot_score="late_interaction", gaze_weight=0.5)
    capsys.readouterr()
    assert evaluate_egma.main([*map(str, runs), "--seeds", *arguments, str(tmp_path / "out")]) == 2
    assert "seed 1: another configuration than the first run's; expected runs of one setting" in capsys.readouterr().err
