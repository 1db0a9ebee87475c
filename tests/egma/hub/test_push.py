"""Model, processor, card and data set through a Hub of the tests' own, and back in processes without the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image
from safetensors.torch import load_file, save_file

from dataset_scripts.identity import model_identity
from dataset_scripts.schema import UserError, load_readings
from egma.evaluation.reporting.report import HEADLINE_LABELS
from egma.hub.card import check_results
from egma.hub.push import stage_model
from egma.tools.processes import ROOT
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from tests.egma.hub.fake_hub import FakeHub, fake_hub
from tests.egma.programs.test_train import TINY
from tests.modeling_egma.test_loading_egma import BLOCKER

LOAD = """
import sys, torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForZeroShotImageClassification, AutoProcessor, pipeline
from huggingface_hub import ModelCard
from datasets import load_dataset
repo, data, out = sys.argv[1:]
image, prompts = Image.linear_gradient("L").resize((90, 70)), ["pneumonia", "no pleural effusion ."]
remote = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(repo, **remote)
inputs = processor(images=[image], text=prompts)
found = {"model": AutoModel.from_pretrained(repo, **remote)(**inputs).logits_per_image.detach()}
zero_shot = AutoModelForZeroShotImageClassification.from_pretrained(repo, **remote)
found["zero_shot"] = zero_shot(**inputs).logits_per_image.detach()
pipe = pipeline("zero-shot-image-classification", model=repo, **remote)
found["pipeline"] = {row["label"]: row["score"] for row in pipe(image, prompts, hypothesis_template="{}")}
found["grounding"] = torch.from_numpy(pipeline("egma-grounding", model=repo, **remote)(image, prompts)[0]["heat_map"])
found["card"] = {entry.metric_name: entry.metric_value for entry in ModelCard.load(repo).data.eval_results or []}
rows = load_dataset(data, split="test", streaming=True)
found["rows"] = [row["reading_id"] for row in rows]
torch.save(found, out)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, tiny_swin: Any, tiny_bert: Any) -> Path:
    """A trained folder with all that may lie there, and results of its weights."""
    torch.manual_seed(2)
    out = tmp_path_factory.mktemp("trained") / "model"
    config = EgmaConfig(vision_config=tiny_swin.to_dict(), text_config=tiny_bert.to_dict(), projection_dim=12)
    EgmaModel(config).save_pretrained(out)
    EgmaProcessor.for_model(config, tokenizer).save_pretrained(out)
    for name in ("nonfinite_batch.json", "metrics.jsonl", "pytorch_model.bin", "events.out.tfevents.1"):
        (out / name).write_text("of a patient, or a pickle")
    (out / "checkpoint-4").mkdir()
    (out / "checkpoint-4" / "model.safetensors").write_bytes(b"1")
    state = {
        "versions": {"torch": "2"}, "processes": 2, "device": "a CPU", "precision": "no", "total_steps": 4,
        "parameters": 1234, "readings_in_a_contrastive_batch": 16, "config": {},
        "settings": {"data": "/home/anna/secret", "output_dir": "/home/anna", "seed": 7, "batch_size": 8},
        "data": {
            "phantom": {"generated": True, "fingerprint": "abc", "licenses": ["CC0"], "sources": ["phantom/egd"]},
            "training": "72 training readings",
        },
    }  # fmt: skip
    (out / "training_state.json").write_text(json.dumps(state))
    return out


