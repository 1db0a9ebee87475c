"""Validation, derived values and round trips of EgmaConfig."""

import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, Dinov2Config, ViTConfig

from modeling_egma import EgmaConfig

BAD_VALUES = {
    "projection_dim": 0,
    "text_layers": 0,
    "contrastive_weight": -1.0,
    "gaze_weight": math.nan,
    "mapping_weight": math.inf,
    "gaze_sentence_weight": 1.5,
    "gaze_label_threshold": -0.1,
    "mapping_threshold": 2,
    "logit_scale_init_value": math.inf,
    "vision_stage": 4,
    "zero_shot_score": "cosine",
}


@pytest.mark.parametrize("field", BAD_VALUES)
def test_a_value_out_of_range_is_refused_by_name(tiny_swin, field):
    with pytest.raises(StrictDataclassError, match=field):
        EgmaConfig(vision_config=tiny_swin, **{field: BAD_VALUES[field]})


@pytest.mark.parametrize("field", ["projection_dim", "gaze_weight"])
def test_a_value_of_the_wrong_type_is_refused_by_name(field):
    with pytest.raises(StrictDataclassError, match=field):
        EgmaConfig(**{field: "7"})


def test_a_stage_of_a_backbone_without_stages_is_refused():
    with pytest.raises(StrictDataclassError, match="this vision backbone has no stages"):
        EgmaConfig(vision_config=ViTConfig(), vision_stage=1)


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("gaze_wieght", "gaze_weight"),
        ("proj_dim", "projection_dim"),
        ("visionconfig", "vision_config"),
        ("mapping_thresold", "mapping_threshold"),
    ],
)
def test_an_unknown_field_warns_and_names_the_nearest(library_warnings, unknown, nearest):
    EgmaConfig(**{unknown: 1})
    assert f"no field '{unknown}'; did you mean '{nearest}'" in library_warnings()


def test_known_fields_and_a_round_trip_do_not_warn(library_warnings, tiny_config, tmp_path):
    tiny_config.id2label = {0: "effusion", 1: "pneumothorax"}
    tiny_config.save_pretrained(tmp_path)
    EgmaConfig.from_pretrained(tmp_path)
    assert "has no field" not in library_warnings()


def test_defaults_are_the_reference_model():
    config = EgmaConfig()
    assert (config.vision_config.model_type, config.text_config.model_type) == ("swin", "bert")
    assert (config.grid_size, config.projection_dim) == (7, 512)
    assert math.exp(config.logit_scale_init_value) == pytest.approx(1 / 0.07)


@pytest.mark.parametrize(("stage", "grid"), [(None, 7), (1, 28), (2, 14), (3, 7)])
def test_grid_follows_the_stage(tiny_swin, stage, grid):
    assert EgmaConfig(vision_config=tiny_swin, vision_stage=stage).grid_size == grid


@pytest.mark.parametrize(
    ("vision_config", "grid"),
    [(ViTConfig(image_size=224, patch_size=16), 14), (Dinov2Config(image_size=518, patch_size=14), 37)],
)
def test_grid_of_a_backbone_without_stages(vision_config, grid):
    assert EgmaConfig(vision_config=vision_config).grid_size == grid


def test_an_earlier_stage_builds_a_tower_without_the_later_ones(tiny_swin):
    tower = EgmaConfig(vision_config=tiny_swin, vision_stage=2).vision_tower_config
    assert (list(tower.depths), list(tower.num_heads), tower.hidden_size) == ([1, 1], [1, 2], 16)


def test_save_and_load_give_an_equal_config(tiny_swin, tiny_bert, tmp_path):
    config = EgmaConfig(
        vision_config=tiny_swin,
        text_config=tiny_bert,
        vision_stage=2,
        text_layers=1,
        mapping_weight=0,
        zero_shot_score="late_interaction",
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    expected = config.to_dict()
    expected.pop("auto_map", None)
    found = loaded.to_dict()
    found.pop("auto_map", None)
    for written in ("transformers_version", "_name_or_path"):
        found.pop(written, None)
        expected.pop(written, None)
    assert found == expected
    assert loaded.grid_size == 14


def test_configs_do_not_share_their_encoders():
    first, second = EgmaConfig(), EgmaConfig()
    first.text_config.hidden_size = 1
    assert second.text_config.hidden_size != 1
