"""Frames of corpora as the model sees them before augmentation: made once, then mapped into memory.

`key.json` says what made them; a file is there when it is whole.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import features
from torch import Tensor
from tqdm.auto import tqdm

from dataset_scripts.identity import corpus_identity, version
from dataset_scripts.schema import UserError
from egma.tools.processes import write_json
from egma.training.readings import Readings, available_cores, make_loader
from modeling_egma import image_processing_egma, pictures_egma

GEOMETRY = ("size", "resample", "do_resize", "do_pad_square", "do_center_crop", "crop_size", "do_pad", "pad_size")
IMAGES_AT_ONCE = 64
LARGEST_SHARE = 0.2  # of the device's free memory


class PreparedFrames:
    """uint8 frames (images, C, H, W) of readings, each image of a corpus once.

    Args:
        corpora: the folders that the readings are of.
        name: of the files in `folder`.

    Raises:
        UserError: the folder holds frames that something else made.
    """

    def __init__(
        self, folder: Path, corpora: Sequence[Path], readings: Readings, name: str, image_processor: Any
    ) -> None:
        corpus = np.repeat(np.arange(len(readings.sizes)), readings.sizes)
        images = readings.images + corpus * (readings.images.max() + 1)
        _, chosen, self.places = np.unique(images, return_index=True, return_inverse=True)
        path, sizes = folder / f"{name}.npy", folder / f"{name}-sizes.npy"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            # another process may be making them
            fcntl.flock(lock, fcntl.LOCK_EX)
            _check_key(folder / "key.json", _key(corpora, image_processor))
            if not path.exists():
                _make(path, sizes, readings, chosen, image_processor)
        self.frames, self.sizes = np.load(path, mmap_mode="r"), np.load(sizes)
        self.on_device = False

    def of_row(self, row: int) -> dict[str, Any]:
        """The frame of a row's image, or its place where the device has the frames, and the image's size."""
        place = int(self.places[row])
        frame = {"frame_places": place} if self.on_device else {"pixel_values": self.frames[place]}
        return frame | {"size": tuple(self.sizes[place].tolist())}

    def move_to(self, device: torch.device) -> Tensor:
        """All frames on the device.

        Raises:
            UserError: they take more than a fifth of its free memory.
        """
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        if self.frames.nbytes > LARGEST_SHARE * free:
            raise UserError(
                f"keep_on_device: the training frames take {self.frames.nbytes / 1e9:.2f} GB, expected at most "
                f"{LARGEST_SHARE:.0%} of the {free / 1e9:.2f} GB that the device has free; leave it out"
            )
        self.on_device = True
        return torch.from_numpy(np.array(self.frames)).to(device)


def _make(
    path: Path, sizes_path: Path, readings: Readings, chosen: Any, image_processor: Any, channels: int = 1
) -> None:
    blocks = [
        [(int(row), 0) for row in chosen[at : at + IMAGES_AT_ONCE]] for at in range(0, len(chosen), IMAGES_AT_ONCE)
    ]
    loader = make_loader(readings, partial(_framed, image_processor), blocks, available_cores(), torch.device("cpu"))
    unfinished = path.with_name(f".partial-{path.name}")
    sizes: list[tuple[int, int]] = []
    for frames, own in tqdm(loader, desc=f"frames in {path}", disable=None):
        if frames.shape[1] > channels:
            return _make(path, sizes_path, readings, chosen, image_processor, channels=3)
        if not sizes:
            shape = len(chosen), channels, *frames.shape[2:]
            stored = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        stored[len(sizes) : len(sizes) + len(own)] = frames
        sizes += own
    stored.flush()
    np.save(sizes_path, np.array(sizes, dtype=np.int32))
    unfinished.rename(path)


def _framed(image_processor: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, list[tuple[int, int]]]:
    """Frames (B, C, H, W) of rows and the sizes of their images."""
    pictures = pictures_egma.picture_list([row["image"] for row in rows])
    return image_processor.frames(pictures).numpy(), [picture.size for picture in pictures]


def _key(corpora: Sequence[Path], image_processor: Any) -> dict[str, Any]:
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (image_processing_egma, pictures_egma))
    settings = image_processor.to_dict()
    return {
        "corpora": [corpus_identity(corpus) for corpus in corpora],
        "decoder": {"pillow": version("pillow")}
        | {name: features.version(name) for name in features.get_supported_codecs()},
        "geometry": {name: settings.get(name) for name in GEOMETRY},
        "code": hashlib.sha256(sources).hexdigest()[:16],
    }


def _check_key(path: Path, key: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, key)
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, value in json.loads(json.dumps(key)).items():
        if found.get(name) != value:
            raise UserError(
                f"{path}: the frames are of {name} {found.get(name)}, expected {value}; name another folder for "
                "--prepared, or delete this one"
            )