@pytest.fixture(scope="module")
def results(folder: Path, phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    command = [str(ROOT / "evaluate_egma.py"), str(folder), "--data", str(phantom_data), "--output", str(out)]
    done = subprocess.run([sys.executable, *command, "--bootstrap", "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def environment(hub: FakeHub, home: Path, token: bool = True) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    own |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return own | ({"HF_TOKEN": "hf_x"} if token else {})


def push(hub: FakeHub, home: Path, *arguments: object, token: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "push_egma.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment(hub, home, token), capture_output=True, text=True, timeout=120)


def test_round_trip(
    hub: FakeHub, folder: Path, results: Path, phantom_data: Path, tmp_path: Path, record_difference: Any
) -> None:
    done = push(hub, tmp_path / "home", folder, "lab/egma", "--results", results)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/lab/egma")
    repository = hub.repositories["models", "lab/egma"]
    assert repository.private
    names = {name for name in repository.files if not name.endswith(".py")}
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "results.json"} <= names
    assert not any(
        part in name for name in names for part in ("checkpoint", ".bin", "jsonl", "events", "nonfinite", "state")
    )
    assert b"/home/anna" not in b"".join(repository.files.values())
    where = str(phantom_data)
    build = (
        "from pathlib import Path; from dataset_scripts.output.push import push; "
        f"push(Path({where!r}), 'lab/data', True)"
    )
    home = environment(hub, tmp_path / "home")
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, env=home, check=True, capture_output=True, timeout=120)
    out = tmp_path / "found.pt"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", BLOCKER + LOAD, "lab/egma", "lab/data", str(out)],
        cwd=tmp_path, env=environment(hub, tmp_path / "fresh"), capture_output=True, text=True, timeout=240,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    found = torch.load(out, weights_only=True)
    model, processor = EgmaModel.from_pretrained(folder), EgmaProcessor.from_pretrained(folder)
    image, prompts = Image.linear_gradient("L").resize((90, 70)), ["pneumonia", "no pleural effusion ."]
    expected = model(**processor(images=[image], text=prompts)).logits_per_image.detach()
    for way in ("model", "zero_shot"):
        record_difference(f"logits after a round trip over the Hub, {way}", float((found[way] - expected).abs().max()))
        assert torch.equal(found[way], expected)
    assert [found["pipeline"][prompt] for prompt in prompts] == pytest.approx(
        expected.softmax(dim=-1)[0].tolist(), abs=1e-5
    )
    assert found["grounding"].shape == (70, 90)
    measured = json.loads((results / "results.json").read_text())
    assert found["card"] == {
        label: measured[key] for key, label in HEADLINE_LABELS.items() if measured[key] is not None
    }
    assert found["rows"] == load_readings(phantom_data, "test")["reading_id"][:]


def test_a_training_pushes_what_it_trained(hub: FakeHub, phantom_data: Path, tmp_path: Path) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(TINY | {"max_steps": 1, "evaluation_steps": 1, "report_to": "none"}))
    command = [str(ROOT / "train_egma.py"), "--config", str(preset), "--data", str(phantom_data)]
    command += ["--output_dir", str(tmp_path / "run"), "--push-to-hub", "lab/trained"]
    home = environment(hub, tmp_path / "home")
    done = subprocess.run([sys.executable, *command], env=home, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "/lab/trained" in done.stdout
    repository = hub.repositories["models", "lab/trained"]
    card = repository.files["README.md"].decode()
    assert repository.private and "This model was not evaluated." in card and "GENERATED" in card
    assert str(tmp_path).encode() not in b"".join(repository.files.values())


def test_card_is_complete_and_honest(folder: Path, results: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    command = [sys.executable, str(ROOT / "push_egma.py"), str(folder), "lab/egma", "--results", str(results)]
    assert subprocess.run([*command, "--dry-run", str(staged)], capture_output=True).returncode == 0
    card = ModelCard.load(staged / "README.md")
    assert card.text.strip().splitlines()[0].startswith("**Trained on GENERATED data")
    for phrase in (
        "must not be used for",
        "can identify their reader",
        "CC0",
        "| seed | 7 |",
        "Ma et al.",
        "constant predictor",
    ):
        assert phrase in card.text
    assert "More Information Needed" not in card.text and "not recorded" not in card.text
    assert card.data.model_name == "egma" and len(card.data.eval_results) >= 5
    assert card.data.datasets == ["phantom-egd"]
    for picture in (line.split("](")[1][:-1] for line in card.text.splitlines() if line.startswith("![")):
        assert (staged / picture).is_file()


def test_pictures_of_patients_stay(folder: Path, results: Path, tmp_path: Path) -> None:
    from egma.hub.push import stage_model

    real = tmp_path / "real"
    real.mkdir()
    measured = json.loads((results / "results.json").read_text()) | {"generated": False}
    (real / "results.json").write_text(json.dumps(measured))
    (real / "figures").mkdir()
    for name in ("roc.png", "heat_maps.png", "retrieval.png"):
        (real / "figures" / name).write_bytes(b"1")
    staged = stage_model(folder, "lab/egma", real, tmp_path / "staged")
    assert [path.name for path in (staged / "figures").iterdir()] == ["roc.png"]
    # what goes up can be told to be the model that was measured
    assert measured["model"]["identity"] == model_identity(folder)
    assert json.loads((staged / "results.json").read_text())["model"]["identity"] == model_identity(staged)


def test_results_of_another_processor_are_refused(folder: Path, results: Path, tmp_path: Path) -> None:
    measured = json.loads((results / "results.json").read_text())
    shutil.copytree(folder, tmp_path / "other")
    check_results(tmp_path / "other", measured)
    settings = tmp_path / "other" / "processor_config.json"
    settings.write_text(settings.read_text().replace("0.5", "0.4", 1))
    with pytest.raises(UserError, match=r"were measured on the model [0-9a-f]{16}, and this one is [0-9a-f]{16}"):
        check_results(tmp_path / "other", measured)
    for none in ({}, {"model": {}}):  # of a version that did not say
        with pytest.raises(UserError, match="measured on the model None"):
            check_results(folder, none)


def test_what_must_not_happen_is_refused(hub: FakeHub, folder: Path, results: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    no_token = push(hub, home, folder, "lab/other", token=False)
    assert no_token.returncode == 2 and "hf auth login" in no_token.stderr
    assert push(hub, home, folder, "lab/twice").returncode == 0
    again = push(hub, home, folder, "lab/twice")
    assert again.returncode == 2 and "already holds" in again.stderr and "--overwrite" in again.stderr
    assert push(hub, home, folder, "lab/twice", "--overwrite").returncode == 0
    hub.repositories["models", "lab/twice"].private = False
    assert "exists and is public" in push(hub, home, folder, "lab/twice", "--overwrite").stderr
    empty = push(hub, home, tmp_path, "lab/nothing")
    assert empty.returncode == 2 and "no EGMA model can be loaded from it (" in empty.stderr
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    said = push(hub, home, broken, "lab/broken").stderr
    assert "1 tensors hold NaN or an infinite number, such as visual_projection.weight" in said
    other = json.loads((results / "results.json").read_text())
    other["model"]["identity"] = "0" * 16
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text(json.dumps(other))
    wrong = push(hub, home, folder, "lab/wrong", "--results", tmp_path / "other")
    assert wrong.returncode == 2 and "measured on the model 0000" in wrong.stderr
    assert ("models", "lab/wrong") not in hub.repositories
    assert "no good" in push(hub, home, folder, "no good/id").stderr


def test_results_of_a_data_set_of_the_hub_go_up_as_its_evaluation_results(
    folder: Path, results: Path, tmp_path: Path
) -> None:
    stage_model(folder, "lab/egma", results, tmp_path / "local")
    assert not (tmp_path / "local" / ".eval_results").exists()  # the format knows data sets of the Hub alone
    measured = json.loads((results / "results.json").read_text())
    measured["data"]["hub"] = {"id": "lab/readings", "revision": "a" * 40}
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "results.json").write_text(json.dumps(measured))
    staged = stage_model(folder, "lab/egma", tmp_path / "hub", tmp_path / "staged")
    entries = parse_eval_result_entries(yaml.safe_load((staged / ".eval_results" / "egma.yaml").read_text()))
    assert {entry.task_id: entry.value for entry in entries} == {
        key: measured[key] for key in HEADLINE_LABELS if measured[key] is not None
    }
    assert {(entry.dataset_id, entry.dataset_revision) for entry in entries} == {("lab/readings", "a" * 40)}
    assert all("generated data" in entry.notes and "confidence_interval" in entry.notes for entry in entries)


def test_a_dry_run_wants_an_id_that_can_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("not//an id")):
        stage_model(folder, "not//an id", None, tmp_path / "staged")
    assert not (tmp_path / "staged").exists()
