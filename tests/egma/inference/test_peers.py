"""CLIP, SigLIP and a plain vision model from tiny local folders, on the rows that EGMA is evaluated on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import normalize
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegModel,
    FlavaConfig,
    FlavaModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from dataset_scripts.schema import UserError
from egma.evaluation.evaluate import evaluate_model
from egma.inference.peers import load_peer
from modeling_egma import EgmaModel, EgmaProcessor
from tests.conftest import WORDS
from tests.egma.evaluation.fakes import PROMPTS, corpus

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


MASKED = {
    "clip": lambda: CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)),
    "clipseg": lambda: CLIPSegModel(CLIPSegConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)),
    "metaclip_2": lambda: MetaClip2Model(MetaClip2Config(text_config=TEXT, vision_config=VISION, projection_dim=12)),
    "altclip": lambda: AltCLIPModel(
        AltCLIPConfig(text_config=TEXT | {"project_dim": 16}, vision_config=VISION, projection_dim=12)
    ),
    "chinese_clip": lambda: ChineseCLIPModel(
        ChineseCLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    ),
    "dual": lambda: VisionTextDualEncoderModel(
        VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(**VISION), BertConfig(**TEXT), projection_dim=12)
    ),
}
OTHERS = {
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)),
    # a fixed size of SigLIP 2: SigLIP's type with a tokenizer that gives a mask and states no length
    "siglip_of_2": lambda: SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)),
    "naflex": lambda: Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=TOWER | {"num_patches": 4})),
    "flava": lambda: FlavaModel(
        FlavaConfig(text_config=TEXT, image_config=VISION, multimodal_config=TOWER, hidden_size=16)
    ),
    "vit": lambda: ViTModel(ViTConfig(**VISION)),
    "vit_mae": lambda: ViTMAEModel(ViTMAEConfig(**VISION)),
}
SENTENCES = ["lungs are clear", "no pleural effusion pneumothorax is seen the heart size normal .", "clear"]


def save(folder: Path, kind: str, **tokenizer_settings: Any) -> Path:
    torch.manual_seed(3)
    (MASKED | OTHERS)[kind]().save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    words = {word: place for place, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["input_ids"] if kind == "siglip" else ["input_ids", "attention_mask"]
    settings = {"model_input_names": names} | ({} if kind == "siglip_of_2" else {"model_max_length": 24})
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", **settings | tokenizer_settings
    ).save_pretrained(folder)
    return folder


@torch.no_grad()
def encoded(peer: Any, processor: Any, texts: list[str]) -> torch.Tensor:
    tokens = processor(text=texts)
    return peer.encode_text(tokens["input_ids"], tokens["attention_mask"])


@pytest.mark.parametrize("kind", [*MASKED, "siglip", "siglip_of_2"])
@torch.no_grad()
def test_embeddings_are_the_models_own_whatever_the_batch(tmp_path: Path, kind: str) -> None:
    """Beside a direct call of the library: with a mask, or filled to the trained length without one."""
    folder = save(tmp_path / kind, kind)
    peer, processor = load_peer(str(folder))
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    if kind.startswith("siglip"):
        ids = tokenizer(SENTENCES, padding="max_length", max_length=24, return_tensors="pt")["input_ids"]
        assert processor(text=["clear"])["input_ids"].shape == (1, 24)
        own = model.get_text_features(input_ids=ids).pooler_output
    else:
        own = model.get_text_features(**tokenizer(SENTENCES, padding=True, return_tensors="pt")).pooler_output
    for batch in ([0, 1, 2], [1, 0], [2], [2, 2]):
        found = encoded(peer, processor, [SENTENCES[place] for place in batch])
        torch.testing.assert_close(found, normalize(own[batch], dim=-1), rtol=0, atol=1e-5)
    image = Image.linear_gradient("L").resize((70, 50)).convert("RGB")
    pixels = AutoImageProcessor.from_pretrained(folder)(images=[image], return_tensors="pt")["pixel_values"]
    assert processor(images=[image])["pixel_values"][:, :3].equal(pixels)
    own = normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    torch.testing.assert_close(peer.encode_images(pixels)[0], own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [*MASKED, "siglip", "vit"])
@torch.no_grad()
def test_patches_go_the_models_own_way_into_the_common_space(tmp_path: Path, kind: str) -> None:
    """Of CLIP's kind as the class token goes; of SigLIP's by the pool's value and output projections and its MLP."""
    folder = save(tmp_path / kind, kind)
    peer, processor = load_peer(str(folder))
    model, image = AutoModel.from_pretrained(folder).eval(), Image.linear_gradient("L").resize((70, 50)).convert("RGB")
    padded = Image.new("RGB", (70, 70))
    padded.paste(image, (0, 10))
    # its cut would take the rim off, and the map would lie on too small a picture
    own = AutoImageProcessor.from_pretrained(folder, size={"height": 32, "width": 32}, do_center_crop=False)
    pixels = own(images=[padded], return_tensors="pt")["pixel_values"]
    pooled, patches = peer.encode_images(processor(images=[image])["pixel_values"])
    if kind in ("dual", "vit"):
        assert patches is None and pooled.shape == (1, 12 if kind == "dual" else 16)
        return
    output = model.vision_model(pixel_values=pixels)
    if kind == "siglip":
        head, weights = model.vision_model.head, model.vision_model.head.attention
        values = output.last_hidden_state @ weights.in_proj_weight[-16:].T + weights.in_proj_bias[-16:]
        found = weights.out_proj(values)
        expected = found + head.mlp(head.layernorm(found))
    else:
        every = model.visual_projection(model.vision_model.post_layernorm(output.last_hidden_state))
        torch.testing.assert_close(every[:, 0], model.get_image_features(pixel_values=pixels).pooler_output)
        expected = every[:, 1:]
    assert patches.shape == (1, 4, pooled.shape[1])
    torch.testing.assert_close(patches, normalize(expected, dim=-1), rtol=0, atol=1e-5)


