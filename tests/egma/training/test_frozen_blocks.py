"""The last blocks of each encoder are trained, with what follows them."""

from typing import Any

import pytest
import torch

from dataset_scripts.schema import UserError
from egma.training.frozen import blocks_of, freeze_lower
from modeling_egma import EgmaConfig, EgmaModel
from tests.modeling_egma.tower_configs import BERT, CLIP_TEXT, VISION, config_of

# names of what is trained of a vision encoder's last block alone
LAST = {
    "vit": ("layers.1.", "layernorm."),
    "dinov2": ("encoder.layer.1.", "layernorm."),
    "dinov3_vit": ("layer.1.", "model.layer.1.", "norm."),
    "siglip": ("encoder.layers.1.", "post_layernorm.", "head."),
    "clip": ("encoder.layers.1.", "post_layernorm."),
    "swin": ("encoder.layers.1.blocks.0.", "layernorm."),
    "convnext": ("encoder.stages.1.layers.0.", "layernorm."),
    "resnet": ("encoder.stages.1.",),
}


def trained(module: torch.nn.Module) -> set[str]:
    return {name for name, one in module.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("kind", LAST)
def test_what_is_below_the_last_block_is_frozen(kind: str) -> None:
    model = EgmaModel(config_of(kind))
    said = freeze_lower(model, 1)
    names = {name for name, _ in model.vision_model.named_parameters()}
    found = trained(model.vision_model)
    assert found == {name for name in names if name.startswith(LAST[kind])} and found < names
    words = trained(model.text_model)
    assert words and all(name.startswith(("encoder.layer.1.", "pooler.")) for name in words)
    assert model.visual_projection.weight.requires_grad and model.logit_scale.requires_grad
    count = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert said == [f"the last 1 blocks of each encoder and what follows are trained: {count:,} parameters"]


def test_none_freezes_nothing_and_too_many_are_refused() -> None:
    model = EgmaModel(config_of("clip", CLIP_TEXT))
    assert freeze_lower(model, None) == [] and len(trained(model)) == len(list(model.parameters()))
    with pytest.raises(UserError, match="trained_blocks is 3, expected at most the vision encoder's 2"):
        freeze_lower(model, 3)


@pytest.mark.parametrize("kind", VISION)
def test_every_encoder_has_blocks(kind: str) -> None:
    assert len(blocks_of(EgmaModel(config_of(kind)).vision_model)) >= 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_whole_model(checkpointing: bool) -> None:
    """Also where activations are recomputed, though nothing that enters the encoder has a gradient."""
    config: Any = EgmaConfig(**config_of("vit", BERT).to_dict())
    torch.manual_seed(0)
    whole = EgmaModel(config)
    part = EgmaModel(config)
    part.load_state_dict(whole.state_dict())
    freeze_lower(part, 1)
    if checkpointing:
        part.gradient_checkpointing_enable()
    pixels, ids, rows = torch.randn(2, 3, 64, 64), torch.randint(3, 50, (3, 7)), torch.tensor([0, 0, 1])
    for model in (whole, part):
        model.train()
        torch.manual_seed(1)
        model(pixels, ids, sentence_to_image=rows).loss.backward()
    expected = dict(whole.named_parameters())
    for name, parameter in part.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6)
