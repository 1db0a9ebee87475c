"""One picture, many doors: a table of what comes in, and that every door gives the same pixels or refuses."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.schema import UserError
from egma.inference.embeddings import Images
from egma.page.inputs import open_picture, picture_of
from modeling_egma import EgmaForImageClassification, EgmaVisionConfig, EgmaVisionModel

SIDE = 112  # of the tiny model's frame, so that nothing is resized
RANDOM = np.random.default_rng(0)
GREY = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8) // 2 * 2 + np.eye(SIDE, dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
SIXTEEN = np.round(np.linspace(300, 4000, SIDE * SIDE)).astype(np.uint16).reshape(SIDE, SIDE)
WINDOWED = np.round((SIXTEEN.astype(float) - 300) * (255 / 3700)).astype(np.uint8)
REFUSED = None


def on_black(values: np.ndarray) -> np.ndarray:
    alpha = ALPHA if values.ndim == 2 else ALPHA[..., None]
    return np.round(values * (alpha / 255)).astype(np.uint8)


def image_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in parts
    )


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def palette(**options: Any) -> bytes:
    image = Image.fromarray(GREY // 64).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    return image_bytes(image, **options)


PAINTED = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)[GREY // 64]
JPEG = image_bytes(Image.fromarray(GREY), "JPEG", quality=95)
WITH_ALPHA = np.dstack([COLOURS, ALPHA])
GREY_ALPHA = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
# bytes, what converter and page give, what the model's doors give
FILES: dict[str, tuple[bytes, np.ndarray | None, np.ndarray | None]] = {
    "grey": (image_bytes(Image.fromarray(GREY)), GREY, GREY),
    "jpeg": (JPEG, np.asarray(Image.open(io.BytesIO(JPEG))), np.asarray(Image.open(io.BytesIO(JPEG)))),
    "colours": (image_bytes(Image.fromarray(COLOURS)), COLOURS, COLOURS),
    "one bit": (image_bytes(Image.fromarray(GREY > 99)), (GREY > 99) * 255, (GREY > 99) * 255),
    "palette": (palette(), PAINTED, PAINTED),
    "palette, one colour transparent": (palette(transparency=0), *[PAINTED * (GREY > 63)[..., None]] * 2),
    "grey, one value transparent": (image_bytes(Image.fromarray(GREY), transparency=4), *[GREY * (GREY != 4)] * 2),
    "colours, one transparent": (
        image_bytes(Image.fromarray(COLOURS), transparency=tuple(map(int, COLOURS[3, 4]))),
        *[COLOURS * (COLOURS[3, 4] != COLOURS).any(-1, keepdims=True)] * 2,
    ),
    "colours and alpha": (image_bytes(Image.fromarray(WITH_ALPHA)), *[on_black(COLOURS)] * 2),
    "grey and alpha": (image_bytes(GREY_ALPHA), *[on_black(GREY)] * 2),
    "upside down": (image_bytes(Image.fromarray(COLOURS), exif=turned(3)), *[COLOURS[::-1, ::-1]] * 2),
    "lying": (image_bytes(Image.fromarray(COLOURS), exif=turned(6)), *[np.rot90(COLOURS, -1)] * 2),
    "16 bits": (image_bytes(Image.fromarray(SIXTEEN)), WINDOWED, REFUSED),
    "16 bits, one value transparent": (image_bytes(Image.fromarray(SIXTEEN), transparency=300), REFUSED, REFUSED),
    "16 bits, grey and alpha": (deep_png(np.dstack([SIXTEEN] * 2)), REFUSED, REFUSED),
    "16 bits, colours": (deep_png(np.dstack([SIXTEEN] * 3)), REFUSED, REFUSED),
    "16 bits, colours and alpha": (deep_png(np.dstack([SIXTEEN] * 4)), REFUSED, REFUSED),
    "CMYK": (image_bytes(Image.fromarray(COLOURS).convert("CMYK"), "JPEG"), REFUSED, REFUSED),
    "float TIFF": (image_bytes(Image.fromarray(GREY.astype(np.float32)), "TIFF"), REFUSED, REFUSED),
    "TIFF in colours": (image_bytes(Image.fromarray(COLOURS), "TIFF"), REFUSED, REFUSED),
    "JPEG 2000 in colours": (image_bytes(Image.fromarray(COLOURS), "JPEG2000"), REFUSED, REFUSED),
    "truncated": (JPEG[: len(JPEG) // 2], REFUSED, REFUSED),
    "no picture": (b"<html>", REFUSED, REFUSED),
}
# in memory; only the model has doors for these
VALUES: dict[str, tuple[Any, np.ndarray | None]] = {
    "(H, W)": (GREY, GREY),
    "(H, W, 1)": (GREY[..., None], GREY),
    "(1, H, W)": (GREY[None], GREY),
    "(H, W, 3)": (COLOURS, COLOURS),
    "(3, H, W)": (COLOURS.transpose(2, 0, 1), COLOURS),
    "(H, W, 2)": (np.asarray(GREY_ALPHA), on_black(GREY)),
    "(H, W, 4)": (WITH_ALPHA, on_black(COLOURS)),
    "floats (H, W)": (GREY / 255, GREY),
    "half floats": ((COLOURS / 255).astype(np.float16), COLOURS),
    "bools": (GREY > 99, (GREY > 99) * 255),
    "floats of 0 and 1 alone": ((GREY > 99).astype(np.float32), (GREY > 99) * 255),
    "ToTensor": (torch.from_numpy(COLOURS).movedim(2, 0) / 255, COLOURS),
    "tensor of bytes": (torch.from_numpy(COLOURS).movedim(2, 0), COLOURS),
    "tensor (H, W)": (torch.from_numpy(GREY), GREY),
    "tensor with a gradient": (torch.tensor(GREY / 255, requires_grad=True), GREY),
    "black": (0 * GREY, 0 * GREY),
    "uint16": (SIXTEEN, REFUSED),
    "int64": (GREY.astype(np.int64), REFUSED),
    "tensor of int64": (torch.from_numpy(GREY).long(), REFUSED),
    "floats to 255": (GREY.astype(np.float32), REFUSED),
    "floats below 0": (GREY / 255 - 0.5, REFUSED),
    "a float that is none": (np.where(GREY == 4, np.nan, GREY / 255), REFUSED),
    "infinite": (np.where(GREY == 4, np.inf, GREY / 255), REFUSED),
    "complex": (GREY * 1j, REFUSED),
    "(5, H, W)": (np.stack([GREY] * 5), REFUSED),
    "(0, H, W)": (np.zeros((0, SIDE, SIDE), np.uint8), REFUSED),
    "(0, 0)": (np.zeros((0, 0), np.uint8), REFUSED),
    "(H,)": (GREY[0], REFUSED),
    "(3, W, 3)": (COLOURS[:3], REFUSED),
    "PIL I;16": (Image.fromarray(SIXTEEN), REFUSED),
    "PIL I": (Image.fromarray(SIXTEEN.astype(np.int32)), REFUSED),
    "PIL F": (Image.fromarray(GREY.astype(np.float32)), REFUSED),
    "bytes": (image_bytes(Image.fromarray(GREY)), REFUSED),
    "a number": (3, REFUSED),
}


@pytest.fixture
def doors(tiny_model: Any, processor: Any) -> dict[str, Any]:
    """Name -> picture in any form -> (3, SIDE, SIDE) as the model sees it."""
    model, images = tiny_model, processor.image_processor
    towers = {"vision_config": model.config.vision_config, "text_config": model.config.text_config}
    classifier, vision = EgmaForImageClassification(model.config), EgmaVisionModel(EgmaVisionConfig(**towers))
    parts = {"image_processor": images, "tokenizer": processor.tokenizer}
    stock = pipeline("zero-shot-image-classification", model=model, **parts)
    ground = pipeline("egma-grounding", model=model, processor=processor, tokenizer=processor.tokenizer)
    classify = pipeline("image-classification", model=classifier, image_processor=images)
    features = pipeline("image-feature-extraction", model=vision, image_processor=images)
    return {
        "processor": lambda given: processor(images=[given]),
        "processor, alone": lambda given: processor(images=given),
        "image processor": lambda given: images(given, return_tensors="pt"),
        "opened by hand": lambda given: processor(images=[images.fetch_images(given)]),
        "evaluation": lambda given: {"pixel_values": Images(images, [{"image_id": "a", "image": given}]).pixels("a")},
        "grounding": lambda given: ground.preprocess({"image": given, "sentences": ["clear"]})["row"],
        "zero-shot": lambda given: stock.preprocess(given, candidate_labels=["clear"]),
        "classification": classify.preprocess,
        "features": features.preprocess,
    }


def seen(processor: Any, door: Any, given: Any) -> np.ndarray | None:
    """The grey values that the model sees, (SIDE, SIDE, 3); None where the door refuses."""
    try:
        pixels = door(given)["pixel_values"][0]
    except ValueError:
        return REFUSED
    mean, std = (
        np.array(value) for value in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    values = (pixels.numpy().transpose(1, 2, 0) * std + mean) * 255
    assert np.abs(values - np.round(values)).max() < 1e-3
    return np.round(values).astype(int)


def same(found: np.ndarray | None, expected: np.ndarray | None) -> bool:
    if found is None or expected is None:
        return found is expected
    if expected.ndim == 2:
        expected = np.dstack([expected] * 3)
    if found.ndim == 2:
        found = np.dstack([found] * 3)
    return np.array_equal(found, expected)


@pytest.mark.parametrize("kind", FILES)
def test_every_door_gives_the_same_pixels_of_a_file_or_refuses(
    tmp_path: Path, processor: Any, doors: dict[str, Any], kind: str
) -> None:
    content, converted, expected = FILES[kind]
    path = tmp_path / "picture"
    path.write_bytes(content)
    for name, door in doors.items():
        assert same(seen(processor, door, str(path)), expected), name
        if kind not in ("no picture", "truncated"):
            with Image.open(path) as image:
                assert same(seen(processor, door, image), expected), f"{name}, PIL"
            with Image.open(path) as image:
                image.load()
                assert same(seen(processor, door, image), expected), f"{name}, PIL, decoded before"
    for name, open_file in (("converter", converter), ("page", page)):
        found = open_file(path)
        assert same(found, converted), name
        if found is not None:
            assert same(seen(processor, doors["processor"], Image.fromarray(found)), converted), f"{name}, then model"


def converter(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(encode_image(path, 4096, Ledger()).png)))
    except Dropped:
        return None


def page(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(open_picture(path).image)
    except (Dropped, UserError):
        return None


@pytest.mark.parametrize("kind", VALUES)
def test_every_door_gives_the_same_pixels_of_values_or_refuses(
    processor: Any, doors: dict[str, Any], kind: str
) -> None:
    given, expected = VALUES[kind]
    for name, door in doors.items():
        assert same(seen(processor, door, given), expected), name


def test_a_batch_and_a_list_of_many_kinds_are_their_pictures(processor: Any) -> None:
    one = processor(images=[Image.fromarray(COLOURS)])["pixel_values"]
    batch = np.stack([COLOURS] * 2)
    for images in (batch, torch.from_numpy(batch).movedim(3, 1), [COLOURS / 255, Image.fromarray(COLOURS)], [batch]):
        assert torch.equal(processor(images=images)["pixel_values"], torch.cat([one, one]))
        found = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        assert torch.equal(found, torch.cat([one, one]))


def test_the_page_shows_a_reading_as_the_model_sees_it(processor: Any, doors: dict[str, Any]) -> None:
    reading: Any = {"image_id": "a", "boxes": [], "findings": [], "width": SIDE, "height": SIDE}
    for kind in ("colours and alpha", "lying", "grey, one value transparent"):
        content, _, expected = FILES[kind]
        shown = picture_of(reading | {"image": Image.open(io.BytesIO(content))}).image
        assert same(np.asarray(shown), expected) and same(seen(processor, doors["processor"], shown), expected)
