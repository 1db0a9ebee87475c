"""Between the square frame that the model sees and the image: the only place where the padding is undone."""

import numpy as np
import torch

from dataset_scripts.schema import Box
from egma_evaluation.bootstrap import Array
from modeling_egma.gaze_egma import invert, square_frame, transform_points


def frame_to_image(points: Array, width: float, height: float) -> Array:
    """Frame fractions (n, 2) as x, y -> image fractions (n, 2); outside [0, 1] in the padding."""
    x, y = transform_points(invert(square_frame(width, height)), *torch.from_numpy(points).T)
    return torch.stack([x, y], dim=1).numpy()


def patch_centres(grid: int) -> Array:
    """(grid * grid, 2) frame fractions of the patches' centres, row by row from the top left."""
    middles = (np.arange(grid) + 0.5) / grid
    y, x = np.meshgrid(middles, middles, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def inside_any(points: Array, boxes: list[Box]) -> Array:
    """(n,) 1 where a point (n, 2), image fractions, lies in the image and in a box (or the ellipse inscribed in it)."""
    hit = np.zeros(len(points), dtype=bool)
    for box in boxes:
        corners = np.array([[box["x_min"], box["y_min"]], [box["x_max"], box["y_max"]]])
        half_sides = (corners[1] - corners[0]) / 2
        offset = np.abs(points - corners.mean(axis=0))
        if box["shape"] == "ellipse":
            hit |= ((offset * half_sides[::-1]) ** 2).sum(axis=1) <= half_sides.prod() ** 2
        else:
            hit |= (offset <= half_sides).all(axis=1)
    in_image = ((points >= 0) & (points <= 1)).all(axis=1)
    return (hit & in_image).astype(np.float64)
