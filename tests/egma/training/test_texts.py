"""Text towers do no work twice: distinct sentences, little padding, few shapes; the gradients are those of all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset_scripts import build
from dataset_scripts.schema import load_readings
from egma.inference.texts import distinct_texts, encode_blocks, length_blocks, text_inputs
from egma.training.start import train_tokenizer
from egma.training.step import TrainingModule

from .batches import gradients, largest_difference, make_batch, small_model

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("buckets", [False, True])
def test_gradients_are_those_of_every_sentence_encoded(
    record_difference: Any, buckets: bool, dtype: torch.dtype
) -> None:
    model, batch = small_model(dtype).eval(), make_batch([3, 0, 4, 5, 2, 2], 3, dtype, length=9)
    batch["input_ids"][4:8], batch["attention_mask"][4:8] = batch["input_ids"][:4], batch["attention_mask"][:4]
    patches = model.encode_images(batch["pixel_values"])[1]
    pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    alone = torch.cat([model.encode_text(ids[mask > 0][None]) for ids, mask in pairs])
    gaze = batch["gaze_heatmaps"].flatten(1), batch["gaze_mask"]
    expected_loss, _ = model.objective(patches, alone, batch["sentence_to_image"], *gaze)
    expected_loss.backward()
    expected = gradients(model)
    model.zero_grad()
    packed = batch | distinct_texts(batch)
    assert len(packed["input_ids"]) <= 12
    loss, _ = TrainingModule(model, buckets)(packed)
    loss.backward()
    difference = largest_difference(gradients(model), expected)
    record_difference(f"gradients of distinct sentences to all encoded, {str(dtype).split('.')[1]}", difference)
    assert difference < TOLERANCE[dtype]
    assert float(loss.detach()) == pytest.approx(float(expected_loss.detach()), rel=TOLERANCE[dtype])


def test_equal_sentences_share_a_dropout_draw() -> None:
    module = TrainingModule(small_model(torch.float32, dropout=0.5).train())
    batch = make_batch([2, 2], 0, torch.float32)
    batch["input_ids"][2], batch["attention_mask"][2] = batch["input_ids"][0], batch["attention_mask"][0]
    plain = module(batch, stage="features").sentences
    assert not torch.allclose(plain[0], plain[2])
    shared = module(batch | distinct_texts(batch), stage="features").sentences
    assert torch.equal(shared[0], shared[2]) and not torch.allclose(shared[0], shared[1])


# --- how much is padding


def reports_of(data: Path) -> list[list[list[int]]]:
    rows = load_readings(data, "train")
    tokenizer = train_tokenizer(rows, 2000, 64)
    texts = ([sentence["text"] for sentence in report] for report in rows["sentences"])
    return [[tokenizer(text, truncation=True, max_length=64)["input_ids"] for text in report] for report in texts]


def distinct_of(reports: list[list[list[int]]]) -> dict[str, Any]:
    sentences = [torch.tensor(sentence) for report in reports for sentence in report]
    ids = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True)
    return distinct_texts({"input_ids": ids, "attention_mask": (ids != 0).long()})


def real_fractions(reports: list[list[list[int]]], size: int) -> list[float]:
    random, found = np.random.default_rng(0), []
    for _ in range(8):
        chosen = random.permutation(len(reports))[:size]
        batch = distinct_of([reports[row] for row in chosen])
        blocks = length_blocks(batch["text_lengths"])
        assert len(blocks) <= 7
        found.append(float(batch["attention_mask"].sum()) / sum((b - a) * length for a, b, length in blocks))
    return found


@pytest.mark.parametrize("size", [8, 32])
def test_little_of_generated_reports_is_padding(phantom_data: Path, size: int) -> None:
    assert min(real_fractions(reports_of(phantom_data), size)) >= 0.85


def test_little_of_real_notes_is_padding(real_data: Path, tmp_path: Path) -> None:
    source, output = str(real_data / "notes"), str(tmp_path / "notes")
    assert build.main(["image_text", "--source", source, "--output", output, "--image-size", "32"]) == 0
    reports = reports_of(tmp_path / "notes")
    assert min(real_fractions(reports, 8) + real_fractions(reports, 60)) >= 0.85


def test_shapes_are_few_where_they_are_compiled(phantom_data: Path) -> None:
    reports, random, shapes = reports_of(phantom_data), np.random.default_rng(0), set()

    def encode(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(input_ids.shape))
        assert bool(attention_mask.any(dim=1).all())
        return torch.zeros(len(input_ids), 1)

    for _ in range(30):
        chosen = random.permutation(len(reports))[:32]
        batch = distinct_of([reports[row] for row in chosen])
        encode_blocks(encode, text_inputs(batch), length_blocks(batch["text_lengths"], 16, 64), 0)
    assert len(shapes) <= 8
