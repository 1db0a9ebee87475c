"""Sentences for a gallery: where a model looks for them, beside where their reader looked."""

import re
from collections.abc import Iterable
from typing import Any

import torch

from dataset_scripts.schema import Box
from egma.figures.heat_maps import GalleryRow

GALLERY_ROWS = 6


def gallery_rows(model: Any, processor: Any, rows: Iterable[Any], count: int = GALLERY_ROWS) -> list[GalleryRow]:
    """The same sentences for every model: of the first images with gaze, one that names a boxed finding."""
    found: list[GalleryRow] = []
    shown: set[str] = set()
    for reading in rows:
        sentence = next((s for s in reading["sentences"] if _is_of_a_box(s["text"], reading["boxes"])), None)
        fixations = reading["fixations"]
        if sentence is None or reading["image_id"] in shown or not (fixations and fixations["x"]):
            continue
        shown.add(reading["image_id"])
        span = (sentence["start_seconds"], sentence["end_seconds"])
        batch = processor(images=[reading["image"]], text=[[sentence["text"]]], gaze=[fixations], spans=[[span]])
        inputs = (batch[name].to(model.device) for name in ("pixel_values", "input_ids", "attention_mask"))
        with torch.no_grad():
            similarity = model.get_similarity_map(*inputs).float().cpu()
        found.append(GalleryRow(reading["image"], sentence["text"], similarity[0, 0], batch["gaze_heatmaps"][0]))
        if len(found) == count:
            break
    return found


def _is_of_a_box(text: str, boxes: list[Box]) -> bool:
    """A sentence that names a finding that has a box, and does not deny it."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    named = any(set(re.findall(r"[a-z]{6,}", box["label"].lower())) & words for box in boxes)
    return named and not words & {"no", "not", "without"}
