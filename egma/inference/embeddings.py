"""Every image and every sentence is encoded once; all protocols read the embeddings from here."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dataset_scripts.schema import NEW_COLUMNS, Reading, UserError, naming, with_new_columns
from egma.inference.texts import distinct_texts, encode_blocks, length_blocks, text_inputs
from modeling_egma.pictures_egma import as_picture

Readings: TypeAlias = Dataset | Sequence[Reading]
Processor = Callable[..., Mapping[str, Tensor]]
Item = TypeVar("Item")
Track = Callable[..., Iterable[Any]]  # shows how far a loop is: called with its steps and `desc`

READ_COLUMNS = (
    *("image_id", "subject_id", "reading_id", "reader_id", "source", "view", *NEW_COLUMNS, "width", "height"),
    *("sentences", "fixations", "findings", "boxes"),
)
COSINE_DECIMALS = 6
IMAGES_AT_ONCE = 64  # whose patches are compared with sentences in one product


class NotFinite(UserError):
    """A model's numbers for an image or a text are NaN or infinite; every comparison with them would be a guess."""


class ImageTextModel(Protocol):
    """What the protocols ask of a model; embeddings are L2-normalised."""

    config: Any
    training: bool

    @property
    def device(self) -> torch.device: ...

    def train(self, mode: bool = True) -> Any: ...

    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W) -> image embeddings (B, D) and patch embeddings (B, P, D), None if it has none."""
        ...

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, L) twice, and whatever else its processor makes of text -> sentence embeddings (N, D)."""
        ...


@dataclass(frozen=True)
class ImageBank:
    """Embeddings by image id: `pooled` (I, D) and `patches` (I, P, D), or None, float32 on the CPU.

    `pooling_scale`: see `pooling_scale`.
    """

    place: Mapping[str, int]
    pooled: Tensor
    patches: Tensor | None
    pooling_scale: float | None = None

    def places(self, readings: Iterable[Reading]) -> list[int]:
        return [self.place[reading["image_id"]] for reading in readings]

    def mapped_patches(self) -> Tensor:
        """`patches`, for what needs maps.

        Raises:
            UserError: the model has none.
        """
        if self.patches is None:
            raise UserError("the model has no embeddings of patches to compare with sentences")
        return self.patches


@dataclass(frozen=True)
class TextBank:
    """Sentence embeddings by sentence: `embeddings` (N, D), float32 on the CPU."""

    place: Mapping[str, int]
    embeddings: Tensor

    def of(self, texts: Iterable[str]) -> Tensor:
        """Embeddings of `texts`, in their order."""
        return self.embeddings[[self.place[text] for text in texts]]


class Images:
    """The distinct images of rows, several of which may share one: `place` of the first row that has it, by id."""

    def __init__(self, processor: Processor, rows: Readings) -> None:
        ids = list(rows["image_id"]) if isinstance(rows, Dataset) else [row["image_id"] for row in rows]
        self.processor = processor
        self.rows: Any = rows
        self.place = {image_id: place for place, image_id in reversed(list(enumerate(ids)))}

    def pixels(self, ids: Iterable[str]) -> Tensor:
        """(B, 3, H, W) of the images, in their order."""
        images = []
        for image_id in ids:
            with naming(f"image '{image_id}'"):
                images.append(as_picture(self.rows[self.place[image_id]]["image"]).convert("RGB"))
        return self.processor(images=images, return_tensors="pt")["pixel_values"]


def records(rows: Readings) -> list[Reading]:
    """The rows without their pixels, in an order that does not depend on the file's."""
    if isinstance(rows, Dataset):
        plain = with_new_columns(rows).select_columns(list(READ_COLUMNS)).to_list()
    else:
        given = [dict.fromkeys(NEW_COLUMNS) | row for row in cast(Sequence[dict[str, Any]], rows)]
        plain = [{name: row[name] for name in READ_COLUMNS} for row in given]
    plain.sort(key=lambda row: (row["image_id"], row["reading_id"], row["source"]))
    return cast(list[Reading], plain)


