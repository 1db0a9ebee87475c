"""Towers of many kinds from local folders, as published models have them (RAD-DINO is a DINOv2)."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    RobertaConfig,
    RobertaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from modeling_egma import EgmaModel

BODY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
EYES = {"image_size": 64, "patch_size": 16}
VISION = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**BODY, **EYES)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**BODY, **EYES)),
    "vit": lambda: ViTModel(ViTConfig(**BODY, **EYES)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**BODY, **EYES)),
    "convnext": lambda: ConvNextModel(ConvNextConfig(image_size=64, num_stages=2, hidden_sizes=[8, 16], depths=[1, 1])),
}
TEXT = {
    "bert": lambda: BertModel(BertConfig(**BODY, vocab_size=60, max_position_embeddings=20)),
    "roberta": lambda: RobertaModel(RobertaConfig(**BODY, vocab_size=60, max_position_embeddings=30)),
    "clip": lambda: CLIPTextModel(CLIPTextConfig(**BODY, vocab_size=60, max_position_embeddings=20, eos_token_id=59)),
}


@pytest.mark.parametrize(("vision", "text"), [(vision, text) for vision in VISION for text in TEXT])
def test_two_towers_become_one_model_that_trains_saves_and_loads(tmp_path, vision, text):
    torch.manual_seed(0)
    VISION[vision]().save_pretrained(tmp_path / "vision")
    TEXT[text]().save_pretrained(tmp_path / "text")
    model = EgmaModel.from_vision_text_pretrained(str(tmp_path / "vision"), str(tmp_path / "text"), projection_dim=8)
    pixels, ids = torch.randn(2, 3, 64, 64), torch.randint(3, 50, (3, 7))
    rows = torch.tensor([0, 0, 1])
    output = model(pixels, ids, sentence_to_image=rows)
    assert output.patch_embeds.shape == (2, model.config.grid_size**2, 8) and torch.isfinite(output.loss)
    output.loss.backward()
    used = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(name.startswith("vision_model") for name in used) and any(name.startswith("text_model") for name in used)
    model.save_pretrained(tmp_path / "both")
    again = EgmaModel.from_pretrained(tmp_path / "both")
    assert torch.equal(again(pixels, ids).logits_per_image, model(pixels, ids).logits_per_image)
