"""`pipeline("egma-grounding")` over many images: lists, batches, data sets, generators, sizes, several boxes."""

from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from modeling_egma import EgmaForImageClassification, EgmaModel, EgmaProcessor
from modeling_egma.pipeline_egma import _boxes

from .tower_configs import config_of
from .whole_models import save_whole, tokenizer_of

REPORTS = [["pneumonia", "lungs are clear"], ["no pleural effusion ."], ["clear", "heart size normal", "opacity"]]


@pytest.fixture
def folder(tmp_path: Path, tiny_config: Any, tokenizer: Any) -> Path:
    torch.manual_seed(1)
    EgmaModel(tiny_config).save_pretrained(tmp_path / "egma")
    EgmaProcessor.for_model(tiny_config, tokenizer).save_pretrained(tmp_path / "egma")
    return tmp_path / "egma"


@pytest.fixture
def pictures() -> list[Image.Image]:
    ramp = Image.linear_gradient("L")
    return [ramp.resize((90, 70)), ramp.rotate(90).resize((60, 120)), Image.radial_gradient("L").resize((50, 50))]


def same(found: Any, expected: Any) -> None:
    assert [len(one) for one in found] == [len(one) for one in expected]
    for ours, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert ours["sentence"] == theirs["sentence"] and len(ours["boxes"]) == len(theirs["boxes"])
        x, y = ours["peak"]
        assert theirs["heat_map"][y, x] == pytest.approx(theirs["heat_map"].max(), abs=1e-5)
        np.testing.assert_allclose(ours["heat_map"], theirs["heat_map"], atol=1e-5)
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)


def test_many_images_are_grounded_as_each_alone(folder: Path, pictures: list[Image.Image]) -> None:
    ground = pipeline("egma-grounding", model=str(folder))
    expected = [ground(picture, report) for picture, report in zip(pictures, REPORTS, strict=True)]
    for size in (1, 2, 5):
        same(ground(pictures, REPORTS, batch_size=size), expected)
    same(ground(pictures, "clear"), [ground(picture, "clear") for picture in pictures])
    same(ground(pictures, ["clear", "opacity"], batch_size=2), [ground(one, ["clear", "opacity"]) for one in pictures])
    rows = [{"image": one, "sentences": some} for one, some in zip(pictures, REPORTS, strict=True)]
    same(ground(rows, batch_size=2), expected)
    same([ground(rows[1])], expected[1:2])
    model, processor = EgmaModel.from_pretrained(folder), EgmaProcessor.from_pretrained(folder)
    same(pipeline("egma-grounding", model=model, processor=processor)(rows, batch_size=2), expected)
    same(list(ground((row for row in rows), batch_size=2)), expected)


def test_a_corpus_is_grounded_as_it_is(folder: Path, phantom_data: Path) -> None:
    """Rows of a converted corpus, whose sentences have text and time."""
    rows = datasets.load_dataset(str(phantom_data), split="validation").select(range(3))
    ground = pipeline("egma-grounding", model=str(folder))
    found = list(ground(rows, batch_size=2))
    texts = [[sentence["text"] for sentence in row["sentences"]] for row in rows]
    assert [[one["sentence"] for one in image] for image in found] == texts
    same(found, [ground(row["image"], text) for row, text in zip(rows, texts, strict=True)])