def progress_bar(steps: Iterable[Item], desc: str) -> Iterable[Item]:
    """A bar on a terminal."""
    return tqdm(steps, desc=desc, disable=None)


def encode_images(
    model: ImageTextModel, processor: Processor, rows: Readings, batch_size: int, track: Track = progress_bar
) -> ImageBank:
    """Encode each distinct image of the rows (several readings may share one)."""
    images = Images(processor, rows)
    order = sorted(images.place)
    pooled, patches = [], []
    with inference(model):
        for batch in track(batches(order, batch_size), desc="images"):
            image_embeds, patch_embeds = image_embeddings(model, images.pixels(batch), batch)
            pooled.append(image_embeds)
            if patch_embeds is not None:
                patches.append(patch_embeds)
    places = {image_id: place for place, image_id in enumerate(order)}
    return ImageBank(places, torch.cat(pooled), torch.cat(patches) if patches else None, pooling_scale(model))


def pooling_scale(model: Any) -> float | None:
    """The logit scale by which sentences weigh patches, of a model that pools them so (`interaction: cabs`)."""
    settings = getattr(model.config, "interaction", None), model.config.zero_shot_score
    return float(model._scale().detach()) if "cabs" in settings else None


def encode_texts(
    model: ImageTextModel, processor: Processor, texts: Iterable[str], batch_size: int, track: Track = progress_bar
) -> TextBank:
    """Encode each distinct sentence, sentences of similar length together so that little is padded."""
    order = sorted(set(texts), key=lambda text: (len(text), text))
    with inference(model):
        steps = track(batches(order, batch_size), desc="sentences")
        embeddings = [text_embeddings(model, processor, batch) for batch in steps]
    return TextBank({text: place for place, text in enumerate(order)}, torch.cat(embeddings))


def image_embeddings(model: ImageTextModel, pixels: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """One batch (B, 3, H, W) of the images `names` -> pooled (B, D) and patches (B, P, D), float32 on the CPU."""
    pooled, patches = model.encode_images(pixels.to(model.device))
    pooled = finite("image", names, pooled.float().cpu())
    return pooled, None if patches is None else finite("image", names, patches.float().cpu())


def text_embeddings(model: ImageTextModel, processor: Processor, sentences: Sequence[str]) -> Tensor:
    """One batch of sentences -> (N, D), float32 on the CPU."""
    batch = distinct_texts(processor(text=list(sentences), return_tensors="pt"))
    inputs = {name: values.to(model.device) for name, values in text_inputs(batch).items()}
    encoded = encode_blocks(model.encode_text, inputs, length_blocks(batch["text_lengths"])).float().cpu()
    return finite("text", sentences, encoded[batch["sentence_index"]])


def finite(kind: str, names: Sequence[str], values: Tensor) -> Tensor:
    """`values` (n, ...), of one image or text each.

    Raises:
        NotFinite: NaN or an infinite number among them.
    """
    broken = (~values.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise NotFinite(
            f"{kind} '{names[broken[0]]}': what the model makes of it is not finite (so are {len(broken)} of the "
            f"{len(names)} {kind}s encoded together); expected weights and settings that give numbers"
        )
    return values


def rounded(scores: Tensor) -> NDArray[np.float64]:
    """Scores of unit vectors without float32's last bits, which depend on the batch's shape and would break ties.

    Raises:
        NotFinite: a score is no number, which every ranking would take for one.
    """
    if not bool(scores.isfinite().all()):
        raise NotFinite(f"{int((~scores.isfinite()).sum())} of {scores.numel()} scores are not finite")
    return scores.double().round(decimals=COSINE_DECIMALS).numpy()


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


@contextmanager
def inference(model: ImageTextModel) -> Iterator[None]:
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
