"""A saved folder is complete: it loads and scores in a process that cannot import the package."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForZeroShotImageClassification, AutoProcessor, pipeline

from modeling_egma import EgmaForImageClassification, EgmaImageProcessor, EgmaModel, EgmaProcessor

PROMPTS = ["pneumonia", "no pleural effusion ."]
# hides the installed package from this process; code that travelled with the weights has another name
BLOCKER = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_egma":
            raise ModuleNotFoundError("modeling_egma is hidden", name=name)
sys.meta_path.insert(0, Blocker())
try:
    import modeling_egma
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("modeling_egma can be imported")
"""
SCRIPT = """
import sys
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers import AutoModelForZeroShotImageClassification, AutoProcessor, pipeline

folder, again, classifier, out = sys.argv[1:]
prompts, remote = ["pneumonia", "no pleural effusion ."], {"trust_remote_code": True}
image = Image.linear_gradient("L").resize((90, 70))

def score(model, processor):
    return model(**processor(images=[image], text=prompts)).logits_per_image.detach()

model, processor = AutoModel.from_pretrained(folder, **remote), AutoProcessor.from_pretrained(folder, **remote)
look = {"x": [0.2], "y": [0.7], "start": [0.0], "duration": [1.0]}
batch = processor(images=[image], text=[prompts], gaze=[look], spans=[[(0, 1), None]])
found = {"logits": score(model, processor), "loss": model(**batch).loss.detach(), "heat": batch["gaze_heatmaps"]}
zero_shot = AutoModelForZeroShotImageClassification.from_pretrained(folder, **remote)
found["zero_shot"] = score(zero_shot, processor)
found["grid"] = AutoConfig.from_pretrained(folder, **remote).grid_size
images = AutoImageProcessor.from_pretrained(folder, **remote)
found["pixels"] = images(images=[image], return_tensors="pt")["pixel_values"]
labels = AutoModelForImageClassification.from_pretrained(classifier, **remote)
found["classes"] = labels(pixel_values=found["pixels"]).logits.detach()
pipe = pipeline("zero-shot-image-classification", model=folder, **remote)
found["pipeline"] = {row["label"]: row["score"] for row in pipe(image, prompts, hypothesis_template="{}")}
path = out + ".png"
Image.merge("LA", [image, image.rotate(90).resize(image.size)]).save(path)
by_path, opened = (pipe(given, prompts) for given in (path, images.fetch_images(path)))
found["transparent"] = [by_path == opened, by_path[0]["score"] != pipe(image, prompts)[0]["score"]]
model.save_pretrained(again)
processor.save_pretrained(again)
found["again"] = score(AutoModel.from_pretrained(again, **remote), AutoProcessor.from_pretrained(again, **remote))
found["module"] = type(model).__module__
torch.save(found, out)
"""


@pytest.fixture(scope="module")
def image():
    return Image.linear_gradient("L").resize((90, 70))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer, tiny_swin, tiny_bert):
    """Folder of a model with its processor, and one of a classifier."""
    root = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    config = EgmaModel.config_class(vision_config=tiny_swin, text_config=tiny_bert, projection_dim=12)
    EgmaModel(config).save_pretrained(root / "egma")
    EgmaProcessor.for_model(config, tokenizer, gaze_kwargs={"sigma": 0.1}).save_pretrained(root / "egma")
    EgmaForImageClassification.from_pretrained(root / "egma", num_labels=3).save_pretrained(root / "classifier")
    return root


@pytest.fixture(scope="module")
def remote(saved, tmp_path_factory):
    """What a fresh process without the package found."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    found = elsewhere / "found.pt"
    arguments = [saved / "egma", elsewhere / "again", saved / "classifier", found]
    result = subprocess.run(
        [sys.executable, "-I", "-c", BLOCKER + SCRIPT, *map(str, arguments)],
        cwd=elsewhere,
        env=os.environ | {"HF_HOME": str(elsewhere / "hf"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return torch.load(found, weights_only=True)


@pytest.fixture(scope="module")
def local(saved):
    return AutoModel.from_pretrained(saved / "egma"), AutoProcessor.from_pretrained(saved / "egma")


def score(model, processor, image):
    return model(**processor(images=[image], text=PROMPTS)).logits_per_image.detach()


def test_auto_classes_find_the_installed_package(saved, local):
    assert (type(local[0]), type(local[1])) == (EgmaModel, EgmaProcessor)
    assert type(AutoModelForZeroShotImageClassification.from_pretrained(saved / "egma")) is EgmaModel
    assert type(AutoImageProcessor.from_pretrained(saved / "egma")) is EgmaImageProcessor


def test_every_file_of_the_package_travels_with_the_weights(saved):
    travelled = {path.name for path in (saved / "egma").glob("*.py")}
    assert travelled == {
        "configuration_egma.py",
        "gaze_egma.py",
        "image_processing_egma.py",
        "interaction_egma.py",
        "labels_egma.py",
        "losses_egma.py",
        "matching_egma.py",
        "modeling_egma.py",
        "dicom_egma.py",
        "pictures_egma.py",
        "pipeline_egma.py",
        "processing_egma.py",
        "towers_egma.py",
    }
    auto_map = json.loads((saved / "egma" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == auto_map["AutoModelForZeroShotImageClassification"] == "modeling_egma.EgmaModel"


def test_no_pickle_is_written(saved):
    suffixes = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".py"}


def test_a_process_without_the_package_gives_identical_numbers(remote, local, image):
    assert remote["module"].startswith("transformers_modules.")
    model, processor = local
    assert torch.equal(remote["logits"], score(model, processor, image))
    assert torch.equal(remote["zero_shot"], remote["logits"])
    assert torch.equal(remote["pixels"], processor(images=[image])["pixel_values"])
    assert remote["grid"] == model.config.grid_size == 7


def test_a_process_without_the_package_draws_gaze_and_computes_the_loss(remote, local, image):
    model, processor = local
    look = {"x": [0.2], "y": [0.7], "start": [0.0], "duration": [1.0]}
    batch = processor(images=[image], text=[PROMPTS], gaze=[look], spans=[[(0, 1), None]])
    assert torch.equal(remote["heat"], batch["gaze_heatmaps"])
    assert torch.allclose(remote["loss"], model(**batch).loss.detach(), rtol=1e-6)


def test_a_remotely_loaded_model_can_be_saved_and_loaded_again(remote):
    assert torch.equal(remote["again"], remote["logits"])


def test_a_classifier_loads_without_the_package(remote, saved, local, image):
    classifier = EgmaForImageClassification.from_pretrained(saved / "classifier")
    expected = classifier(local[1](images=[image])["pixel_values"]).logits
    assert torch.allclose(remote["classes"], expected, atol=1e-6)


def test_zero_shot_pipeline_ranks_by_the_models_logits_here_and_remotely(remote, saved, local, image):
    pipe = pipeline("zero-shot-image-classification", model=str(saved / "egma"))
    found = {row["label"]: row["score"] for row in pipe(image, PROMPTS, hypothesis_template="{}")}
    expected = score(*local, image).softmax(dim=-1)[0].tolist()
    assert [found[prompt] for prompt in PROMPTS] == pytest.approx(expected, abs=1e-5)
    assert remote["pipeline"] == pytest.approx(found, abs=1e-6)


def test_the_remote_zero_shot_pipeline_lays_a_transparent_file_on_black(remote):
    assert remote["transparent"] == [True, True]
