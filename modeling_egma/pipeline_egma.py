"""`pipeline("egma-grounding")`: where in an image a model finds each of some sentences; our door in stock pipelines."""

# mypy: disable-error-code="assignment, override, misc, operator, safe-super, union-attr"
# transformers types its base class by what the base class does, which is nothing

import math
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
from .towers_egma import sized_frames

TASK = "egma-grounding"
BOX_FRACTION = 0.5
PARAMETERS = {"box_fraction": (0, 1), "top_k": (1, math.inf), "image_size": (1, math.inf)}


class EgmaGroundingPipeline(Pipeline):
    """Image and sentences -> for every sentence a score, a heat map, its peak and boxes.

    A heat map is the cosine of every patch with the sentence, (height, width) float32 at the image's own size; the
    model sees the whole image, so no pixel lacks one. `peak` is the (x, y) pixel of its maximum. `box` (x_min, y_min,
    x_max, y_max), in pixels, bounds the patches around the best one, joined side by side, whose cosine is at least
    `box_fraction` of the way from the image's least to its highest; `boxes` has up to `top_k`, each around the best
    patch that is in none before it. `score` is the model's own zero-shot cosine.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, image: Any, sentences: Any = None, **kwargs: Any) -> Any:
        """Ground sentences in images; a list of results an image.

        Args:
            image: a picture as `pictures_egma.as_picture` takes it, or a list; without `sentences` a row of `image` and
                `sentences`, or a list, data set or generator of rows, as corpora have them.
            sentences: one, or a list, for every image; or a list of lists, one an image.
            kwargs: `box_fraction`, `top_k`; `image_size`, side of the frame that the model sees; `batch_size`.

        Raises:
            ValueError: no sentence, or an empty one; a parameter out of range; another number of lists than images.
        """
        self.image_processor = self.processor.image_processor  # without one a pipeline makes no batches
        if sentences is None:
            rows = image if isinstance(image, list | dict) else (row for row in image)
        elif isinstance(image, list | tuple):
            is_shared = isinstance(sentences, str) or all(isinstance(one, str) for one in sentences)
            reports = [sentences] * len(image) if is_shared else sentences
            if len(reports) != len(image):
                raise ValueError(f"got {len(image)} images but sentences for {len(reports)}, expected some for each")
            rows = [{"image": one, "sentences": some} for one, some in zip(image, reports, strict=True)]
        else:
            rows = {"image": image, "sentences": sentences}
        return super().__call__(rows, **kwargs)

    def _sanitize_parameters(self, **given: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, value in given.items():
            if name not in PARAMETERS:
                raise ValueError(f"{TASK} has no parameter {name}; expected {', '.join(PARAMETERS)}")
            low, high = PARAMETERS[name]
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected a number from {low:g} to {high:g}")
        sized = {name: value for name, value in given.items() if name == "image_size"}
        return sized, {}, {name: value for name, value in given.items() if name != "image_size"}

    def preprocess(self, inputs: dict[str, Any], image_size: int | None = None, **_: Any) -> dict[str, Any]:
        given = [inputs["sentences"]] if isinstance(inputs["sentences"], str) else list(inputs["sentences"])
        sentences = [one["text"] if isinstance(one, dict) else one for one in given]  # a corpus' have times too
        if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
            raise ValueError(f"expected a sentence or a list of them, none empty, got {given!r}")
        image = as_picture(inputs["image"])
        size = {} if image_size is None else {"size": {"height": image_size, "width": image_size}}
        pixels = self.processor(images=[image], **size)["pixel_values"]
        pixels = sized_frames(self.model.config, pixels, image_size or pixels.shape[-1])
        # in one piece, of which a batch is a list
        return {"row": {"sentences": sentences, "size": (image.height, image.width), "pixel_values": pixels}}

    def _forward(self, inputs: dict[str, Any], **_: Any) -> dict[str, Any]:
        rows = inputs["row"] if isinstance(inputs["row"], list) else [inputs["row"]]
        pooled, patches = self.model.encode_images(torch.cat([row.pop("pixel_values") for row in rows]))
        counts = [len(row["sentences"]) for row in rows]
        tokens = self.processor(text=[text for row in rows for text in row["sentences"]]).to(self.device)
        texts = self.model.encode_text(**tokens)
        cosines = self.model._zero_shot_logits(pooled, patches, texts) - self.model.config.logit_bias
        cosines = (cosines / self.model._scale()).float().split(counts, dim=1)
        for place, (row, own) in enumerate(zip(rows, texts.split(counts), strict=True)):
            row["maps"] = similarity_maps(patches[place : place + 1], own)[0].float()
            row["scores"] = cosines[place][place]
        return {"row": rows if isinstance(inputs["row"], list) else rows[0]}

    def postprocess(
        self, outputs: dict[str, Any], box_fraction: float = BOX_FRACTION, top_k: int = 1, **_: Any
    ) -> list[dict[str, Any]]:
        row = outputs["row"]
        sized = self.processor.post_process_similarity_map(row["maps"][None], [row["size"]])[0]
        results = []
        for text, score, grid_map, heat_map in zip(
            row["sentences"], row["scores"].tolist(), row["maps"], sized.numpy(), strict=True
        ):
            y, x = np.unravel_index(int(heat_map.argmax()), heat_map.shape)
            boxes = _boxes(grid_map, row["size"], box_fraction, top_k)
            found = {"heat_map": heat_map, "peak": (int(x), int(y)), "box": boxes[0], "boxes": boxes}
            results.append({"sentence": text, "score": score, **found})
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


def _boxes(
    grid_map: Tensor, size: tuple[int, int], fraction: float, top_k: int
) -> list[tuple[float, float, float, float]]:
    """Pixels around the image's patches joined to the best one, cut at its edges; then around those of the rest."""
    (height, width), side, grid = size, max(size), grid_map.shape[-1]
    top, left = (side - height) / 2, (side - width) / 2
    edges, boxes = torch.arange(grid + 1) / grid * side, list[tuple[float, float, float, float]]()
    (in_rows, in_columns) = ((edges[1:] > start) & (edges[:-1] < side - start) for start in (top, left))
    shown = grid_map.masked_fill(~(in_rows[:, None] & in_columns), -torch.inf)
    low, high = float(shown[shown.isfinite()].min()), float(shown.max())
    open_cells = shown >= low + fraction * (high - low)
    while bool(open_cells.any()) and len(boxes) < top_k:
        best = divmod(int(shown.masked_fill(~open_cells, -torch.inf).argmax()), grid)
        rows, columns = (torch.tensor(axis) for axis in zip(*_joined(open_cells, best), strict=True))
        open_cells[rows, columns] = False
        x_min, x_max = (float(edges[edge]) - left for edge in (columns.min(), columns.max() + 1))
        y_min, y_max = (float(edges[edge]) - top for edge in (rows.min(), rows.max() + 1))
        boxes.append((max(0.0, x_min), max(0.0, y_min), min(float(width), x_max), min(float(height), y_max)))
    return boxes


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
