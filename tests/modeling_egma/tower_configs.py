"""Tiny configurations of the vision backbones that make a tower, each with the norm that its tokens come after."""

from typing import Any

from modeling_egma import EgmaConfig

BODY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PLAIN = BODY | {"image_size": 64, "patch_size": 16}
STAGES = {"image_size": 64, "patch_size": 4, "depths": [1, 1]}
WINDOWS = STAGES | {"embed_dim": 8, "num_heads": [1, 2], "window_size": 4}
MAPS = STAGES | {"hidden_sizes": [8, 16], "num_stages": 2}
FOCAL = STAGES | {"embed_dim": 8, "hidden_sizes": [8, 16], "focal_levels": [1, 1], "focal_windows": [3, 3]}
RESIDUAL = STAGES | {"embedding_size": 8, "hidden_sizes": [8, 16]}

# name -> model_type, fields, name of the final norm; None: the backbone ends without one
VISION: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "vit": ("vit", PLAIN, "layernorm"),
    "deit": ("deit", PLAIN, "layernorm"),
    "vit_msn": ("vit_msn", PLAIN, "layernorm"),
    "ijepa": ("ijepa", PLAIN, "layernorm"),
    "pixio": ("pixio", PLAIN, "layernorm"),
    "beit of means": ("beit", PLAIN | {"use_mean_pooling": True}, "pooler.layernorm"),
    "beit of the class token": ("beit", PLAIN | {"use_mean_pooling": False}, "layernorm"),
    "data2vec of means": ("data2vec-vision", PLAIN | {"use_mean_pooling": True}, "pooler.layernorm"),
    "data2vec of the class token": ("data2vec-vision", PLAIN | {"use_mean_pooling": False}, "layernorm"),
    "dinov2": ("dinov2", PLAIN, "layernorm"),
    "dinov2_with_registers": ("dinov2_with_registers", PLAIN, "layernorm"),
    "dinov3_vit": ("dinov3_vit", PLAIN, "norm"),
    "siglip": ("siglip_vision_model", PLAIN, "post_layernorm"),
    "clip": ("clip_vision_model", PLAIN, "post_layernorm"),
    "chinese_clip": ("chinese_clip_vision_model", PLAIN, "post_layernorm"),
    "mlcd": ("mlcd_vision_model", PLAIN, "post_layernorm"),
    "idefics3": ("idefics3_vision", PLAIN, "post_layernorm"),
    "swin": ("swin", WINDOWS, "layernorm"),
    "swinv2": ("swinv2", WINDOWS, "layernorm"),
    "focalnet": ("focalnet", FOCAL, "layernorm"),
    "convnext": ("convnext", MAPS, "layernorm"),
    "convnextv2": ("convnextv2", MAPS, "layernorm"),
    "bit": ("bit", RESIDUAL | {"num_groups": 4}, "norm"),
    "resnet": ("resnet", RESIDUAL | {"layer_type": "basic"}, None),
    "regnet": ("regnet", RESIDUAL | {"groups_width": 8}, None),
}
WORDS = BODY | {"vocab_size": 60, "max_position_embeddings": 20}
BERT = WORDS | {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CLIP_TEXT = WORDS | {"model_type": "clip_text_model", "eos_token_id": 59}


def config_of(vision: str, text: dict[str, Any] = BERT, **fields: Any) -> EgmaConfig:
    model_type, own, _ = VISION[vision]
    return EgmaConfig(vision_config={"model_type": model_type, **own}, text_config=text, projection_dim=8, **fields)
