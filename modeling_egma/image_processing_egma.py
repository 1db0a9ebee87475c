"""Images -> the square frame that the model sees."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs
from transformers.utils.constants import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from .gaze_egma import invert
from .pictures_egma import as_picture, picture_list

VALUE_SETTINGS = ("do_convert_rgb", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


class EgmaImageProcessorKwargs(ImagesKwargs, total=False):
    """`do_pad_square`: pad with black, centred, to a square before the resize."""

    do_pad_square: bool


class EgmaImageProcessor(PilBackend):
    """Pads to a square with black, centred, then resizes, rescales and normalises.

    The geometry is that of `gaze_egma.square_frame`, so fixations and boxes can follow. Every picture
    comes in through `pictures_egma.as_picture`.
    """

    valid_kwargs = EgmaImageProcessorKwargs

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"height": 224, "width": 224}  # noqa: RUF012
    default_to_square = True
    do_convert_rgb = True
    do_pad_square = True
    do_resize = True
    do_rescale = True
    do_normalize = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Paths, addresses and anything else that `as_picture` knows -> pictures, in the lists that they came in."""
        if isinstance(image_url_or_urls, list | tuple):
            return [self.fetch_images(image) for image in image_url_or_urls]
        return as_picture(image_url_or_urls)

    def frames(self, pictures: list[Image.Image]) -> Tensor:
        """Of pictures as `as_picture` gives them: uint8 (B, C, H, W), C is 1 when all are grey; see `frame_values`."""
        raw: dict[str, Any] = {"do_rescale": False, "do_normalize": False, "do_convert_rgb": False}
        frames = self(pictures, **raw)["pixel_values"]
        channels = max(map(len, frames))
        return torch.from_numpy(np.stack([np.broadcast_to(one, (channels, *one.shape[1:])) for one in frames]))

    def _prepare_image_like_inputs(
        self, images: Any, *args: Any, input_data_format: Any = None, expected_ndims: int = 3, **kwargs: Any
    ) -> list[np.ndarray]:
        settings = {name: kwargs.get(name) for name in ("do_rescale", "do_convert_rgb")}
        pictures = picture_list(images, input_data_format=input_data_format, **settings)
        if kwargs.get("do_pad_square", True):
            pictures = [_padded_to_square(picture) for picture in pictures]
        # grey stays one channel until its values are made
        return [self.process_image(picture, *args, **kwargs | {"do_convert_rgb": False}) for picture in pictures]

    def _preprocess(  # type: ignore[override]
        self, images: list[np.ndarray], *args: Any, **kwargs: Any
    ) -> BatchFeature:
        raw = {"do_rescale": False, "do_normalize": False, "do_pad": False, "return_tensors": None}
        frames = super()._preprocess(images, *args, **kwargs | raw)["pixel_values"]
        settings = {name: kwargs.get(name) for name in VALUE_SETTINGS}
        if any(settings[name] for name in ("do_convert_rgb", "do_rescale", "do_normalize")):
            frames = [frame_values(torch.from_numpy(frame)[None], settings)[0].numpy() for frame in frames]
        if kwargs.get("do_pad"):
            frames = self.pad(frames, pad_size=kwargs["pad_size"])
        return BatchFeature(data={"pixel_values": frames}, tensor_type=kwargs.get("return_tensors"))


def frame_values(frames: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Frames (B, C, H, W) of values from 0 to 255 -> pixel values (B, 3, H, W), on the frames' device.

    Grey is repeated, scaled and normalised as the image processor's `VALUE_SETTINGS` say.
    """
    if settings["do_rescale"]:
        frames = frames.float() * settings["rescale_factor"]
    if settings["do_convert_rgb"] and frames.shape[1] == 1:
        frames = frames.expand(-1, 3, -1, -1)
    if settings["do_normalize"]:
        for name in (names := ("image_mean", "image_std")):
            if np.ndim(settings[name]) and len(settings[name]) != frames.shape[1]:
                raise ValueError(f"{name} has {len(settings[name])} value(s), expected {frames.shape[1]}")
        mean, std = (_by_channel(str(frames.device), *np.ravel(settings[name])) for name in names)
        frames = (frames - mean) / std
    return frames


@cache
def _by_channel(device: str, *values: float) -> Tensor:
    """(C, 1, 1); copied to a device once, as the copy makes the host wait."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)


def warp_frames(frames: Tensor, affines: Tensor) -> Tensor:
    """Move pictures inside their frames, bilinearly; what comes in from outside is black.

    Args:
        frames: (B, C, H, W), black is 0.
        affines: (B, 2, 3) maps from frame fractions to frame fractions (`gaze_egma.frame_affine`, `frame_crop`).
    """
    # grid_sample asks, for every output place, where to look, in [-1, 1]
    back = invert(affines)
    linear, offset = back[:, :, :2], back[:, :, 2]
    offset = 2 * (linear.sum(dim=-1) / 2 + offset) - 1
    theta = torch.cat([linear, offset[..., None]], dim=-1).float()
    places = torch.nn.functional.affine_grid(theta, list(frames.shape), align_corners=False)
    return torch.nn.functional.grid_sample(frames.float(), places, align_corners=False)


def _padded_to_square(picture: Image.Image) -> Image.Image:
    """Centred; an odd rest goes below and to the right."""
    side = max(picture.size)
    square = Image.new(picture.mode, (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
