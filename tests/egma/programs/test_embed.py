"""Embeddings as Parquet, and what `datasets` finds with them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Features, List, Value, load_dataset

from dataset_scripts.schema import load_readings
from egma.programs import embed
from modeling_egma import EgmaModel, EgmaProcessor


@pytest.fixture
def model_folder(tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor) -> Path:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def output(model_folder: Path, phantom_data: Path, tmp_path: Path) -> Path:
    words = [str(model_folder), "--data", str(phantom_data), "--output", str(tmp_path / "out"), "--batch_size", "3"]
    assert embed.main(words) == 0
    return tmp_path / "out"


def opened(output: Path, kind: str):
    return load_dataset("parquet", data_files=str(output / f"{kind}.parquet"), split="train")


def test_every_image_and_sentence_once_with_the_models_own_numbers(
    output: Path, phantom_data: Path, tiny_model: EgmaModel, processor: EgmaProcessor
) -> None:
    rows = load_readings(phantom_data, "test")
    images, sentences = opened(output, "images"), opened(output, "sentences")
    assert images.features == Features({"image_id": Value("string"), "embedding": List(Value("float32"))})
    assert images["image_id"][:] == sorted(set(rows["image_id"]))
    assert sentences["text"][:] == sorted({said["text"] for row in rows for said in row["sentences"]})
    first = next(row for row in rows if row["image_id"] == images[0]["image_id"])
    with torch.no_grad():
        inputs = processor(images=[first["image"]], text=[sentences[0]["text"]])
        found = tiny_model(**inputs)
    np.testing.assert_allclose(images[0]["embedding"], found.image_embeds[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(sentences[0]["embedding"], found.text_embeds[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(images.with_format("numpy")["embedding"][:], axis=1), 1, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")
def test_the_index_of_datasets_finds_what_numpy_finds(output: Path) -> None:
    import faiss

    images = opened(output, "images")
    query = np.asarray(opened(output, "sentences")[0]["embedding"], np.float32)
    images.add_faiss_index("embedding", metric_type=faiss.METRIC_INNER_PRODUCT)
    scores, found = images.get_nearest_examples("embedding", query, k=4)
    cosines = images.with_format("numpy")["embedding"][:] @ query
    np.testing.assert_allclose(scores, np.sort(cosines)[::-1][:4], atol=1e-5)
    assert found["image_id"][0] == images[int(cosines.argmax())]["image_id"]


def test_what_is_half_done_is_not_there(
    model_folder: Path, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(embed, "text_embeddings", stopped)
    words = [str(model_folder), "--data", str(phantom_data), "--output", str(tmp_path / "out")]
    assert embed.main(words) == 130
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["images.parquet"]
