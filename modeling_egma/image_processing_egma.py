"""Images -> the square frame that the model sees."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs
from transformers.utils.constants import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from .gaze_egma import invert
from .pictures_egma import as_picture, picture_list


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

    def _prepare_image_like_inputs(
        self, images: Any, *args: Any, input_data_format: Any = None, expected_ndims: int = 3, **kwargs: Any
    ) -> list[np.ndarray]:
        settings = {name: kwargs.get(name) for name in ("do_rescale", "do_convert_rgb")}
        pictures = picture_list(images, input_data_format=input_data_format, **settings)
        return [self.process_image(picture, *args, **kwargs) for picture in pictures]

    def _preprocess(  # type: ignore[override]
        self, images: list[np.ndarray], *args: Any, do_pad_square: bool = True, **kwargs: Any
    ) -> BatchFeature:
        if do_pad_square:
            images = [_pad_to_square(image) for image in images]
        return super()._preprocess(images, *args, **kwargs)


def warp_frames(pixel_values: Tensor, affines: Tensor, fill: Tensor) -> Tensor:
    """Move pictures inside their frames, bilinearly, with what comes in from outside filled.

    Args:
        pixel_values: (B, C, H, W), normalised.
        affines: (B, 2, 3) maps from frame fractions to frame fractions (`gaze_egma.frame_affine`, `frame_crop`).
        fill: (C,) value of black after normalisation.
    """
    # grid_sample asks, for every output place, where to look, in [-1, 1]
    back = torch.stack([invert(affine) for affine in affines])
    linear, offset = back[:, :, :2], back[:, :, 2]
    offset = 2 * (linear.sum(dim=-1) / 2 + offset) - 1
    theta = torch.cat([linear, offset[..., None]], dim=-1).to(pixel_values.dtype)
    places = torch.nn.functional.affine_grid(theta, list(pixel_values.shape), align_corners=False)
    black = fill.to(pixel_values)[None, :, None, None]
    return torch.nn.functional.grid_sample(pixel_values - black, places, align_corners=False) + black


def _pad_to_square(image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (C, S, S), centred; an odd rest goes below and to the right."""
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(image, ((0, 0), (top, side - height - top), (left, side - width - left)))
