"""Whole models of CLIP's and SigLIP's kin: their towers by themselves, and models that start as they are."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, BertConfig, BertModel

from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor, EgmaTextModel, EgmaVisionModel
from modeling_egma.towers_egma import patch_tokens

from .test_loading_egma import BLOCKER
from .whole_models import SQUARE, WHOLE, save_whole, tokenizer_of

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SENTENCES = ["lungs are clear", "no pleural effusion pneumothorax is seen the heart size normal .", "clear"]


def naflex(pixels: Tensor) -> dict[str, Tensor]:
    """Pictures as a NaFlex SigLIP 2 takes them: (B, patches, row x column x channel)."""
    cells = pixels.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, rows, columns, 8, 8)
    count = SQUARE["num_patches"]
    return {
        "pixel_values": cells.permute(0, 2, 3, 4, 5, 1).reshape(len(pixels), count, -1),
        "pixel_attention_mask": torch.ones(len(pixels), count),
        "spatial_shapes": torch.tensor([[4, 4]] * len(pixels)),
    }


def pictures(kind: str) -> dict[str, Tensor]:
    return naflex(PIXELS) if kind == "siglip2" else {"pixel_values": PIXELS}


def started(folder: Path, kind: str, **fields: Any) -> tuple[Any, EgmaModel, EgmaProcessor]:
    """The source, the model that starts from it, and its processor."""
    source = save_whole(folder / "whole", kind)
    model = EgmaModel.from_whole_pretrained(str(folder / "whole"), **fields)
    model.config.text_config.pad_token_id = 0
    return source, model, EgmaProcessor.for_model(model.config, tokenizer_of(kind))


def own_scores(source: Any, kind: str) -> Tensor:
    """As the source's own card says: SigLIP filled up without a mask, CLIP with one."""
    if kind.startswith("siglip"):
        text = tokenizer_of(kind)(SENTENCES, padding="max_length", max_length=24, return_tensors="pt")
        return source(input_ids=text["input_ids"], **pictures(kind)).logits_per_image
    text = tokenizer_of(kind)(SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False)
    return source(**text, **pictures(kind)).logits_per_image


@pytest.mark.parametrize("kind", WHOLE)
@torch.no_grad()
def test_towers_of_a_whole_model_are_its_own(tmp_path: Path, kind: str) -> None:
    """A NaFlex SigLIP 2 sees a square of its number of patches."""
    source = save_whole(tmp_path / "whole", kind)
    model = EgmaModel.from_vision_text_pretrained(str(tmp_path / "whole"), str(tmp_path / "whole"), projection_dim=8)
    assert model.config.grid_size == 4 and model.config.image_side == 32
    if kind == "siglip2":
        expected = source.vision_model(**naflex(PIXELS)).last_hidden_state
    else:
        expected, _ = patch_tokens(source.vision_model, PIXELS)
    torch.testing.assert_close(model.get_image_features(PIXELS).last_hidden_state, expected, rtol=0, atol=1e-5)
    ids = torch.tensor([[5, 6, 7, 2], [5, 6, 8, 2]])
    states = source.text_model(input_ids=ids, output_hidden_states=True).hidden_states
    found = model.get_text_features(ids).last_hidden_state
    torch.testing.assert_close(found, torch.stack(states[1:]).mean(dim=0), rtol=0, atol=1e-5)


def test_a_tower_may_come_from_a_whole_egma(tmp_path: Path, tiny_model: EgmaModel) -> None:
    tiny_model.save_pretrained(tmp_path / "egma")
    model = EgmaModel.from_vision_text_pretrained(str(tmp_path / "egma"), str(tmp_path / "egma"))
    for name in ("vision_model", "text_model"):
        own = getattr(tiny_model, name).state_dict()
        assert all(torch.equal(value, own[key]) for key, value in getattr(model, name).state_dict().items())


# --- starting from the whole


@pytest.mark.parametrize("kind", WHOLE)
@torch.no_grad()
def test_before_the_first_step_scores_are_the_sources(tmp_path: Path, kind: str, record_difference: Any) -> None:
    source, model, processor = started(tmp_path, kind)
    inputs = processor(text=SENTENCES)
    expected = own_scores(source, kind)
    found = model(pixel_values=PIXELS, **inputs)
    scale, bias = source.logit_scale.exp(), getattr(source, "logit_bias", torch.zeros(()))
    cosines = found.image_embeds @ found.text_embeds.T
    record_difference("cosines of a start and its source", float((cosines - (expected - bias) / scale).abs().max()))
    assert cosines.std(dim=1).min() > 1e-3
    torch.testing.assert_close(cosines, (expected - bias) / scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logits_per_image, expected, rtol=1e-5, atol=1e-5 * float(scale))
    # whatever stands beside it
    alone = model(pixel_values=PIXELS, **processor(text=SENTENCES[:1])).logits_per_image
    torch.testing.assert_close(alone, expected[:, :1], rtol=1e-5, atol=1e-5 * float(scale))
    assert model.encode_text(torch.zeros(0, 5, dtype=torch.long)).shape == (0, model.config.projection_dim)


