"""Sizes of pictures, in tables and on disk."""

from dataset_scripts.files.tables import number
from dataset_scripts.ledger import Ledger

LONGEST_SIDE = 100_000
SHAPE_TOLERANCE = 0.02


def side_pixels(cell: str) -> int | None:
    """The side of an image in pixels, None where the cell holds no size that an image can have."""
    value = number(cell)
    return int(value) if value is not None and 1 <= value <= LONGEST_SIDE else None


def check_size(image_id: str, picture: tuple[int, int], frame: tuple[int, int], ledger: Ledger) -> None:
    """Note when a decoded picture has another size or shape than the frame (width, height) that gaze refers to.

    Gaze is scaled by the frame, so another size does no harm; another shape means that one of the two is wrong.
    """
    if picture == frame:
        return
    ratio = picture[0] * frame[1] / (picture[1] * frame[0])
    kind = "shape" if abs(ratio - 1) > SHAPE_TOLERANCE else "size"
    ledger.note(f"image_{kind}_differs_from_table", f"{image_id}: {_by(picture)}, table {_by(frame)}")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
