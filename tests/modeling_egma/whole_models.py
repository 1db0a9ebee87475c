"""Tiny whole models of an image and a text encoder, as CLIP's and SigLIP's kin are published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from tests.conftest import WORDS

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = TOWER | {"vocab_size": 64, "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 1}
VISION = TOWER | {"image_size": 32, "patch_size": 8}
SQUARE = TOWER | {"num_patches": 16, "patch_size": 8}

WHOLE: dict[str, Callable[[], Any]] = {
    "clip": lambda: CLIPModel(
        CLIPConfig(text_config=TEXT | {"eos_token_id": 2}, vision_config=VISION, projection_dim=12)
    ),
    # as the first CLIPs were published: the end of a text is its highest token
    "clip of any end": lambda: CLIPModel(
        CLIPConfig(text_config=TEXT | {"eos_token_id": 63}, vision_config=VISION, projection_dim=12)
    ),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=TEXT | {"eos_token_id": 2}, vision_config=VISION)),
    # SigLIP 2 of one size is of SigLIP's type; its tokenizer pads with another token than the configuration says
    "siglip2 of one size": lambda: SiglipModel(
        SiglipConfig(text_config=TEXT | {"eos_token_id": 2, "pad_token_id": 1}, vision_config=VISION)
    ),
    "siglip2": lambda: Siglip2Model(Siglip2Config(text_config=TEXT | {"eos_token_id": 2}, vision_config=SQUARE)),
}


def save_whole(folder: Path, kind: str) -> Any:
    """The model of `kind`, which lies in `folder` with its processor and tokenizer."""
    torch.manual_seed(5)
    model = WHOLE[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # SigLIP starts with much of it at zero
            parameter.add_(torch.randn_like(parameter) * 0.05)
        model.logit_scale.fill_(4.8 if kind.startswith("siglip") else 3.1)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3).save_pretrained(folder)
    tokenizer_of(kind).save_pretrained(folder)
    return model


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """Sentences end with the end token, which is the highest one where the kind goes by that."""
    words = {word: place for place, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *WORDS.split()])}
    end = ("[EOS]", 2)
    if kind == "clip of any end":
        end = ("[END]", 63)
        words["[END]"] = 63
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    names = ["input_ids"] if kind.startswith("siglip") else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token=end[0], unk_token="[UNK]", model_input_names=names
    )
