"""A corpus whose images carry their number as grey value, and a model that looks embeddings up by that number."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from dataset_scripts.schema import Box, Reading
from egma.inference.embeddings import ImageBank, TextBank, encode_images, encode_texts

CLASSES = ("Atelectasis", "Consolidation", "Pneumothorax")
PROMPTS = {name: [f"There is {name.lower()}.", f"{name} is seen."] for name in CLASSES}
GRID = 4


def box(label: str, *corners: float, shape: str = "box") -> Box:
    x_min, y_min, x_max, y_max = corners
    return {
        "label": label,
        "shape": "ellipse" if shape == "ellipse" else "box",
        "x_min": x_min,
        "y_min": y_min,
        "x_max": x_max,
        "y_max": y_max,
        "certainty": None,
    }


def reading(number: int, **fields: Any) -> Reading:
    """Reading of image `number` (its grey value), of its own patient unless said."""
    findings = fields.pop("findings", {})
    sentences = fields.pop("sentences", [f"Report {number}."])
    width, height = fields.get("width", 40), fields.get("height", 40)
    row: Any = {
        "image": Image.new("L", (width, height), number),
        "image_id": f"image {number:03}",
        "study_id": None,
        "subject_id": f"patient {number:03}",
        "reading_id": f"reading {number:03}",
        "reader_id": None,
        "source": "test",
        "view": None,
        "sex": None,
        "age_years": None,
        "license": None,
        "width": width,
        "height": height,
        "sentences": [{"text": text, "start_seconds": None, "end_seconds": None} for text in sentences],
        "fixations": None,
        "findings": [{"name": name, "value": value} for name, value in findings.items()],
        "boxes": [],
    }
    return row | fields


def corpus(count: int = 24) -> list[Reading]:
    """Image k shows one class, k modulo 3, in the quadrant of the same number."""
    rows = []
    for number in range(count):
        name = CLASSES[number % 3]
        left, top = 0.5 * (number % 3 % 2), 0.5 * (number % 3 // 2)
        findings = {other: int(other == name) for other in CLASSES}
        rows.append(reading(number, findings=findings, boxes=[box(name, left, top, left + 0.5, top + 0.5)]))
    return rows


class Lookup(nn.Module):
    """Embeddings from tables: `patches` (K, P, D) by grey value, `texts` by sentence; pooled is the patches' mean."""

    def __init__(self, patches: Tensor, texts: dict[str, Tensor], score: str = "pooled"):
        super().__init__()
        self.patches, self.texts = normalize(patches, dim=-1), texts
        self.config = SimpleNamespace(zero_shot_score=score)
        self.device = torch.device("cpu")

    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        assert not self.training
        patches = self.patches[pixel_values[:, 0, 0, 0].long()]
        return normalize(patches.mean(dim=1), dim=-1), patches

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        names = [
            "".join(map(chr, ids[mask.bool()].tolist())) for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        return normalize(torch.stack([self.texts[name] for name in names]), dim=-1)


def processor(images: Any = None, text: Any = None, return_tensors: str = "pt") -> dict[str, Tensor]:
    """Pixels as they are, top left corner only; sentences as padded code points."""
    if images is not None:
        return {
            "pixel_values": torch.stack([torch.tensor(np.asarray(image)[:1, :1]).permute(2, 0, 1) for image in images])
        }
    ids = nn.utils.rnn.pad_sequence([torch.tensor([ord(letter) for letter in line]) for line in text], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def all_texts(rows: list[Reading]) -> list[str]:
    return [sentence["text"] for row in rows for sentence in row["sentences"]]


def all_prompts() -> list[str]:
    return [prompt for prompts in PROMPTS.values() for prompt in prompts]


def encode(model: Lookup, rows: list[Reading], batch_size: int = 5) -> tuple[ImageBank, TextBank]:
    """Embeddings of the rows' images, and of the prompts and the rows' sentences as far as the model knows them."""
    texts = [text for text in [*all_prompts(), *all_texts(rows)] if text in model.texts]
    return encode_images(model, processor, rows, batch_size), encode_texts(model, processor, texts, batch_size)


def oracle(rows: list[Reading], score: str = "pooled") -> Lookup:
    """Every patch says a little of which report is meant; the patches inside of the finding's box say the class.

    No two images, and no two prompts of a class, score the same: a tie is no place in a ranking.
    """
    dim = 4 + len(rows)
    classes = dict(zip(CLASSES, torch.eye(dim)[:3], strict=True))
    texts = {
        prompt: classes[name] + 0.02 * place * torch.eye(dim)[-1]
        for name, prompts in PROMPTS.items()
        for place, prompt in enumerate(prompts)
    }
    patches = torch.zeros(len(rows), GRID, GRID, dim)
    for row in rows:
        number = int(row["image_id"].split()[1])
        patches[number, ..., 3 + number] = 0.5 + 0.001 * number
        texts |= {sentence["text"]: torch.eye(dim)[3 + number] for sentence in row["sentences"]}
        half, kind = GRID // 2, number % 3
        rows_of_box, columns = kind // 2 * half, kind % 2 * half
        patches[number, rows_of_box : rows_of_box + half, columns : columns + half] += classes[CLASSES[kind]]
    return Lookup(patches.flatten(1, 2), texts, score)


def random_model(rows: list[Reading], seed: int = 0, score: str = "pooled") -> Lookup:
    generator = torch.Generator().manual_seed(seed)
    names = sorted({*all_texts(rows), *all_prompts()})
    texts = {name: torch.randn(16, generator=generator) for name in names}
    return Lookup(torch.randn(len(rows), GRID * GRID, 16, generator=generator), texts, score)


def constant_model(rows: list[Reading]) -> Lookup:
    """The same embedding for every image and every sentence."""
    names = [*all_texts(rows), *all_prompts()]
    vector = torch.linspace(0.1, 1, 16)
    return Lookup(vector.expand(len(rows), GRID * GRID, 16), dict.fromkeys(names, vector))
