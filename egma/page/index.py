"""The gallery's embeddings on the disk, so that a later start of the page finds without encoding."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from datasets import Dataset, Image
from safetensors.torch import load, save

from dataset_scripts.identity import model_identity, program_identity
from egma.evaluation.task_cache import TaskCache
from egma.inference.embeddings import ImageBank, TextBank
from egma.tools.processes import EVALUATION_SOURCES

logger = logging.getLogger("egma.page")
Banks = tuple[ImageBank, TextBank]
Index = Callable[[Dataset, Iterable[str], Callable[[], Banks]], Banks]


def kept_banks(folder: Path, model: str, rows: Dataset, texts: Iterable[str], encode: Callable[[], Banks]) -> Banks:
    """What `encode` makes of the rows' images and of the texts, with the model of that name: as the folder has it,
    unless that is of another model, content or program, or damaged.
    """
    path, digest = folder / "gallery.safetensors", lambda content: hashlib.sha256(content).hexdigest()
    pictures = [digest(one["bytes"]) for one in rows.cast_column("image", Image(decode=False))["image"]]
    made_of = {"model": model_identity(model) or model, "program": program_identity(*EVALUATION_SOURCES)}
    about = TaskCache(folder, made_of | {"images": [*rows["image_id"]], "pictures": pictures, "texts": sorted(texts)})
    known, stored = about.read("gallery"), path.read_bytes() if path.is_file() else b""
    if known and known["digest"] == digest(stored):
        tensors = load(stored)
        images = ImageBank(known["images"], tensors["pooled"], tensors.get("patches"), known["scale"])
        return images, TextBank(known["texts"], tensors["texts"])
    if stored:
        logger.warning("%s: of another model or corpus, or damaged; it is made again", path)
    images, sentences = encode()
    patches = {} if images.patches is None else {"patches": images.patches}
    stored = save({"pooled": images.pooled, "texts": sentences.embeddings} | patches)
    places = {"images": images.place, "texts": sentences.place, "scale": images.pooling_scale}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored)
        about.write("gallery", places | {"digest": digest(stored)})
    except OSError as error:
        logger.warning("%s: not kept: %s", path, error.strerror)
    return images, sentences