@pytest.mark.parametrize("kind", WHOLE)
@torch.no_grad()
def test_patches_go_through_the_sources_own_projection(tmp_path: Path, kind: str) -> None:
    source, model, _ = started(tmp_path, kind)
    tokens = source.vision_model(**pictures(kind)).last_hidden_state
    if kind.startswith("siglip"):
        head, weights = source.vision_model.head, source.vision_model.head.attention
        values = tokens @ weights.in_proj_weight[-16:].T + weights.in_proj_bias[-16:]
        found = weights.out_proj(values)
        expected = found + head.mlp(head.layernorm(found))
    else:
        every = source.visual_projection(source.vision_model.post_layernorm(tokens))
        torch.testing.assert_close(every[:, 0], source.get_image_features(pixel_values=PIXELS).pooler_output)
        expected = every[:, 1:]
    torch.testing.assert_close(model.encode_images(PIXELS)[1], normalize(expected, dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
@torch.no_grad()
def test_a_start_is_saved_and_loaded_with_and_without_the_package(tmp_path: Path, kind: str) -> None:
    _, model, processor = started(tmp_path, kind)
    model.save_pretrained(tmp_path / "egma")
    inputs = processor(text=SENTENCES)
    expected = model(pixel_values=PIXELS, **inputs)
    again = AutoModel.from_pretrained(tmp_path / "egma")
    assert again.config.pooling == "tower" and again.config.logit_bias == pytest.approx(model.config.logit_bias)
    assert torch.equal(again(pixel_values=PIXELS, **inputs).logits_per_image, expected.logits_per_image)
    vision, text = (half.from_pretrained(tmp_path / "egma") for half in (EgmaVisionModel, EgmaTextModel))
    torch.testing.assert_close(normalize(vision(PIXELS).pooler_output, dim=-1), expected.image_embeds)
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(normalize(text(**ids).pooler_output, dim=-1), expected.text_embeds)
    torch.save({"pixel_values": PIXELS, **inputs}, tmp_path / "inputs.pt")
    remote = """
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
torch.save(model(**torch.load(sys.argv[2])).logits_per_image.detach(), sys.argv[3])
"""
    code = BLOCKER + "import sys, torch\nfrom transformers import AutoModel\n" + remote
    places = [str(tmp_path / name) for name in ("egma", "inputs.pt", "found.pt")]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *places], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), expected.logits_per_image)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_start_learns_by_our_objective(tmp_path: Path, kind: str) -> None:
    _, model, processor = started(tmp_path, kind, interaction="cabs")
    inputs = processor(text=SENTENCES)
    rows, mask = torch.tensor([0, 0, 1]), torch.tensor([True, False])
    output = model(PIXELS, **inputs, sentence_to_image=rows, gaze_heatmaps=torch.rand(3, 4, 4), gaze_mask=mask)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.isfinite(output.loss) and model.logit_scale.grad.abs() > 0


def test_the_scale_is_capped_where_the_source_stood(tmp_path: Path) -> None:
    _, model, _ = started(tmp_path, "siglip")
    assert float(model._scale()) == pytest.approx(float(torch.tensor(4.8).exp()), rel=1e-6)
    with torch.no_grad():
        model.logit_scale.fill_(6)
    assert float(model._scale()) == pytest.approx(float(torch.tensor(4.8).exp()), rel=1e-6)
    assert float(EgmaModel(EgmaConfig(**SMALL, logit_scale_init_value=4)).eval()._scale()) < 100


TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL: dict[str, Any] = {
    "vision_config": {"model_type": "vit", **TINY, "image_size": 32, "patch_size": 8},
    "text_config": {"model_type": "bert", **TINY, "vocab_size": 64},
}


def test_what_has_no_pooling_of_its_own_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(StrictDataclassError, match="pooling 'tower' is 'vit', expected clip_vision_model or"):
        EgmaConfig(**SMALL, pooling="tower")
    BertModel(BertConfig(**SMALL["text_config"])).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="a 'bert'; expected a whole model of type clip, siglip, siglip2"):
        EgmaModel.from_whole_pretrained(str(tmp_path / "bert"))
    _, model, _ = started(tmp_path, "siglip2 of one size")
    model.config.text_config.pad_token_id = 1
    with pytest.raises(ValueError, match="the tokenizer pads with 0, expected 1"):
        EgmaProcessor.for_model(model.config, tokenizer_of("siglip"))
