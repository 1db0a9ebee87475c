"""Patch tokens come after the backbone's final layer norm, whatever the backbone calls its last hidden state."""

import pytest
import torch
from transformers import AutoModel

from modeling_egma import EgmaForImageClassification, EgmaModel, EgmaVisionModel

from .tower_configs import VISION, config_of

NORMED = [name for name, (_, _, norm) in VISION.items() if norm is not None]
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def constant(norm: torch.nn.Module) -> None:
    """What the norm puts out says nothing of its input any more."""
    for parameter in norm.parameters():
        torch.nn.init.zeros_(parameter)


@pytest.mark.parametrize("kind", NORMED)
def test_nothing_of_a_patch_passes_by_the_final_norm(kind: str) -> None:
    model = EgmaModel(config_of(kind)).eval()
    grid = model.config.grid_size
    before = model.get_image_features(PIXELS).last_hidden_state
    assert before.shape == (2, grid**2, 16) and before.std(dim=1).max() > 1e-3
    constant(model.vision_model.get_submodule(VISION[kind][2]))
    assert not model.get_image_features(PIXELS).last_hidden_state.any()


@pytest.mark.parametrize("kind", ["convnext", "beit of means", "clip", "vit"])
def test_a_final_norm_acts_once(kind: str) -> None:
    """A second time would undo its own scale: twice the scale, twice the tokens."""
    model = EgmaModel(config_of(kind)).eval()
    before = model.get_image_features(PIXELS).last_hidden_state
    norm = model.vision_model.get_submodule(VISION[kind][2])
    with torch.no_grad():
        norm.weight.mul_(2)
    assert torch.allclose(model.get_image_features(PIXELS).last_hidden_state, 2 * before, atol=1e-5)


@pytest.mark.parametrize("kind", ["convnext", "beit of means", "data2vec of means", "clip"])
def test_the_final_norm_comes_with_a_pretrained_tower_and_into_every_half(tmp_path, kind: str) -> None:
    config = config_of(kind)
    start = EgmaModel(config)
    norm = VISION[kind][2]
    torch.nn.init.uniform_(start.vision_model.get_submodule(norm).weight)
    start.vision_model.save_pretrained(tmp_path / "vision")
    start.text_model.save_pretrained(tmp_path / "text")
    model = EgmaModel.from_vision_text_pretrained(str(tmp_path / "vision"), str(tmp_path / "text"), projection_dim=8)
    assert torch.equal(model.vision_model.get_submodule(norm).weight, start.vision_model.get_submodule(norm).weight)
    model.save_pretrained(tmp_path / "both")
    tokens = model.get_image_features(PIXELS).last_hidden_state
    half = EgmaVisionModel.from_pretrained(tmp_path / "both")
    assert torch.equal(half(PIXELS).last_hidden_state, tokens)
    classifier = EgmaForImageClassification.from_pretrained(tmp_path / "both", num_labels=3)
    expected = classifier.classifier(tokens.mean(dim=1))
    assert torch.allclose(classifier(PIXELS).logits, expected, atol=1e-6)
    assert torch.equal(
        AutoModel.from_pretrained(tmp_path / "both").get_image_features(PIXELS).last_hidden_state, tokens
    )
