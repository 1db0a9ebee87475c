"""Body coordinates of the generated patient, and the pose that puts the body into a picture.

Body coordinates: x grows towards the right edge of the picture (the patient's left), y grows downwards, the
origin is the middle of the chest. One unit is about half the width of the rib cage: the lungs reach from
y = -0.97 (apex) to about y = 0.75 (costophrenic angle) and to |x| = 0.86.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.phantom.world import Framing

FloatArray = NDArray[np.floating]
Side = Literal["left", "right"]
Zone = Literal["upper", "mid", "lower"]

LUNG_CENTRE_Y, LUNG_HALF_WIDTH, LUNG_HALF_HEIGHT = 0.25, 0.86, 1.22


@dataclass(frozen=True)
class Ellipse:
    """An axis-aligned ellipse in body coordinates."""

    x: float
    y: float
    x_radius: float
    y_radius: float

    def overlaps(self, other: "Ellipse", share: float = 0.75) -> bool:
        """Whether the two bounding boxes, shrunk to `share` of their size, meet."""
        return (
            abs(self.x - other.x) < share * (self.x_radius + other.x_radius)
            and abs(self.y - other.y) < share * (self.y_radius + other.y_radius)
        )  # fmt: skip


@dataclass(frozen=True)
class PixelBox:
    """A box in pixels of the picture."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True)
class Pose:
    """How the body lies in a picture of `width` x `height` pixels: pixel = matrix @ body + origin."""

    width: int
    height: int
    matrix: tuple[float, float, float, float]
    x_origin: float
    y_origin: float

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Body coordinates (n, 2) to pixels (n, 2)."""
        return points @ np.array(self.matrix).reshape(2, 2).T + (self.x_origin, self.y_origin)

    def body_grid(self, columns: int, rows: int) -> tuple[FloatArray, FloatArray]:
        """Body coordinates x, y, each (rows, columns), of the cell centres of a grid laid over the picture."""
        a, b, c, d = self.matrix
        determinant = a * d - b * c
        x = ((np.arange(columns) + 0.5) * self.width / columns - self.x_origin) / determinant
        y = ((np.arange(rows) + 0.5) * self.height / rows - self.y_origin)[:, None] / determinant
        return (d * x - b * y).astype(np.float32), (a * y - c * x).astype(np.float32)

    def pixel_box(self, ellipse: Ellipse, margin: float = 1.0, clip: bool = True) -> PixelBox:
        """The bounding box of an ellipse whose radii are multiplied by `margin`, cut to the picture if `clip`."""
        a, b, c, d = self.matrix
        half_width = margin * math.hypot(a * ellipse.x_radius, b * ellipse.y_radius)
        half_height = margin * math.hypot(c * ellipse.x_radius, d * ellipse.y_radius)
        x, y = self.to_pixels(np.array([[ellipse.x, ellipse.y]]))[0]
        box = PixelBox(x - half_width, y - half_height, x + half_width, y + half_height)
        return self._clipped(box) if clip else box

    def _clipped(self, box: PixelBox) -> PixelBox:
        return PixelBox(
            *(max(0.0, box.x_min), max(0.0, box.y_min)), min(self.width, box.x_max), min(self.height, box.y_max)
        )


def sample_pose(rng: np.random.Generator, framing: Framing) -> Pose:
    """A picture of 400 to 700 px a side, never square, with the body shifted, scaled and turned."""
    long_side = int(rng.integers(520, 701))
    short_side = max(400, round(long_side * rng.uniform(0.78, 0.96)))
    width, height = (short_side, long_side) if rng.random() < 0.65 else (long_side, short_side)
    unit = min(width / 2.35, height / 2.3)
    scale = unit * rng.uniform(framing.smallest, framing.largest)
    angle, build = math.radians(rng.normal(0.0, 2.5)), rng.uniform(0.93, 1.06)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    return Pose(
        width=width,
        height=height,
        matrix=(build * cosine, -sine, build * sine, cosine),
        x_origin=width / 2 + rng.uniform(-framing.shift, framing.shift) * unit,
        y_origin=height / 2 + 0.08 * scale + rng.uniform(-framing.shift, framing.shift) * unit,
    )


def side_sign(side: Side) -> int:
    """The patient's left lies on the right of the picture."""
    return 1 if side == "left" else -1


def lung_outer_x(y: float) -> float:
    """Distance from the midline to the chest wall at height y, in body units."""
    return LUNG_HALF_WIDTH * math.sqrt(max(0.0, 1.0 - ((y - LUNG_CENTRE_Y) / LUNG_HALF_HEIGHT) ** 2))
