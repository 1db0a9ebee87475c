"""Whole models of CLIP's and SigLIP's kin: their towers by themselves."""

from pathlib import Path

import pytest
import torch

from modeling_egma import EgmaModel
from modeling_egma.towers_egma import patch_tokens

from .whole_models import WHOLE, save_whole

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", WHOLE)
@torch.no_grad()
def test_towers_of_a_whole_model_are_its_own(tmp_path: Path, kind: str) -> None:
    """A NaFlex SigLIP 2 sees a square of its number of patches; its processor says which pixels are a patch."""
    source = save_whole(tmp_path / "whole", kind)
    model = EgmaModel.from_vision_text_pretrained(str(tmp_path / "whole"), str(tmp_path / "whole"), projection_dim=8)
    assert model.config.grid_size == 4 and model.config.image_side == 32
    if kind == "siglip2":
        cells = PIXELS.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, rows, columns, 8, 8)
        naflex = cells.permute(0, 2, 3, 4, 5, 1).reshape(2, 16, -1)
        sizes = {"pixel_attention_mask": torch.ones(2, 16), "spatial_shapes": torch.tensor([[4, 4], [4, 4]])}
        expected = source.vision_model(pixel_values=naflex, **sizes).last_hidden_state
    else:
        expected, _ = patch_tokens(source.vision_model, PIXELS)
    torch.testing.assert_close(model.get_image_features(PIXELS).last_hidden_state, expected, rtol=0, atol=1e-5)
    ids = torch.tensor([[5, 6, 7, 2], [5, 6, 8, 2]])
    states = source.text_model(input_ids=ids, output_hidden_states=True).hidden_states
    found = model.get_text_features(ids).last_hidden_state
    torch.testing.assert_close(found, torch.stack(states[1:]).mean(dim=0), rtol=0, atol=1e-5)


def test_a_tower_may_come_from_a_whole_egma(tmp_path: Path, tiny_model: EgmaModel) -> None:
    tiny_model.save_pretrained(tmp_path / "egma")
    model = EgmaModel.from_vision_text_pretrained(str(tmp_path / "egma"), str(tmp_path / "egma"), vision_stage=2)
    assert model.config.grid_size == 14
    own = tiny_model.vision_model.state_dict()
    found = model.vision_model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in found.items() if not name.startswith("layernorm"))
