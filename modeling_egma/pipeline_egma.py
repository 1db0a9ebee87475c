"""`pipeline("egma-grounding")`: where in an image a model finds each of some sentences; our door in stock pipelines."""

# mypy: disable-error-code="assignment, override, misc, operator, safe-super, union-attr"
# transformers types its base class by what the base class does, which is nothing

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    ImageClassificationPipeline,
    ImageFeatureExtractionPipeline,
    Pipeline,
    ZeroShotImageClassificationPipeline,
)

from .losses_egma import similarity_maps
from .pictures_egma import as_picture

TASK = "egma-grounding"
BOX_FRACTION = 0.5


class EgmaGroundingPipeline(Pipeline):
    """Image and sentences -> for every sentence a score, a heat map, its peak and a box.

    A heat map is the cosine of every patch with the sentence, (height, width) float32 at the image's own size; the
    model sees the whole image, so no pixel lacks one. `peak` is the (x, y) pixel of its maximum. `box` (x_min, y_min,
    x_max, y_max), in pixels, bounds the patches around the best one, joined side by side, whose cosine is at least
    `box_fraction` of the way from the map's minimum to its maximum. `score` is the model's own zero-shot cosine.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, image: Any, sentences: str | list[str], **kwargs: Any) -> Any:
        """Ground `sentences` in `image`, in any form that `pictures_egma.as_picture` takes.

        Raises:
            ValueError: no sentence, or an empty one; `box_fraction` outside 0 ... 1.
        """
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
            raise ValueError(f"expected a sentence or a list of them, none empty, got {sentences!r}")
        return super().__call__({"image": image, "sentences": sentences}, **kwargs)

    def _sanitize_parameters(
        self, box_fraction: float | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise ValueError(f"{TASK} has no parameter {', '.join(sorted(kwargs))}; expected box_fraction")
        if box_fraction is not None and not 0 <= box_fraction <= 1:
            raise ValueError(f"box_fraction is {box_fraction}, expected a number from 0 to 1")
        return {}, {}, {} if box_fraction is None else {"box_fraction": box_fraction}

    def preprocess(self, inputs: dict[str, Any], **_: Any) -> dict[str, Any]:
        image = as_picture(inputs["image"])
        batch = self.processor(images=[image], text=inputs["sentences"])
        return {"sentences": inputs["sentences"], "size": (image.height, image.width), **batch}

    def _forward(self, inputs: dict[str, Any], **_: Any) -> dict[str, Any]:
        sentences, size = inputs.pop("sentences"), inputs.pop("size")
        output = self.model(**inputs)
        maps = similarity_maps(output.patch_embeds, output.text_embeds)[0]
        scores = (output.logits_per_image[0] - self.model.config.logit_bias) / self.model._scale()
        return {"sentences": sentences, "size": size, "maps": maps.float(), "scores": scores.float()}

    def postprocess(
        self, outputs: dict[str, Any], box_fraction: float = BOX_FRACTION, **_: Any
    ) -> list[dict[str, Any]]:
        maps, size = outputs["maps"], outputs["size"]
        sized = self.processor.post_process_similarity_map(maps[None], [size])[0]
        results = []
        for text, score, grid_map, heat_map in zip(
            outputs["sentences"], outputs["scores"].tolist(), maps, sized.numpy(), strict=True
        ):
            y, x = np.unravel_index(int(heat_map.argmax()), heat_map.shape)
            box = _box(grid_map, size, box_fraction)
            results.append(
                {"sentence": text, "score": score, "heat_map": heat_map, "peak": (int(x), int(y)), "box": box}
            )
        return results


class _OwnDoor(Pipeline):
    """A stock pipeline makes any picture RGB, alpha cut off, before our image processor sees it: our door is first."""

    def preprocess(self, image: Any, *args: Any, **kwargs: Any) -> Any:
        # by name: every file beside the weights may be loaded as a module of its own
        if type(self.image_processor).__name__ == "EgmaImageProcessor":
            image = as_picture(image)
        return super().preprocess(image, *args, **kwargs)


class EgmaZeroShotImageClassificationPipeline(_OwnDoor, ZeroShotImageClassificationPipeline):
    """`pipeline("zero-shot-image-classification")`."""


class EgmaImageClassificationPipeline(_OwnDoor, ImageClassificationPipeline):
    """`pipeline("image-classification")`."""


class EgmaImageFeatureExtractionPipeline(_OwnDoor, ImageFeatureExtractionPipeline):
    """`pipeline("image-feature-extraction")`."""


# stock pipelines in every other way, and for every other model
STOCK_TASKS = {
    "zero-shot-image-classification": EgmaZeroShotImageClassificationPipeline,
    "image-classification": EgmaImageClassificationPipeline,
    "image-feature-extraction": EgmaImageFeatureExtractionPipeline,
}


def _box(grid_map: Tensor, size: tuple[int, int], fraction: float) -> tuple[float, float, float, float]:
    """Pixels around the patches joined to the best one, cut at the image's edges."""
    low, high = float(grid_map.min()), float(grid_map.max())
    grid = grid_map.shape[-1]
    best = divmod(int(grid_map.argmax()), grid)
    chosen = _joined(grid_map >= low + fraction * (high - low), best)
    rows, columns = torch.tensor([row for row, _ in chosen]), torch.tensor([column for _, column in chosen])
    height, width = size
    side = max(size)
    top, left = (side - height) / 2, (side - width) / 2
    x_min, x_max = (float(edge) / grid * side - left for edge in (columns.min(), columns.max() + 1))
    y_min, y_max = (float(edge) / grid * side - top for edge in (rows.min(), rows.max() + 1))
    return max(0.0, x_min), max(0.0, y_min), min(float(width), x_max), min(float(height), y_max)


def _joined(mask: Tensor, start: tuple[int, int]) -> set[tuple[int, int]]:
    """The cells of `mask` that can be reached from `start` side by side."""
    found, open_cells = {start}, [start]
    while open_cells:
        row, column = open_cells.pop()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < mask.shape[0] and 0 <= cell[1] < mask.shape[1]
            if inside and cell not in found and bool(mask[cell]):
                found.add(cell)
                open_cells.append(cell)
    return found
