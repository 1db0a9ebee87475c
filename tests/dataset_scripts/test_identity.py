"""Two corpora, two models: the same identity when, and only when, everything that decides a figure is the same."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from dataset_scripts import identity
from dataset_scripts.identity import corpus_identity, model_identity, program_identity, stamp
from dataset_scripts.schema import FEATURES, load_readings
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma_evaluation.fakes import corpus


def write_corpus(folder: Path, mirrored: bool = False, split: str = "test") -> Path:
    rows = corpus(9)
    for box in (box for row in rows for box in row["boxes"] if mirrored):
        box["x_min"], box["x_max"] = 1 - box["x_max"], 1 - box["x_min"]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = Dataset.from_list([dict(row) for row in rows], features=FEATURES)
    table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_corpus_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    first = corpus_identity(write_corpus(tmp_path / "one"))
    assert len(first) == 16 and first == corpus_identity(write_corpus(tmp_path / "two"))
    assert first != corpus_identity(write_corpus(tmp_path / "validation", split="validation"))


def test_mirrored_boxes_are_another_corpus_though_size_footer_and_time_stay(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path)
    path = folder / "data" / "test-00000-of-00001.parquet"
    before, footer, first = path.stat(), path.read_bytes()[-1024:], corpus_identity(folder)
    assert load_readings(folder, "test")[0]["boxes"][0]["x_min"] == 0
    write_corpus(folder, mirrored=True)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.read_bytes()[-1024:] == footer
    assert corpus_identity(folder) != first
    assert load_readings(folder, "test")[0]["boxes"][0]["x_min"] == 0.5


@pytest.fixture
def model_folder(tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor) -> Path:
    folder = tmp_path / "model"
    tiny_model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def other_weights(folder: Path) -> None:
    save_file({"one": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        replaced("config.json", '"text_layers":', '"text_layers": 2, "was":'),
        replaced("processor_config.json", "0.5", "0.4"),
        replaced("tokenizer.json", '"no"', '"none"'),
        replaced("tokenizer_config.json", "{", '{"model_max_length": 4, '),
        other_weights,
        lambda folder: (folder / "preprocessor_config.json").write_text("{}"),
        lambda folder: (folder / "added_tokens.json").write_text("{}"),
    ],
)
def test_everything_that_a_model_is_loaded_from_is_its_identity(
    model_folder: Path, change: Callable[[Path], object]
) -> None:
    before = model_identity(model_folder)
    change(model_folder)
    assert before is not None and model_identity(model_folder) != before


def test_what_only_lies_beside_a_model_is_not_its_identity(model_folder: Path, tmp_path: Path) -> None:
    before = model_identity(model_folder)
    for name in ("training_state.json", "results.json", "metrics.jsonl", "README.md"):
        (model_folder / name).write_text("{}")
    shutil.copytree(model_folder, tmp_path / "elsewhere")
    assert model_identity(model_folder) == model_identity(tmp_path / "elsewhere") == before
    (model_folder / "model.safetensors").unlink()
    assert model_identity(model_folder) is None


def test_a_model_of_the_hub_is_the_files_that_were_loaded(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    store = tmp_path / "hub" / "models--lab--egma"
    shutil.copytree(model_folder, store / "snapshots" / "one")
    shutil.copytree(model_folder, store / "snapshots" / "two")
    replaced("processor_config.json", "0.5", "0.4")(store / "snapshots" / "two")
    (store / "refs").mkdir()
    found = []
    for commit in ("one", "two"):
        (store / "refs" / "main").write_text(commit)
        found.append(model_identity("lab/egma"))
    assert found[0] == model_identity(model_folder) and found[1] not in (None, found[0])
    assert model_identity("lab/other") is None


def test_a_file_is_read_once_until_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, reads = write_corpus(tmp_path), []
    digest = identity.hashlib.file_digest
    monkeypatch.setattr(identity.hashlib, "file_digest", lambda *args: reads.append(args) or digest(*args))
    corpus_identity(folder)
    corpus_identity(folder)
    assert len(reads) == 1
    write_corpus(folder, mirrored=True)
    corpus_identity(folder)
    assert len(reads) == 2


def test_sources_and_packaged_prompts_are_the_program(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    found = []
    for name, text in (("a.py", "1"), ("prompts/p.yaml", "1"), ("prompts/p.yaml", "2"), ("notes.md", "1")):
        (tmp_path / name).write_text(text)
        found.append(program_identity(tmp_path))
    assert len(set(found[:3])) == 3 and found[3] == found[2]
    assert program_identity(tmp_path / "a.py") != program_identity(tmp_path / "prompts" / "p.yaml")


def test_a_stamp_tells_a_write_whose_time_was_put_back(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("1")
    before, known = stamp(path), path.stat()
    path.write_text("2")
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert stamp(path) != before
