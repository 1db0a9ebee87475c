"""Checkpoints with the original names, made from plain transformers modules, converted and run side by side."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
)

from dataset_scripts.schema import UserError
from egma.hub.convert import AUTHORS_EGMA, MEDCLIP, convert, main, processor_of
from modeling_egma import EgmaConfig, EgmaModel

HEADS, DIM = 2, 24


def bert(layers: int = 4) -> BertModel:
    return BertModel(
        BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=layers, num_attention_heads=HEADS, intermediate_size=32,
            max_position_embeddings=40,
        )
    ).eval()  # fmt: skip


def swin() -> SwinModel:
    return SwinModel(
        SwinConfig(image_size=224, embed_dim=8, depths=[1, 2, 1], num_heads=[1, 2, 2], window_size=7)
    ).eval()


def on_disk(model: Any, folder: Path) -> dict[str, Tensor]:
    """Names as published files have them."""
    from safetensors.torch import load_file

    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def torchvision_name(name: str) -> str:
    """The other way round, written on its own."""
    parts = name.split(".")
    kind = {"convolution": "conv", "normalization": "bn"}
    if parts[0] == "embedder":
        return f"{kind[parts[2]]}1.{parts[3]}"
    block = f"layer{int(parts[2]) + 1}.{parts[4]}"
    if parts[5] == "shortcut":
        return f"{block}.downsample.{0 if parts[6] == 'convolution' else 1}.{parts[7]}"
    return f"{block}.{kind[parts[7]]}{int(parts[6]) + 1}.{parts[8]}"


@pytest.fixture(params=["swin", "authors", "resnet", "resnet with fc"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, nn.Module, BertModel, dict[str, Tensor]]:
    torch.manual_seed(4)
    text = bert()
    heads = {"text_model.projection_head.weight": torch.randn(DIM, 16), "logit_scale": torch.tensor([2.5])}
    if request.param in ("swin", "authors"):
        vision: Any = swin()
        tensors = {f"vision_model.model.{name}": value for name, value in on_disk(vision, tmp_path / "swin").items()}
        heads["vision_model.projection_head.weight"] = torch.randn(DIM, 32)
        tensors["vision_model.model.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(
            49, 49
        )
    else:
        vision = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2])).eval()
        for module in vision.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
        tensors = {f"vision_model.model.{torchvision_name(name)}": value for name, value in vision.state_dict().items()}
        projection = "vision_model.model.fc.weight" if "fc" in request.param else "vision_model.projection_head.weight"
        heads[projection] = torch.randn(DIM, 32)
    tensors |= {f"text_model.model.{name}": value for name, value in on_disk(text, tmp_path / "bert").items()}
    tensors["text_model.model.embeddings.position_ids"] = torch.arange(40)[None]
    if request.param == "authors":
        tensors["word_local_atten_layer.weight"] = torch.zeros(3)
        tensors |= {f"vision_model.projection_head{stage}.weight": torch.zeros(DIM, 16) for stage in (1, 2)}
    tensors |= heads
    path = tmp_path / f"{request.param.split()[0]}.bin"
    torch.save({name: value.clone() for name, value in tensors.items()}, path)
    return path, vision, text, heads


def test_forward_is_that_of_the_plain_towers(published: Any, record_difference: Any) -> None:
    path, vision, text, heads = published
    model, layout, dropped = convert(path, text_heads=HEADS)
    pixels, ids = torch.randn(2, 3, 224, 224), torch.randint(1, 60, (2, 7))
    with torch.no_grad():
        pooled = vision(pixels).pooler_output.flatten(1)
        projection = next(value for name, value in heads.items() if name.startswith("vision_model"))
        expected = pooled @ projection.T
        found = model.get_image_features(pixels).pooler_output
        states = text(ids, output_hidden_states=True).hidden_states
        averaged = states[-4:] if path.stem == "authors" else (states[1], states[2], states[-1])
        words = torch.stack(tuple(averaged)).mean(dim=0).mean(dim=1)
        expected_text = words @ heads["text_model.projection_head.weight"].T
        found_text = model.get_text_features(ids, torch.ones_like(ids)).pooler_output
    for name, one, other in (("image", found, expected), ("text", found_text, expected_text)):
        difference = float((one - other).abs().max() / other.abs().max())
        record_difference(f"converted {name} tower to the plain one", difference)
        assert difference < 1e-6
    assert float(model.logit_scale.detach()) == 2.5
    assert layout is (AUTHORS_EGMA if path.stem == "authors" else MEDCLIP)
    names = [name for of_rule in dropped.values() for name in of_rule]
    assert "text_model.model.embeddings.position_ids" in names
    only_theirs = {"word_local_atten_layer.weight", "vision_model.projection_head1.weight"}
    assert only_theirs <= set(names) if path.stem == "authors" else not only_theirs & set(names)


def as_published(image: Image.Image, resample: Image.Resampling) -> np.ndarray:
    """Their preprocessing, written on its own: grey, black square, 224 pixels, one mean and deviation."""
    side = max(224, *image.size)
    square = Image.new("L", (side, side), 0)
    square.paste(image, (int((side - image.width) / 2), int((side - image.height) / 2)))
    grey = np.asarray(square.resize((224, 224), resample)) / 255
    return np.stack([(grey - 0.5862785803043838) / 0.27950088968644304] * 3)


@pytest.mark.parametrize("size", [(300, 421), (640, 511), (224, 224), (1000, 230)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_those_that_the_weights_were_trained_with(
    published: Any, tmp_path: Path, tokenizer: Any, size: tuple[int, int], mode: str
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    arguments = [str(published[0]), "--output", str(tmp_path / "out"), "--text-heads", str(HEADS)]
    assert main([*arguments, "--tokenizer", str(tmp_path / "tokenizer")]) == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    theirs = Image.Resampling.BILINEAR if published[0].stem == "authors" else Image.Resampling.BICUBIC
    pixels = processor(images=[image.convert(mode)])["pixel_values"][0].numpy()
    assert np.abs(pixels - as_published(image, theirs)).max() < 1e-5


@pytest.mark.parametrize("stated", [10**30, 512, 20])
def test_sentences_end_where_the_weights_were_trained_to(stated: int, tokenizer: Any) -> None:
    config = EgmaConfig(text_config=BertConfig(vocab_size=64))
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = stated
    assert processor_of(MEDCLIP, config, tokenizer).max_length == min(77, stated)
    with pytest.raises(UserError, match="the text encoder knows 9 entries"):
        processor_of(MEDCLIP, EgmaConfig(text_config=BertConfig(vocab_size=9)), tokenizer)


def test_program_writes_a_folder_that_loads(published: Any, tmp_path: Path, tokenizer: Any, capsys: Any) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    arguments = [str(published[0]), "--output", str(tmp_path / "out"), "--text-heads", str(HEADS)]
    assert main([*arguments, "--tokenizer", str(tmp_path / "tokenizer")]) == 0
    said = capsys.readouterr().out
    assert "dropped: 2 tensors, the text encoder's unused pooler" in said and "parameters in" in said
    assert ("layout of the authors' EGMA" if published[0].stem == "authors" else "layout of MedCLIP") in said
    assert isinstance(AutoModel.from_pretrained(tmp_path / "out"), EgmaModel)
    assert main([*arguments, "--tokenizer", str(tmp_path / "tokenizer")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_every_key_is_used_dropped_or_an_error(published: Any, tmp_path: Path) -> None:
    tensors, one = torch.load(published[0], weights_only=True), torch.ones(DIM, 32)
    for change, message in (
        (
            lambda t: t.update({"decoder.weight": torch.zeros(1)}),
            r"unknown or repeated keys decoder\.weight \(1 in all\); expected vision",
        ),
        (
            lambda t: t.update({"vision_model.projection_head.weight": 0 * one, "vision_model.model.fc.weight": one}),
            r"repeated keys vision_model\.(model\.fc|projection_head)\.weight \(1 in all\)",
        ),
        (lambda t: t.pop("logit_scale"), "nothing for logit_scale"),
        (lambda t: t.pop("text_model.model.encoder.layer.1.output.dense.weight"), "they lack 1 tensors"),
        (lambda t: t.update({"text_model.model.extra.weight": torch.zeros(1)}), "they hold unknown 1 tensors"),
    ):
        changed = dict(tensors)
        change(changed)
        torch.save(changed, tmp_path / "changed.bin")
        with pytest.raises(UserError, match=message):
            convert(tmp_path / "changed.bin", text_heads=HEADS)


def test_the_wrong_checkpoint_and_a_pickle_with_code_are_refused(tmp_path: Path) -> None:
    torch.save(bert(1).state_dict(), tmp_path / "bert.bin")
    with pytest.raises(UserError, match=re.escape("expected vision_model.model.* of a Swin or a ResNet")):
        convert(tmp_path / "bert.bin")
    trap = tmp_path / "sprung"
    (tmp_path / "evil.bin").write_bytes(f"cos\nsystem\n(S'touch {trap}'\ntR.".encode())
    with pytest.raises(UserError, match="without running code"):
        convert(tmp_path / "evil.bin")
    assert not trap.exists()
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(UserError, match="found list"):
        convert(tmp_path / "list.bin")
