"""Between the square frame that the model sees and the image: the only place where the padding is undone."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_scripts.schema import Box, Reading
from egma.tools.arrays import Array
from modeling_egma.gaze_egma import maps_on_images, square_frame

MAP_DECIMALS = 9
CENTRE_SIGMA = 0.25  # fraction of the image's sides


def frame_to_image(points: Array, width: float, height: float) -> Array:
    """Frame fractions (n, 2) as x, y -> image fractions (n, 2); outside [0, 1] in the padding."""
    frame = square_frame(width, height).numpy()  # nothing but a scale and a shift
    return np.asarray((points - frame[:, 2]) / frame.diagonal())


def patch_centres(grid: int) -> Array:
    """(grid * grid, 2) frame fractions of the patches' centres, row by row from the top left."""
    middles = (np.arange(grid) + 0.5) / grid
    y, x = np.meshgrid(middles, middles, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def inside_any(points: Array, boxes: list[Box]) -> Array:
    """(n,) 1 where a point (n, 2), image fractions, lies in the image and in a box (or the ellipse inscribed in it)."""
    return _inside_any(points[:, 0], points[:, 1], boxes).astype(np.float64)


def _inside_any(x: Array, y: Array, boxes: list[Box]) -> NDArray[np.bool_]:
    """`inside_any` of coordinates that are broadcast against each other: of a grid, a row of x and a column of y."""
    hit = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for box in boxes:
        half_width, half_height = (box["x_max"] - box["x_min"]) / 2, (box["y_max"] - box["y_min"]) / 2
        across, down = np.abs(x - (box["x_min"] + box["x_max"]) / 2), np.abs(y - (box["y_min"] + box["y_max"]) / 2)
        if box["shape"] == "ellipse":
            hit |= (across * half_height) ** 2 + (down * half_width) ** 2 <= (half_width * half_height) ** 2
        else:
            hit |= (across <= half_width) & (down <= half_height)
    return hit & ((x >= 0) & (x <= 1)) & ((y >= 0) & (y <= 1))


def image_maps(maps: Array, readings: Sequence[Reading], cells: int) -> Array:
    """Maps (n, G, G) on the frames of n readings -> (n, cells, cells) on their images.

    So maps of images of different shapes can be compared or averaged. Rounded, so that equal patches stay equal.
    """
    sizes = [(reading["width"], reading["height"]) for reading in readings]
    sized = maps_on_images(torch.from_numpy(np.asarray(maps, dtype=np.float64)), sizes, cells, cells)
    return sized.numpy().round(MAP_DECIMALS)


def box_masks(boxes: Sequence[list[Box]], cells: int) -> NDArray[np.bool_]:
    """(n, cells, cells): the cells of an image whose centre lies in a box."""
    middles = (np.arange(cells) + 0.5) / cells
    marked = [_inside_any(middles, middles[:, None], of_one) for of_one in boxes]
    return np.array(marked, dtype=np.bool_).reshape(-1, cells, cells)


def centred_gaussian(cells: int) -> Array:
    """(cells, cells) centre bias without training data: a Gaussian of a quarter of the image's sides, maximum 1."""
    x, y = (patch_centres(cells) - 0.5).T
    gaussian = np.exp(-(x**2 + y**2) / (2 * CENTRE_SIGMA**2)).reshape(cells, cells)
    return np.asarray(gaussian / gaussian.max(), dtype=np.float64)