def test_a_peers_map_lies_on_the_whole_picture(tmp_path: Path) -> None:
    """A tall picture, of which the model's own cut shows the middle alone: the bright patch is at its top."""
    peer, processor = load_peer(str(save(tmp_path / "clip", "clip")))
    image = Image.new("RGB", (40, 80))
    seen = processor(images=[image, *bright_corners(image)])["pixel_values"]
    with torch.no_grad():
        patches = peer.encode_images(seen)[1]
    changed = (patches[1:] - patches[:1]).abs().amax(dim=-1)
    # the padded square's corners: top left, top right, bottom left, bottom right of two by two patches
    assert changed.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert seen[1:, :3].equal(seen[:1, :3].expand(4, -1, -1, -1))


def bright_corners(image: Image.Image) -> list[Image.Image]:
    """The picture with one white corner, four times; the corners are outside of its central square."""
    found = []
    for x, y in ((0, 0), (20, 0), (0, 65), (20, 65)):
        found.append(image.copy())
        found[-1].paste((255, 255, 255), (x, y, x + 20, y + 15))
    return found


@pytest.mark.parametrize("kind", [*MASKED, "siglip_of_2"])
def test_a_long_sentence_is_cut_at_the_places_of_the_text_tower(tmp_path: Path, kind: str) -> None:
    """Also where the tokenizer states no length; RoBERTa's kind has fewer places than embeddings."""
    peer, processor = load_peer(str(save(tmp_path / kind, kind, model_max_length=10**30)))
    assert encoded(peer, processor, ["clear " * 200, "clear"]).isfinite().all()
    assert processor(text=["clear " * 200])["input_ids"].shape[1] == (23 if kind == "altclip" else 24)


def test_half_precision_in_the_file_is_computed_in_float32(tmp_path: Path) -> None:
    folder = save(tmp_path / "clip", "clip")
    whole, processor = load_peer(str(folder))
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    half, _ = load_peer(str(folder))
    assert {value.dtype for value in half.parameters()} == {torch.float32}
    difference = encoded(half, processor, SENTENCES) - encoded(whole, processor, SENTENCES)
    assert difference.abs().max() < 1e-2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("naflex", "naflex: a NaFlex model, whose images have sizes of their own; expected one of a fixed size"),
        ("flava", "flava: how a model of type 'flava' was trained to read is not known here; expected clip, clipseg"),
        ("vit_mae", "vit_mae: one image has two embeddings, alone and with another beside it"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_peer(str(save(tmp_path / kind, kind)))


def without(folder: Path, *names: str) -> Path:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(names)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_peer_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    clip = without(save(tmp_path / "clip", "clip"), "text_projection")
    with pytest.raises(
        UserError, match=r"the weights do not fill it: they lack 1 tensors, such as text_projection\.weight"
    ):
        load_peer(str(clip))
    dual = without(save(tmp_path / "dual", "dual"), "text_model.pooler")
    with pytest.raises(UserError, match=r"the weights do not fill it: they lack text_model\.pooler"):
        load_peer(str(dual))
    # a pooler that nobody trained is left out, and the mean token taken
    vit = without(save(tmp_path / "vit", "vit"), "pooler")
    peer, processor = load_peer(str(vit))
    pixels = processor(images=[Image.new("RGB", (40, 40), 90)])["pixel_values"]
    with torch.no_grad():
        mean = peer.model(pixel_values=pixels).last_hidden_state.mean(dim=1)
        assert peer.get_image_features(pixels).last_hidden_state[:, 0].equal(mean)


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
    for key in ("pointing_game", "grounding_cnr"):
        assert beside[key] is not None and beside["n"][key] == results["n"][key]
        assert beside["differences"][key]["value"] == pytest.approx(results[key] - beside[key])
    assert beside["image_dependent"]["pointing_game"]["n"] == 9
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
    with pytest.raises(UserError, match="nowhere: no such folder; expected one with a model"):
        load_peer(str(tmp_path / "nowhere"))
