"""Boxes and ellipses of any corpus -> fractions of the image."""

from dataset_scripts.files.tables import Row, number
from dataset_scripts.schema import Box


def fraction_corners(
    row: Row, names: tuple[str, str, str, str], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """`x_min, y_min, x_max, y_max` as fractions, from the columns `names` in pixels.

    None when a number is missing, the box has no area or it does not touch the image.
    """
    left, top, right, bottom = (number(row[name]) for name in names)
    if left is None or top is None or right is None or bottom is None:
        return None
    return pixel_corners((left, top, right, bottom), width, height)


def pixel_corners(
    corners: tuple[float, float, float, float], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """`x_min, y_min, x_max, y_max` in pixels as fractions; None without area or beside the image."""
    left, top, right, bottom = (
        value / side for value, side in zip(corners, (width, height, width, height), strict=True)
    )
    meets_image = left < min(right, 1) and top < min(bottom, 1) and right > 0 and bottom > 0
    return (left, top, right, bottom) if meets_image else None


def clipped_box(label: str, corners: tuple[float, float, float, float]) -> Box:
    """A rectangle cut at the edges of the image."""
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in corners)
    return Box(label=label, shape="box", x_min=left, y_min=top, x_max=right, y_max=bottom, certainty=None)


def ellipse(label: str, corners: tuple[float, float, float, float], certainty: float | None) -> Box:
    """An ellipse, by the box around it; it may leave the image, since a clipped box would inscribe another ellipse."""
    left, top, right, bottom = corners
    return Box(label=label, shape="ellipse", x_min=left, y_min=top, x_max=right, y_max=bottom, certainty=certainty)
