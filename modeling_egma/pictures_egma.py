"""Whatever a picture comes as -> the one 8-bit picture that it is."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from .dicom_egma import is_dicom, read_dicom

ADDRESS_SECONDS = 30
# of a picture as it is decoded, and of the square that its frame is made of
MAX_PIXELS, MAX_PIXEL_BYTES, MAX_SIDE = 32_000_000, 96_000_000, 8192
EIGHT_BIT_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP")
EIGHT_BIT_MODES = ("L", "LA", "RGB", "RGBA", "P", "PA", "1")
CHANNEL_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def picture_list(images: Any, do_rescale: bool | None = True, **settings: Any) -> list[Image.Image]:
    """One picture, a 4-D batch, or lists of both, nested or not -> pictures, as `as_picture` makes them by `settings`.

    Raises:
        ValueError: a picture that `as_picture` refuses; floats with `do_rescale=False`, which would leave the 8-bit
            picture at 0 ... 255.
    """
    if isinstance(images, Sequence) and not isinstance(images, str):
        return [picture for image in images for picture in picture_list(image, do_rescale, **settings)]
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim == 4:
            return picture_list(list(images), do_rescale, **settings)
        if do_rescale is False and _array(images).dtype.kind == "f":
            raise ValueError("pictures of floats are scaled once, here: leave out do_rescale=False")
    return [as_picture(images, **settings)]


def as_picture(image: Any, input_data_format: Any = None, do_convert_rgb: bool | None = True) -> Image.Image:
    """The picture as L or RGB: upright by its EXIF tag, what is transparent on black.

    Args:
        image: a path (of plain DICOM too: `dicom_egma`), an address, a `data:image/` string, a PIL picture, or an
            array or tensor: (H, W), (H, W, C) or (C, H, W) of 1 to 4 channels (grey, grey and alpha, RGB, RGBA); bool,
            uint8, or floats from 0 to 1.
        input_data_format: `"channels_first"` or `"channels_last"`, needed where the shape fits both.
        do_convert_rgb: False leaves RGBA as it is, four channels.

    Raises:
        ValueError: none of these, too large, or over 8 bits a channel: which value is white is the corpus's to say.
    """
    if isinstance(image, str | Path):
        return _opened(image, do_convert_rgb)
    if isinstance(image, np.ndarray | Tensor):
        image = _from_array(_array(image), input_data_format)
    if not isinstance(image, Image.Image):
        raise ValueError(f"expected a picture (a path, PIL, an array or a tensor), got {type(image).__name__}")
    _check_size(*image.size, len(image.getbands()))
    if image.mode in ("L", "RGB") and image.format is None and not image.info:
        return image
    _check_bits(image)
    image = ImageOps.exif_transpose(image)
    if image.mode != "RGBA" or do_convert_rgb is not False:
        image = _on_black(image).convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    image.info = {}
    return image


def _opened(source: str | Path, do_convert_rgb: bool | None) -> Image.Image:
    try:
        content = _content(source)
        if isinstance(content, Path) and is_dicom(content):
            return as_picture(read_dicom(content, _check_size))
        with Image.open(content) as image:
            return as_picture(image, do_convert_rgb=do_convert_rgb)
    except Exception as error:  # a damaged file makes the decoders fail in any way
        raise ValueError(f"{str(source)[:200]}: {error}; expected a picture, JPEG, PNG or DICOM") from None


def _content(source: str | Path) -> Path | io.BytesIO:
    text = str(source)
    if text.startswith(("http://", "https://")):
        with urlopen(text, timeout=ADDRESS_SECONDS) as answer:
            return io.BytesIO(answer.read())
    return io.BytesIO(base64.b64decode(text.partition(",")[2])) if text.startswith("data:image/") else Path(source)


def _check_size(width: int, height: int, channels: int) -> None:
    if width * height > (most := min(MAX_PIXELS, MAX_PIXEL_BYTES // channels)) or max(width, height) > MAX_SIDE:
        said = f"{width:,} x {height:,} pixels of {channels} channels"
        raise ValueError(f"{said}; at most {most:,}, and {MAX_SIDE:,} a side, are read")


def _check_bits(image: Image.Image) -> None:
    if image.mode not in EIGHT_BIT_MODES:
        raise ValueError(
            f"image mode {image.mode} is not supported; expected an 8-bit picture ({', '.join(EIGHT_BIT_MODES)}): "
            "window or rescale it to 8 bits first"
        )
    has_channels = image.mode in ("LA", "RGB", "RGBA")
    if has_channels and (image.format not in (None, *EIGHT_BIT_FORMATS) or _is_cut(image)):
        raise ValueError(
            f"a {image.format} picture of several channels which has, or may have, 16 bits each: Pillow cuts them to "
            "8 as it opens them; window or rescale it to 8 bits first"
        )


def _is_cut(image: Image.Image) -> bool:
    """Whether Pillow reads 16 bits a channel as 8: the raw mode says so until the file is decoded."""
    tiles, path = getattr(image, "tile", ()), getattr(image, "filename", "")
    if not tiles and path and Path(path).is_file():
        with Image.open(path) as undecoded:
            tiles = getattr(undecoded, "tile", ())
    return any(";16" in str(tile[3]) for tile in tiles)


def _on_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
    colours = image.convert("L" if image.mode == "LA" else "RGB")
    black = Image.new(colours.mode, image.size)
    black.paste(colours, mask=image.getchannel("A"))
    return black


def _array(image: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    image = image.detach().cpu()
    return (image.float() if image.is_floating_point() else image).numpy()


def _from_array(values: np.ndarray, input_data_format: Any) -> Image.Image:
    if values.size == 0 or values.ndim not in (2, 3):
        raise ValueError(f"an array of shape {values.shape} is no picture; expected (H, W), (H, W, C) or (C, H, W)")
    values = _to_bytes(values)
    if values.ndim == 2:
        return Image.fromarray(values)
    values = np.moveaxis(values, _channel_axis(values.shape, input_data_format), -1)
    mode = CHANNEL_MODES[values.shape[-1]]
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes())


def _channel_axis(shape: tuple[int, ...], input_data_format: Any) -> int:
    asked = {"channels_first": [0], "channels_last": [2]}.get(getattr(input_data_format, "value", input_data_format))
    axes = [axis for axis in asked or (0, 2) if shape[axis] in CHANNEL_MODES]
    if len(axes) != 1:
        said = "channels first and channels last" if axes else "1 to 4 channels"
        raise ValueError(
            f"an array of shape {shape} {'fits' if axes else 'has not'} {said}; expected (H, W), (H, W, C) or "
            "(C, H, W), with input_data_format where both fit"
        )
    return axes[0]


def _to_bytes(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind != "f":
        raise ValueError(
            f"an array of {values.dtype} has no fixed white; expected bool, uint8, or floats from 0 to 1: window or "
            "rescale it to 8 bits first"
        )
    scaled = np.round(values.astype(np.float64) * 255)
    if not (scaled.min() >= 0 and scaled.max() <= 255):  # false of NaN
        raise ValueError(f"floats from {values.min():g} to {values.max():g} are no picture; expected 0 to 1, or uint8")
    return scaled.astype(np.uint8)
