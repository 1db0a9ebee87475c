"""Weights in shards and other dtypes, files that are damaged or lie, folders of earlier versions."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel

from modeling_egma import EgmaModel

# what the first version wrote, as text: no field of it may lose its meaning
FIRST_CONFIG = """{
  "model_type": "egma", "projection_dim": 12, "logit_scale_init_value": 2.659, "vision_stage": null,
  "text_layers": 4,
  "contrastive_weight": 1.0, "gaze_weight": 1.0, "mapping_weight": 1.0, "gaze_sentence_weight": 0.5,
  "gaze_label_threshold": 0.1, "mapping_threshold": 0.2857142857142857, "zero_shot_score": "late_interaction",
  "initializer_range": 0.02,
  "vision_config": {
    "model_type": "swin", "image_size": 112, "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 2],
    "window_size": 7, "mlp_ratio": 2.0
  },
  "text_config": {
    "model_type": "bert", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 32
  }
}"""


@pytest.fixture
def inputs():
    return {"pixel_values": torch.randn(2, 3, 112, 112), "input_ids": torch.randint(5, 60, (3, 6))}


def test_sharded_weights_are_the_same_model(tiny_model, tmp_path, inputs):
    tiny_model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again(**inputs).logits_per_image, tiny_model(**inputs).logits_per_image)


@pytest.mark.parametrize("way", [{"dtype": torch.bfloat16}, {"device_map": "cpu"}, {"attn_implementation": "eager"}])
def test_other_ways_of_loading_give_nearly_the_same(tiny_model, tmp_path, inputs, way):
    tiny_model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, **way)
    found, expected = again(**inputs).logits_per_image, tiny_model(**inputs).logits_per_image
    tolerance = 0.5 if "dtype" in way else 1e-4
    assert (found.float() - expected).abs().max() < tolerance
    assert again.dtype == way.get("dtype", torch.float32)


def test_a_folder_of_the_first_version_loads(tmp_path, inputs):
    first = EgmaModel(EgmaModel.config_class(**json.loads(FIRST_CONFIG))).eval()
    first.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(FIRST_CONFIG)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.zero_shot_score == "late_interaction" and again.config.grid_size == 7
    assert torch.equal(again(**inputs).logits_per_image, first(**inputs).logits_per_image)


def damaged(path, kind):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    if kind == "truncated":
        return data[:-100]
    if kind == "oversized header":
        return struct.pack("<Q", 1 << 40) + data[8:]
    if kind == "no header":
        return b"not safetensors at all"
    names = [name for name in header if name != "__metadata__"]
    # two tensors that claim the same bytes
    header[names[1]] = dict(header[names[0]])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize("kind", ["truncated", "oversized header", "no header", "overlapping"])
def test_damaged_safetensors_are_an_error_and_never_half_a_model(tiny_model, tmp_path, kind):
    tiny_model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(damaged(path, kind))
    with pytest.raises(Exception, match=r"[Hh]eader|incomplete|[Ii]nvalid|deserializ"):
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(Exception, match=r"[Hh]eader|incomplete|[Ii]nvalid|deserializ"), safe_open(path, "pt"):
        pass
