"""Figures for a README or a model card; drawn without pyplot, so nothing global is touched and no display is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from egma.figures.finish import finished
from modeling_egma.gaze_egma import maps_on_images

HEAT_COLORMAP = "magma"  # perceptually uniform and readable without colour vision


PANEL_TITLES = ("image", "model", "reader's gaze")
HIGHEST_OPACITY = 0.65


@dataclass(frozen=True)
class GalleryRow:
    """A sentence on an image: where the model looks and where the reader looked while saying it.

    The maps are (G, G) on the model's square frame, in any unit: each is drawn from its minimum to its maximum.
    """

    image: Image.Image
    sentence: str
    model_map: ArrayLike
    gaze_map: ArrayLike | None = None


def heatmap_gallery(rows: Sequence[GalleryRow], path: str | Path | None = None, generated: bool = False) -> Figure:
    """One row a sentence: the image, the model's map over it, the reader's gaze over it.

    Args:
        path: where to save it, with 150 dots per inch.
        generated: say in the figure that the data are generated.
    """
    if not rows:
        raise ValueError("expected at least one row")
    figure = Figure(figsize=(7.2, 2.75 * len(rows)), layout="constrained")
    bands = np.atleast_1d(np.array(figure.subfigures(len(rows), 1)))
    for band, row in zip(bands, rows, strict=True):
        band.suptitle(fill(f"“{row.sentence}”", 80), fontsize=10, style="italic")
        panels = band.subplots(1, len(PANEL_TITLES))
        for axes, title, heat in zip(panels, PANEL_TITLES, (None, row.model_map, row.gaze_map), strict=True):
            draw_overlay(axes, row.image, heat)
            if heat is None and title != PANEL_TITLES[0]:
                title = "no gaze"
            axes.set_title(title, fontsize=9)
    return finished(figure, generated, path)


def draw_overlay(axes: Axes, image: Image.Image, heat: ArrayLike | None = None) -> None:
    """The image in grey and, over it, the map of the square frame with the padding taken off again."""
    width, height = image.size
    axes.imshow(np.asarray(image.convert("L")), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    if heat is None:
        return
    values = np.asarray(heat, dtype=np.float64)
    strength = Normalize(values.min(), values.max() if np.ptp(values) > 0 else values.min() + 1)(values)
    on_image = maps_on_images(torch.from_numpy(np.asarray(strength))[None], [(width, height)], height, width)[0].numpy()
    colors = colormaps[HEAT_COLORMAP](on_image)
    colors[..., 3] = HIGHEST_OPACITY * on_image
    axes.imshow(colors)
