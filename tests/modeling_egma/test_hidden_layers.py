"""Patch tokens of earlier layers, added to those of the last one."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, ViTConfig

from modeling_egma import EgmaConfig, EgmaForImageClassification, EgmaModel, EgmaVisionModel
from modeling_egma.towers_egma import check_patches, patch_tokens

from .tower_configs import BERT, PLAIN, VISION

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
FLAT = [name for name, (_, own, _) in VISION.items() if "depths" not in own]


def deep(kind: str, **fields):
    model_type, own, norm = VISION[kind]
    vision = {"model_type": model_type, **own, "num_hidden_layers": 4}
    torch.manual_seed(0)
    model = EgmaModel(EgmaConfig(vision_config=vision, text_config=BERT, projection_dim=8, **fields)).eval()
    torch.nn.init.uniform_(model.vision_model.get_submodule(norm).weight)
    return model


def blocks(tower):
    """The four layers, whatever the backbone calls them."""
    found = [one for one in tower.modules() if isinstance(one, torch.nn.ModuleList) and len(one) == 4]
    assert len(found) == 1
    return list(found[0])


def naive_directions(model, pixels, layers):
    """Hooks on the layers themselves; each layer's output through the norm, the sum of the patches, its direction."""
    seen, tower = {}, model.vision_model
    norm = tower.get_submodule(VISION[model.kind][2])
    hooks = []
    for number, block in enumerate(blocks(tower), start=1):
        hooks.append(block.register_forward_hook(lambda _, __, out, n=number: seen.__setitem__(n, out)))
    tower(pixels)
    for hook in hooks:
        hook.remove()
    total = 0
    for number in [*layers, 4]:
        out = seen[number] if isinstance(seen[number], torch.Tensor) else seen[number][0]
        total = total + norm(out)[:, -(4 * 4) :]
    return torch.nn.functional.normalize(total, dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("kind", FLAT)
def test_layers_are_added_after_the_final_norm(kind: str) -> None:
    model = deep(kind, hidden_layers=[1, 3])
    model.kind = kind
    features = model.get_image_features(PIXELS)
    found = torch.nn.functional.normalize(features.last_hidden_state, dim=-1)
    assert torch.allclose(found, naive_directions(model, PIXELS, [1, 3]), atol=1e-5)
    assert features.hidden_states is None
    last, _ = patch_tokens(model.vision_model, PIXELS)
    assert not torch.allclose(features.last_hidden_state, last, atol=1e-3)
    check_patches(model)


def test_every_half_and_a_stored_model_have_them(tmp_path) -> None:
    model = deep("dinov2", hidden_layers=[2])
    model.save_pretrained(tmp_path)
    tokens = model.get_image_features(PIXELS).last_hidden_state
    assert EgmaModel.from_pretrained(tmp_path).config.hidden_layers == [2]
    assert torch.equal(EgmaVisionModel.from_pretrained(tmp_path)(PIXELS).last_hidden_state, tokens)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).get_image_features(PIXELS).last_hidden_state, tokens)
    classifier = EgmaForImageClassification.from_pretrained(tmp_path, num_labels=3).eval()
    assert torch.allclose(classifier(PIXELS).logits, classifier.classifier(tokens.mean(dim=1)), atol=1e-6)
    asked = model.get_image_features(PIXELS, output_hidden_states=True)
    assert len(asked.hidden_states) == 5 and torch.equal(asked.last_hidden_state, tokens)


def test_they_come_with_pretrained_towers_and_larger_frames(tmp_path) -> None:
    start = deep("vit")
    start.vision_model.save_pretrained(tmp_path / "vision")
    start.text_model.save_pretrained(tmp_path / "text")
    places = str(tmp_path / "vision"), str(tmp_path / "text")
    model = EgmaModel.from_vision_text_pretrained(*places, projection_dim=8, hidden_layers=[1, 2])
    maps = model.get_similarity_map(PIXELS, torch.tensor([[2, 7]]), image_size=128)
    assert maps.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("layers", [[], [0], [4], [1, 1], [-1]])
def test_a_layer_that_is_none_is_refused(layers) -> None:
    with pytest.raises(StrictDataclassError, match=r"hidden_layers is .*expected layers from 1 to 3, each once"):
        EgmaConfig(vision_config=ViTConfig(**PLAIN | {"num_hidden_layers": 4}), hidden_layers=layers)


def test_stages_are_refused(tiny_swin) -> None:
    with pytest.raises(StrictDataclassError, match="the stages of this vision backbone have grids of their own"):
        EgmaConfig(vision_config=tiny_swin, hidden_layers=[1])


@pytest.mark.parametrize("fault", ["grid", "norm"])
def test_a_backbone_whose_layers_do_not_fit_is_refused(fault: str) -> None:
    model = deep("vit", hidden_layers=[1])
    whole, tower = model.vision_model.forward, model.vision_model
    norm = tower.layernorm

    def forward(pixel_values, **kwargs):
        tower.layernorm = norm
        output = whole(pixel_values, **kwargs)
        if fault == "grid":
            output.hidden_states = tuple(state[:, ::2] for state in output.hidden_states)
        else:
            del tower.layernorm
        return output

    tower.forward = forward
    with pytest.raises(ValueError, match=r"hidden_layers of a 'vit': tokens of \(\d+, 16\), expected \(\d+, 16\) as"):
        check_patches(model)