@pytest.mark.parametrize(
    ("sentences", "more", "message"),
    [
        ([["a"], ["b"]], {}, "got 3 images but sentences for 2, expected some for each"),
        ([["a"], [], ["b"]], {}, "none empty"),
        ("a", {"top_k": 0}, "top_k is 0, expected a number from 1"),
        ("a", {"image_size": 100}, "image_size is 100, expected a multiple of 16"),
    ],
)
def test_what_fits_no_image_is_refused(
    folder: Path, pictures: list[Image.Image], sentences: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline("egma-grounding", model=str(folder))(pictures, sentences, **more)


def test_a_larger_frame_makes_a_finer_map(folder: Path, pictures: list[Image.Image]) -> None:
    model, processor = EgmaModel.from_pretrained(folder), EgmaProcessor.from_pretrained(folder)
    inputs = processor(images=pictures, text=["clear", "opacity"])
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    maps = model.get_similarity_map(inputs["pixel_values"], **ids, image_size=224)
    assert maps.shape == (3, 2, 14, 14)
    assert torch.equal(
        model.get_similarity_map(inputs["pixel_values"], **ids, image_size=112),
        model.get_similarity_map(inputs["pixel_values"], **ids),
    )
    larger = processor(images=pictures, size={"height": 224, "width": 224})["pixel_values"]
    expected = processor.post_process_similarity_map(
        model.get_similarity_map(larger, **ids, image_size=224), [(one.height, one.width) for one in pictures]
    )
    found = pipeline("egma-grounding", model=str(folder))(pictures, ["clear", "opacity"], image_size=224, batch_size=3)
    for results, maps_of_image in zip(found, expected, strict=True):
        for one, heat_map in zip(results, maps_of_image.detach().numpy(), strict=True):
            np.testing.assert_allclose(one["heat_map"], heat_map, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "clip", "siglip", "dinov2", "dinov3_vit", "convnext", "swin", "resnet"])
@torch.no_grad()
def test_towers_take_frames_of_another_size(kind: str) -> None:
    """Twice the side, twice the grid; whatever size was seen before (a Swin keeps its smallest windows)."""
    model = EgmaModel(config_of(kind)).eval()
    grid, ids, pixels = model.config.grid_size, torch.tensor([[2, 7, 3]]), torch.randn(1, 3, 64, 64)
    found = model.get_similarity_map(pixels, ids, image_size=128)
    assert found.shape == (1, 1, 2 * grid, 2 * grid) and found.isfinite().all()
    own = EgmaModel(model.config).eval()
    own.load_state_dict(model.state_dict())
    expected = own.get_similarity_map(pixels, ids)
    model.get_similarity_map(pixels, ids, image_size=32)
    assert torch.equal(model.get_similarity_map(pixels, ids), expected)
    assert torch.equal(model.get_similarity_map(pixels, ids, image_size=128), found)


def test_every_box_is_around_the_best_patch_outside_those_before_it() -> None:
    grid = torch.zeros(4, 4)
    grid[1, 0], grid[1, 1], grid[2, 3], grid[3, 3] = 1.0, 0.8, 0.9, 0.95
    # 200 wide, 100 high: rows 0 and 3 are padding, and no place of the image
    assert _boxes(grid, (100, 200), 0.5, 3) == [(0, 0, 100, 50), (150, 50, 200, 100)]
    assert _boxes(grid, (200, 200), 0.5, 3) == [(0, 50, 100, 100), (150, 100, 200, 200)]
    assert len(_boxes(grid, (200, 200), 0.5, 1)) == 1
    grid[0, 2] = 5.0
    assert _boxes(grid, (100, 200), 0.5, 1) == [(0, 0, 100, 50)]


def test_a_start_from_siglip_is_grounded_and_classified(tmp_path: Path, pictures: list[Image.Image]) -> None:
    save_whole(tmp_path / "whole", "siglip")
    model = EgmaModel.from_whole_pretrained(str(tmp_path / "whole"))
    model.save_pretrained(tmp_path / "egma")
    processor = EgmaProcessor.for_model(model.config, tokenizer_of("siglip"))
    processor.save_pretrained(tmp_path / "egma")
    found = pipeline("egma-grounding", model=str(tmp_path / "egma"))(pictures[:1], ["clear", "opacity"])[0]
    inputs = processor(images=pictures[:1], text=["clear", "opacity"])
    image, text = (
        model.encode_images(inputs["pixel_values"])[0],
        model.encode_text(**processor(text=["clear", "opacity"])),
    )
    assert [one["score"] for one in found] == pytest.approx((image @ text.T)[0].tolist(), abs=1e-5)
    classifier = AutoModelForImageClassification.from_pretrained(tmp_path / "egma", num_labels=3)
    assert type(classifier) is EgmaForImageClassification
    assert classifier(inputs["pixel_values"], labels=torch.tensor([2])).loss.isfinite()
