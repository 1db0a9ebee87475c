"""What the metrics of maps have in common: checked input, and a map as a distribution."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egma.tools.arrays import Array


def checked_maps(maps: ArrayLike, name: str = "maps") -> Array:
    """Maps as (n, H, W) float64.

    Raises:
        ValueError: another shape, no cell, or a value that is not finite.
    """
    checked = np.asarray(maps, dtype=np.float64)
    if checked.ndim != 3 or 0 in checked.shape[1:]:
        raise ValueError(f"{name} have shape {checked.shape}, expected (n, height, width)")
    if not np.isfinite(checked).all():
        refuse(~np.isfinite(checked).all(axis=(1, 2)), f"{name}: a value that is not finite")
    return checked


def checked_pair(maps: ArrayLike, others: ArrayLike, name: str) -> tuple[Array, Array]:
    """Both as (n, H, W) float64, the first also one (1, H, W) for all n, the second (`name`) with no negative value.

    Raises:
        ValueError: see `checked_maps`; shapes that differ, or a negative value in the second.
    """
    first, second = checked_maps(maps), checked_maps(others, name)
    _check_shapes(first, second, name)
    refuse((second < 0).any(axis=(1, 2)), f"{name}: a negative value")
    return first, second


def _check_shapes(maps: Array, others: NDArray[Any], name: str) -> None:
    if maps.shape[1:] != others.shape[1:] or len(maps) not in (1, len(others)):
        raise ValueError(f"{name} have shape {others.shape}, expected that of the maps, {maps.shape}")


def checked_masks(maps: ArrayLike, masks: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """Maps (n, H, W), or one (1, H, W) for all, and masks (n, H, W) as bool.

    Raises:
        ValueError: see `checked_maps`; shapes that differ, a mask with other values than 0 and 1, an empty mask.
    """
    first, marked = checked_maps(maps), np.asarray(masks)
    if marked.dtype != bool:
        marked = checked_maps(masks, "masks")
        refuse(((marked != 0) & (marked != 1)).any(axis=(1, 2)), "masks: a value other than 0 and 1")
        marked = marked.astype(bool)
    _check_shapes(first, marked, "masks")
    refuse(~marked.any(axis=(1, 2)), "masks: no cell is marked")
    return first, marked


def is_constant(maps: Array) -> NDArray[np.bool_]:
    """(n,) whether all cells of a map (n, H, W) are equal."""
    return maps.max(axis=(1, 2)) == maps.min(axis=(1, 2))


def min_max(maps: Array) -> Array:
    """Maps (n, H, W) of any sign, each shifted and scaled to [0, 1]; a constant map becomes 0."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return (maps - low) / np.where(span > 0, span, 1.0)


def as_distributions(maps: Array) -> Array:
    """Maps (n, H, W) of any sign, such as cosines, each less its minimum and divided by its sum.

    A constant map becomes the uniform distribution.
    """
    shifted = np.where(is_constant(maps)[:, None, None], 1.0, min_max(maps))
    return shifted / shifted.sum(axis=(1, 2), keepdims=True)


def refuse(bad: ArrayLike, reason: str) -> None:
    """Raise ValueError that names the first map (n,) which is bad."""
    places = np.flatnonzero(bad)
    if len(places):
        raise ValueError(f"{reason} (map {int(places[0])})")
