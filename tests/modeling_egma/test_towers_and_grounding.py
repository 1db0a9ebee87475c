"""Half a model in the stock feature pipelines; `pipeline("egma-grounding")`; folders that hold pickles."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer, pipeline

from modeling_egma import EgmaModel, EgmaProcessor, EgmaTextModel, EgmaVisionModel
from modeling_egma.losses_egma import similarity_maps
from modeling_egma.pipeline_egma import _boxes

from .test_loading_egma import BLOCKER

REMOTE = """
import sys, torch
from PIL import Image
from transformers import AutoModel, pipeline
folder, vision, out = sys.argv[1:]
image = Image.linear_gradient("L").resize((90, 70))
found = pipeline("egma-grounding", model=folder, trust_remote_code=True)(image, ["pneumonia", "lungs are clear"])
tower = AutoModel.from_pretrained(vision, trust_remote_code=True)
torch.save(
    {"maps": torch.stack([torch.from_numpy(one["heat_map"]) for one in found]), "box": list(found[0]["box"]),
     "tower": tower(torch.ones(1, 3, 112, 112)).pooler_output.detach()},
    out,
)
"""


@pytest.fixture
def folder(tmp_path, tiny_config, tokenizer):
    torch.manual_seed(1)
    EgmaModel(tiny_config).save_pretrained(tmp_path / "egma")
    EgmaProcessor.for_model(tiny_config, tokenizer).save_pretrained(tmp_path / "egma")
    return tmp_path / "egma"


@pytest.fixture
def image():
    return Image.linear_gradient("L").resize((90, 70))


def test_the_image_half_is_the_models_own(folder, tmp_path, image, library_warnings):
    whole, half = EgmaModel.from_pretrained(folder), EgmaVisionModel.from_pretrained(folder)
    pixels = torch.randn(2, 3, 112, 112)
    expected, found = whole.get_image_features(pixels), half(pixels)
    assert torch.equal(found.pooler_output, expected.pooler_output)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    half.save_pretrained(tmp_path / "half")
    again = AutoModel.from_pretrained(tmp_path / "half")
    assert type(again) is EgmaVisionModel and torch.equal(again(pixels).pooler_output, expected.pooler_output)
    assert not any(name.startswith("text") for name in again.state_dict())
    processor = EgmaProcessor.from_pretrained(folder).image_processor
    features = pipeline("image-feature-extraction", model=half, image_processor=processor)(image)
    tokens = half(processor([image], return_tensors="pt")["pixel_values"]).last_hidden_state
    assert np.allclose(features[0], tokens[0].detach().numpy(), atol=1e-5)
    assert "newly initialized" not in library_warnings() and "not used" not in library_warnings()


def test_the_text_half_is_the_models_own(folder, tmp_path):
    whole, half = EgmaModel.from_pretrained(folder), EgmaTextModel.from_pretrained(folder)
    inputs = EgmaProcessor.from_pretrained(folder)(text=["no pleural effusion .", "clear"])
    names = ("input_ids", "attention_mask")
    expected = whole.get_text_features(*(inputs[name] for name in names))
    assert torch.equal(half(**{name: inputs[name] for name in names}).pooler_output, expected.pooler_output)
    half.save_pretrained(tmp_path / "half")
    assert type(AutoModel.from_pretrained(tmp_path / "half")) is EgmaTextModel
    features = pipeline("feature-extraction", model=half, tokenizer=AutoTokenizer.from_pretrained(folder))("clear")
    assert np.shape(features)[-1] == 16


def test_grounding_is_the_models_map_at_image_size(folder, image):
    model, processor = EgmaModel.from_pretrained(folder), EgmaProcessor.from_pretrained(folder)
    sentences = ["pneumonia", "lungs are clear"]
    found = pipeline("egma-grounding", model=str(folder))(image, sentences)
    inputs = processor(images=[image], text=sentences)
    maps = model.get_similarity_map(**{name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")})
    expected = processor.post_process_similarity_map(maps, [(70, 90)])[0].detach().numpy()
    scores = model(**inputs).logits_per_image[0] / model.logit_scale.exp()
    for place, one in enumerate(found):
        assert one["sentence"] == sentences[place] and one["heat_map"].shape == (70, 90)
        np.testing.assert_allclose(one["heat_map"], expected[place], atol=1e-5)
        x, y = one["peak"]
        assert one["heat_map"][y, x] == one["heat_map"].max()
        assert one["score"] == pytest.approx(float(scores[place]), abs=1e-5)
        x_min, y_min, x_max, y_max = one["box"]
        assert 0 <= x_min < x_max <= 90 and 0 <= y_min < y_max <= 70
    assert len(pipeline("egma-grounding", model=str(folder))(image, "pneumonia", box_fraction=1.0)) == 1


@pytest.mark.parametrize(("weight", "place"), [("visual_projection.weight", 0), ("text_projection.weight", 0)])
def test_a_number_that_is_none_becomes_no_peak(folder, image, tmp_path, weight, place):
    model, processor = EgmaModel.from_pretrained(folder), EgmaProcessor.from_pretrained(folder)
    dict(model.named_parameters())[weight].data[0, 0] = float("nan")
    batch = processor(images=[image], text=["pneumonia", "lungs are clear"])
    with pytest.raises(ValueError, match=f"map of sentence {place} in image {place} is not finite"):
        model.get_similarity_map(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
    model.save_pretrained(tmp_path / "broken")
    processor.save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="map of sentence 0 in image 0 is not finite"):
        pipeline("egma-grounding", model=str(tmp_path / "broken"))(image, ["pneumonia", "lungs are clear"])


def test_the_broken_map_is_named():
    patches, sentences = torch.ones(3, 4, 2), torch.ones(5, 2)
    patches[2, 3, 0] = float("inf")
    with pytest.raises(ValueError, match="map of sentence 0 in image 2"):
        similarity_maps(patches, sentences)
    assert similarity_maps(patches[:2], sentences).shape == (2, 5, 2, 2)


def test_the_box_bounds_the_patches_joined_to_the_best_one():
    grid = torch.zeros(4, 4)
    grid[1, 1], grid[1, 2], grid[3, 3] = 1.0, 0.8, 0.9
    # 200 wide, 100 high: the frame's side is 200, a patch 50 pixels, 50 pixels of padding above
    assert _boxes(grid, (100, 200), 0.5, 1)[0] == (50, 0, 150, 50)
    assert _boxes(grid, (100, 200), 1.0, 1)[0] == (50, 0, 100, 50)
    assert _boxes(torch.zeros(4, 4), (200, 200), 0.5, 1)[0] == (0, 0, 200, 200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "none empty"),
        (([" "],), "none empty"),
        ((["a"], {"box_fraction": 2}), "box_fraction is 2"),
        ((["a"], {"threshold": 1}), "no parameter threshold"),
    ],
)
def test_grounding_refuses_what_makes_no_sense(folder, image, arguments, message):
    pipe = pipeline("egma-grounding", model=str(folder))
    with pytest.raises(ValueError, match=message):
        pipe(image, arguments[0], **(arguments[1] if len(arguments) > 1 else {}))


def test_a_process_without_the_package_grounds_the_same(folder, tmp_path, image):
    EgmaVisionModel.from_pretrained(folder).save_pretrained(tmp_path / "vision")
    out = tmp_path / "found.pt"
    result = subprocess.run(
        [sys.executable, "-I", "-c", BLOCKER + REMOTE, str(folder), str(tmp_path / "vision"), str(out)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    remote = torch.load(out, weights_only=True)
    local = pipeline("egma-grounding", model=str(folder))(image, ["pneumonia", "lungs are clear"])
    np.testing.assert_array_equal(remote["maps"].numpy(), np.stack([one["heat_map"] for one in local]))
    assert remote["box"] == list(local[0]["box"])
    expected = EgmaVisionModel.from_pretrained(folder)(torch.ones(1, 3, 112, 112)).pooler_output
    assert torch.allclose(remote["tower"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pkl", "model.safetensors"])
def test_a_pickle_in_place_of_the_weights_is_not_read(folder, name, tmp_path):
    (folder / "model.safetensors").unlink()
    trap = tmp_path / "sprung"
    (folder / name).write_bytes(f"cos\nsystem\n(S'touch {trap}'\ntR.".encode())
    for load in (EgmaModel.from_pretrained, AutoModel.from_pretrained, EgmaVisionModel.from_pretrained):
        with pytest.raises(Exception, match=r"safetensors|[Hh]eader") as error:
            load(folder)
        assert not isinstance(error.value, (KeyError, TypeError, AttributeError))
    with pytest.raises(ValueError, match="safetensors only"):
        EgmaModel.from_pretrained(folder, use_safetensors=False)
    assert not trap.exists()


def test_saved_config_names_the_pipeline(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["custom_pipelines"]["egma-grounding"]["impl"] == "pipeline_egma.EgmaGroundingPipeline"
    assert (folder / "pipeline_egma.py").is_file()
