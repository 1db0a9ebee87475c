"""Low-rank adapters: beside which layers, merged as peft does, trained and resumed by the program."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel

from dataset_scripts.schema import UserError
from egma.inference.models import load_whole_model
from egma.programs import train as train_egma
from egma.training.adapters import add_adapters, merged
from egma.training.frozen import freeze_unreached
from modeling_egma import EgmaModel
from tests.egma.programs.test_train import TINY
from tests.modeling_egma.tower_configs import CLIP_TEXT, config_of

PIXELS, IDS = torch.randn(2, 3, 64, 64), torch.tensor([[2, 9, 11, 3], [2, 7, 3, 0]])
LINEAR = ("vit", "beit of means", "dinov2", "dinov3_vit", "siglip", "clip", "swin", "swinv2", "convnextv2")


def learned(model: EgmaModel) -> None:
    """Adapters that are not 0 any more."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)


@torch.no_grad()
@pytest.mark.parametrize("kind", LINEAR)
def test_a_model_without_adapters_says_what_the_one_with_them_did(kind: str) -> None:
    model = EgmaModel(config_of(kind)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = model.encode_images(PIXELS)[1], model.encode_text(IDS)
    said = add_adapters(model, 2)
    assert "adapters of rank 2 beside" in said[0]
    assert torch.equal(model.encode_images(PIXELS)[1], start[0]) and torch.equal(model.encode_text(IDS), start[1])
    learned(model)
    expected = model.encode_images(PIXELS)[1], model.encode_text(IDS)
    assert not torch.allclose(expected[0], start[0], atol=1e-3) and not torch.allclose(expected[1], start[1], atol=1e-3)
    plain = EgmaModel(config_of(kind)).eval()
    plain.load_state_dict(merged(model.state_dict()))
    torch.testing.assert_close(plain.encode_images(PIXELS)[1], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.encode_text(IDS), expected[1], rtol=1e-4, atol=1e-5)
    unchanged = merged(before)
    assert unchanged.keys() == before.keys() and all(unchanged[name] is before[name] for name in before)


def test_merging_is_pefts_own() -> None:
    tower = EgmaModel(config_of("vit")).vision_model
    adapted: Any = get_peft_model(tower, LoraConfig(r=3, lora_alpha=3, target_modules="all-linear"))
    learned(adapted)
    weights = {name.removeprefix("base_model.model."): value for name, value in adapted.state_dict().items()}
    found = {name: value.clone() for name, value in merged(weights).items()}  # peft merges in place
    expected = adapted.merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_adapters_projections_and_the_scale_are_trained_and_nothing_else() -> None:
    model = EgmaModel(config_of("clip", CLIP_TEXT))
    add_adapters(model, 2)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    own = {"visual_projection.weight", "text_projection.weight", "logit_scale"}
    assert own < trained and all("lora_" in name for name in trained - own)
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in trained - own}
    assert layers == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert freeze_unreached(model, 64, 64) == []


def test_without_a_rank_nothing_is_wrapped() -> None:
    model = EgmaModel(config_of("vit"))
    names = list(model.state_dict())
    assert add_adapters(model, None) == [] and list(model.state_dict()) == names
    assert all(one.requires_grad for one in model.parameters())


def test_what_cannot_be_adapted_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"lora_rank: the vision encoder \('resnet'\) has no linear layer in its"):
        add_adapters(EgmaModel(config_of("resnet")), 2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"lora_rank needs peft: pip install 'egma\[lora\]' brings it"):
        add_adapters(EgmaModel(config_of("vit")), 2)


@pytest.fixture
def arguments(phantom_data: Path, tmp_path: Path) -> list[str]:
    preset = tmp_path / "tiny.yaml"
    fields = {"max_steps": 6, "evaluation_steps": 3, "heat_map_cases": 0, "report_to": "none", "ema_decay": 0.6}
    fields |= {"warmup_fraction": 0.0, "learning_rate": 0.01, "lora_rank": 4, "micro_batch_size": 3}
    preset.write_text(yaml.safe_dump(TINY | fields | {"learning_rate_schedule": "constant_with_warmup"}))
    return ["--config", str(preset), "--data", str(phantom_data)]


def test_a_run_with_adapters_goes_on_bit_for_bit_and_leaves_none(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train_egma.main([*arguments, "--output_dir", str(whole)]) == 0
    assert train_egma.main([*arguments, "--output_dir", str(cut), "--max_steps", "3"]) == 0
    resumed = [*arguments, "--output_dir", str(cut), "--resume", "auto", "--extend"]
    capsys.readouterr()
    assert train_egma.main([*resumed, "--lora_rank", "5"]) == 2
    assert "lora_rank was 4 there and is 5 now" in capsys.readouterr().err
    assert train_egma.main(resumed) == 0
    for name in ("checkpoint-6/model.safetensors", "checkpoint-6/optimizer.safetensors", "model.safetensors"):
        expected, found = load_file(whole / name), load_file(cut / name)
        assert expected.keys() == found.keys() and all(torch.equal(expected[one], found[one]) for one in expected)
    for module in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, module, None)
    model, _ = load_whole_model(whole)
    assert not any("lora" in name or "base_layer" in name for name in model.state_dict())
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in AutoModel.from_pretrained(whole).state_dict().items())
    frozen = "text_model.embeddings.word_embeddings.weight"
    start = load_file(whole / "checkpoint-3" / "model.safetensors")
    assert torch.equal(model.state_dict()[frozen], start[frozen])
    layer = "text_model.encoder.layer.0.attention.self.query.weight"
    moved = model.state_dict()[layer] - start[layer.replace(".weight", ".base_layer.weight")]
    assert moved.abs().max() > 1e-3 and torch.linalg.matrix_rank(moved, rtol=1e-4) <= 4


def test_the_dry_run_counts_what_is_trained(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [*arguments, "--output_dir", str(tmp_path / "run")]
    assert train_egma.main([*places, "--dry_run", "True"]) == 0
    said = capsys.readouterr().out
    assert "adapters of rank 4 beside" in said
    trained = [int(line.split()[-4].replace(",", "")) for line in said.splitlines() if line.endswith("of them trained")]
    assert len(trained) == 3 and 0 < trained[0] + trained[1] < trained[2]
    assert train_egma.main([*places, "--trained_blocks", "1"]) == 2
    assert "lora_rank leaves the encoders as they are, trained_blocks trains them" in capsys.readouterr().err
