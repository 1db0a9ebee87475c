"""CLIP, SigLIP and a plain vision model from tiny local folders, on the rows that EGMA is evaluated on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from dataset_scripts.schema import UserError
from egma_evaluation.peers import load_peer
from egma_evaluation.protocol import evaluate_model
from modeling_egma import EgmaModel, EgmaProcessor
from tests.conftest import WORDS
from tests.egma_evaluation.fakes import PROMPTS, corpus

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {
    **TOWER,
    "vocab_size": 64,
    "max_position_embeddings": 24,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
VISION = {**TOWER, "image_size": 32, "patch_size": 16}


def save(folder: Path, kind: str) -> Path:
    torch.manual_seed(3)
    if kind == "clip":
        model: Any = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12))
    elif kind == "siglip":
        model = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION))
    else:
        model = ViTModel(ViTConfig(**VISION))
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    words = {word: place for place, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["input_ids"] if kind == "siglip" else ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", model_input_names=names, model_max_length=24
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_embeddings_are_the_models_own_whatever_the_batch(tmp_path: Path, kind: str) -> None:
    peer, processor = load_peer(str(save(tmp_path / kind, kind)))
    texts = ["no pleural effusion .", "lungs are clear"]
    inputs = processor(text=texts)
    together = peer.encode_text(inputs["input_ids"], inputs["attention_mask"])
    own = peer.model.get_text_features(**peer_inputs(processor, texts)).pooler_output
    torch.testing.assert_close(together, torch.nn.functional.normalize(own, dim=-1))
    one = processor(text=texts[1:])
    alone = peer.encode_text(one["input_ids"], one["attention_mask"])
    torch.testing.assert_close(alone[0], together[1])
    assert (processor(text=["clear"])["input_ids"].shape[1] == 24) == (kind == "siglip")


def peer_inputs(processor: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    padding = True if "attention_mask" in processor.tokenizer.model_input_names else "max_length"
    return dict(processor.tokenizer(texts, padding=padding, max_length=24, return_tensors="pt"))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_peer_stands_beside_the_model_on_the_same_rows(
    tmp_path: Path, kind: str, tiny_model: EgmaModel, processor: EgmaProcessor
) -> None:
    rows = corpus(9)
    peer = load_peer(str(save(tmp_path / kind, kind)))
    results = evaluate_model(
        tiny_model, processor, rows, training_rows=rows, prompts=PROMPTS, bootstrap=20, others={"peer": peer}
    )
    beside = results["baselines"]["peer"]
    assert 0 <= beside["zero_shot_auroc"] <= 1 and 0 <= beside["recall_at_1"] <= 1
    assert beside["n"]["zero_shot_auroc"] == results["n"]["zero_shot_auroc"]
    difference = beside["differences"]["zero_shot_auroc"]
    assert difference["value"] == pytest.approx(
        results["details"]["zero_shot"][results["zero_shot_score"]]["auroc"]["value"] - beside["zero_shot_auroc"]
    )
    assert 0 < difference["p_value"] <= 1
    assert "late_interaction" not in beside["details"]["zero_shot"]
    assert "no embeddings of patches" in beside["details"]["pointing_game"]["reason"]
    assert difference["p_value"] <= difference["p_holm"] <= 1 and difference["method"] == "sign-flips over patients"
    assert not {"draws", "paired"} & beside["details"]["zero_shot"]["pooled"]["auroc"].keys()


def test_a_model_compared_with_itself_differs_by_nothing(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    rows = corpus(9)
    results = evaluate_model(
        tiny_model, processor, rows, training_rows=rows, prompts=PROMPTS, bootstrap=20,
        others={"itself": (tiny_model, processor)},
    )  # fmt: skip
    for key, difference in results["baselines"]["itself"]["differences"].items():
        assert difference["value"] == 0 and difference["p_value"] == 1, key
        assert difference["interval"] == (0, 0)
    assert len(results["baselines"]["itself"]["differences"]) >= 7


def test_a_model_without_a_text_tower_is_for_the_linear_probe(tmp_path: Path) -> None:
    peer, processor = load_peer(str(save(tmp_path / "vit", "vit")))
    rows = corpus(30)
    results = evaluate_model(
        peer, processor, rows[20:], ["linear_probe"], training_rows=rows[:12], validation_rows=rows[12:20], bootstrap=0
    )
    assert 0 <= results["linear_probe_auroc"] <= 1
    with pytest.raises(UserError, match="vit has no text tower; of the tasks it can only take linear_probe"):
        evaluate_model(peer, processor, rows, ["zero_shot"], prompts=PROMPTS)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no model of CLIP's or SigLIP's kind"):
        load_peer(str(tmp_path / "nowhere"))
