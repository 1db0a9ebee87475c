"""Encoders that are filled with their own weights or refused, and what they can take."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PvtConfig,
    PvtModel,
    PvtV2Config,
    PvtV2Model,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    SwinForImageClassification,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
    XLMRobertaConfig,
)

from modeling_egma import EgmaConfig, EgmaModel
from modeling_egma.towers_egma import text_positions, text_positions_of, tower_from_config

BODY = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
VIT = ViTConfig(**BODY, image_size=32, patch_size=8)
BERT = BertConfig(**BODY, vocab_size=60, max_position_embeddings=20)


@pytest.fixture
def towers(tmp_path):
    """Folders of two whole encoders."""
    ViTModel(VIT).save_pretrained(tmp_path / "vision")
    BertModel(BERT).save_pretrained(tmp_path / "text")
    return tmp_path


def joined(folder, **fields):
    return EgmaModel.from_vision_text_pretrained(str(folder / "vision"), str(folder / "text"), **fields)


def rewrite(folder, change):
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_every_weight_of_the_checkpoints_arrives(towers):
    model = joined(towers)
    for name, tower in (("vision", ViTModel), ("text", BertModel)):
        expected = tower.from_pretrained(towers / name).state_dict()
        found = getattr(model, f"{name}_model").state_dict()
        assert found and all(torch.equal(value, expected[key]) for key, value in found.items())


@pytest.mark.parametrize("tower", ["vision", "text"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {f"module.{name}": value for name, value in t.items()}, "they lack"),
        (lambda t: {name.replace("encoder", "blocks"): value for name, value in t.items()}, "they lack"),
        (lambda t: {n: v for n, v in t.items() if ".2." not in n and ".3." not in n}, "they lack"),
        (lambda t: t | {n.replace(".3.", ".4."): v.clone() for n, v in t.items() if ".3." in n}, "they hold unknown"),
        (lambda t: {n: torch.cat([v, v]) if v.ndim == 1 and ".0." in n else v for n, v in t.items()}, "they misshape"),
    ],
    ids=["wrapped", "renamed", "half the layers", "too many layers", "misshapen"],
)
def test_weights_that_do_not_fill_their_encoder_are_refused(towers, tower, change, said):
    rewrite(towers / tower, change)
    with pytest.raises(
        ValueError, match=rf"{tower}: the weights do not fill .* encoder: .*{said} \d+ tensors, such as"
    ):
        joined(towers)


def test_another_vocabulary_size_is_refused_with_both_shapes(towers):
    BertConfig(**BODY, vocab_size=50, max_position_embeddings=20).save_pretrained(towers / "text")
    with pytest.raises(ValueError, match=r"word_embeddings.weight of \(60, 16\), expected \(50, 16\)"):
        joined(towers)


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("text", lambda: BertForMaskedLM(BERT)),
        ("text", lambda: BertModel(BERT, add_pooling_layer=False)),
        ("text", lambda: RobertaForSequenceClassification(RobertaConfig(**BODY, vocab_size=60))),
        ("vision", lambda: ViTForImageClassification(VIT)),
        ("vision", lambda: ViTModel(VIT, use_mask_token=True)),
    ],
    ids=["masked language model", "no pooler", "text classifier", "image classifier", "mask token"],
)
def test_heads_poolers_and_mask_tokens_may_be_there_or_not(towers, name, tower):
    expected = tower()
    expected.save_pretrained(towers / name)
    own = getattr(expected, expected.base_model_prefix, expected).state_dict()
    found = getattr(joined(towers), f"{name}_model").state_dict()
    assert found and all(torch.equal(value, own[key]) for key, value in found.items())


def test_buffers_of_older_checkpoints_may_be_there(towers):
    rewrite(towers / "text", lambda t: t | {"embeddings.position_ids": torch.arange(20)[None]})
    assert joined(towers).text_positions == 20


@pytest.mark.parametrize("tower", [SwinModel, SwinForImageClassification])
def test_an_earlier_stage_leaves_later_stages_out_and_nothing_else(towers, tiny_swin, tower):
    tower(tiny_swin).save_pretrained(towers / "vision")
    assert joined(towers, vision_stage=2).config.grid_size == 14
    prefix = "swin." if tower is SwinForImageClassification else ""
    rewrite(
        towers / "vision",
        lambda t: {n: v for n, v in t.items() if not n.startswith(f"{prefix}encoder.layers.1.blocks.0.attention")},
    )
    with pytest.raises(ValueError, match="they lack"):
        joined(towers, vision_stage=2)


def test_an_encoder_that_masks_at_random_is_refused(towers):
    for ratio, said in ((0.75, "gives 5 tokens .* expected 16"), (0.0, "gives other tokens at the second look")):
        ViTMAEModel(ViTMAEConfig(**BODY, image_size=32, patch_size=8, mask_ratio=ratio)).save_pretrained(
            towers / "vision"
        )
        with pytest.raises(ValueError, match=said):
            joined(towers)


@pytest.mark.parametrize("channels", [1, 2])
def test_an_encoder_of_other_pictures_than_the_processor_makes_is_refused(towers, channels):
    ViTModel(ViTConfig(**BODY, image_size=32, patch_size=8, num_channels=channels)).save_pretrained(towers / "vision")
    with pytest.raises(ValueError, match=r"does not take a picture of 3 channels and 32 x 32 px"):
        joined(towers)


def test_a_frame_that_is_not_square_is_refused(towers):
    ViTModel(ViTConfig(**BODY, image_size=[32, 48], patch_size=8)).save_pretrained(towers / "vision")
    with pytest.raises(ValueError, match=r"image_size of the vision backbone \('vit'\) is \[32, 48\]"):
        joined(towers)


def test_convolutional_encoders_take_frame_and_patch_from_their_config_or_ours(towers):
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(resnet).save_pretrained(towers / "vision")
    with pytest.raises(ValueError, match=r"image_size of the vision backbone \('resnet'\) is None"):
        print(EgmaConfig(vision_config=resnet).grid_size)
    supplied = joined(towers)
    supplied.save_pretrained(towers / "both")
    config = EgmaModel.from_pretrained(towers / "both").config
    assert (config.image_side, config.grid_size) == (supplied.config.image_side, supplied.config.grid_size) == (224, 28)
    resnet.image_size, resnet.patch_size = 64, 4
    ResNetModel(resnet).save_pretrained(towers / "vision")
    assert joined(towers).config.grid_size == 8
    resnet.patch_size = 8
    ResNetModel(resnet).save_pretrained(towers / "vision")
    with pytest.raises(ValueError, match=r"gives 64 tokens .*, expected 16"):
        joined(towers)


def test_a_pyramid_encoder_gives_its_patches_without_the_class_token(towers):
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    pvt = PvtModel(PvtConfig(image_size=64, **sizes)).eval()
    pvt.save_pretrained(towers / "vision")
    pixels = torch.randn(2, 3, 64, 64)
    tokens = joined(towers).get_image_features(pixels).last_hidden_state
    assert torch.allclose(tokens, pvt(pixels).last_hidden_state[:, 1:], atol=1e-6) and tokens.shape == (2, 4, 16)
    PvtV2Model(PvtV2Config(image_size=64, **sizes)).save_pretrained(towers / "vision")
    assert joined(towers).get_image_features(pixels).last_hidden_state.shape == (2, 4, 16)


@pytest.mark.parametrize("kind", [CLIPVisionConfig, ViTConfig])
def test_a_whole_model_is_no_encoder(tiny_bert, kind):
    with pytest.raises(ValueError, match="states no hidden_size"):
        EgmaModel(
            EgmaConfig(vision_config=EgmaConfig(vision_config=kind(), text_config=tiny_bert), text_config=tiny_bert)
        )


KINDS = {
    "bert": (BertConfig(**BODY, vocab_size=60, max_position_embeddings=20), 20),
    "distilbert": (DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, max_position_embeddings=20), 20),
    "electra": (ElectraConfig(**BODY, vocab_size=60, max_position_embeddings=20), 20),
    "roberta": (RobertaConfig(**BODY, vocab_size=60, max_position_embeddings=20), 18),
    "roberta, padding 0": (RobertaConfig(**BODY, vocab_size=60, max_position_embeddings=20, pad_token_id=0), 19),
    "xlm-roberta": (XLMRobertaConfig(**BODY, vocab_size=60, max_position_embeddings=20), 18),
    "mpnet": (MPNetConfig(**BODY, vocab_size=60, max_position_embeddings=20), 18),
    "clip": (CLIPTextConfig(**BODY, vocab_size=60, max_position_embeddings=20, eos_token_id=59), 20),
}


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_those_that_the_encoder_can_use_to_the_last(kind):
    config, expected = KINDS[kind]
    tower = tower_from_config(config).eval()
    assert text_positions(tower) == text_positions_of(config) == expected
    ids = torch.full((1, expected), 5)
    assert tower(ids, attention_mask=torch.ones_like(ids)).last_hidden_state.isfinite().all()
    ids = torch.full((1, expected + 1), 5)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        tower(ids, attention_mask=torch.ones_like(ids))


def test_positions_that_turn_are_as_many_as_the_config_says():
    config = ModernBertConfig(**BODY, vocab_size=60, max_position_embeddings=32, pad_token_id=0)
    assert text_positions_of(config) == 32


def test_a_sentence_without_places_is_named_instead_of_an_index_error(tiny_model):
    assert tiny_model.text_positions == 32
    ids = torch.full((1, 33), 5)
    with pytest.raises(ValueError, match="a sentence of 33 tokens; the text encoder has 32 positions"):
        tiny_model.encode_text(ids, torch.ones_like(ids))
