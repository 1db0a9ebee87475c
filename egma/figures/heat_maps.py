"""Figures for a README or a model card; drawn without pyplot, so nothing global is touched and no display is needed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from egma.inference.geometry import frame_to_image

HEAT_COLORMAP = "magma"  # perceptually uniform and readable without colour vision
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
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
    if generated:
        figure.supxlabel("generated data, no patients", fontsize=8, color="#555555")
    return _saved(figure, path)


def draw_overlay(axes: Axes, image: Image.Image, heat: ArrayLike | None = None) -> None:
    """The image in grey and, over it, the map of the square frame with the padding taken off again."""
    width, height = image.size
    axes.imshow(np.asarray(image.convert("L")), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    if heat is None:
        return
    values = np.asarray(heat, dtype=np.float64)
    strength = Normalize(values.min(), values.max() if np.ptp(values) > 0 else values.min() + 1)(values)
    enlarged = Image.fromarray(np.asarray(strength, dtype=np.float32)).resize((256, 256), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(enlarged), 0, 1)
    colors = colormaps[HEAT_COLORMAP](strength)
    colors[..., 3] = HIGHEST_OPACITY * strength
    (left, top), (right, bottom) = frame_to_image(np.array([[0.0, 0.0], [1.0, 1.0]]), width, height)
    pixels = (left * width - 0.5, right * width - 0.5, bottom * height - 0.5, top * height - 0.5)
    axes.imshow(colors, extent=pixels, interpolation="bilinear")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def training_curves(
    logs: Mapping[str, str | Path],
    metrics: Sequence[str] = ("loss",),
    path: str | Path | None = None,
    generated: bool = False,
) -> Figure:
    """One panel a metric, one line a run.

    Args:
        logs: run name -> JSON-lines file with objects such as `{"step": 10, "loss": 3.2}`; lines without a metric
            are passed over.
    """
    runs = {name: _read_log(Path(file)) for name, file in logs.items()}
    figure = Figure(figsize=(4.2 * len(metrics), 3.0), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for place, (name, lines) in enumerate(runs.items()):
            points = [(line["step"], line[metric]) for line in lines if "step" in line and metric in line]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, label=name, color=LINE_COLORS[place % len(LINE_COLORS)], linewidth=1.6)
        axes.set_xlabel("step")
        axes.set_ylabel(metric.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[0].legend(frameon=False, fontsize=8)
    if generated:
        figure.supxlabel("generated data, no patients", fontsize=8, color="#555555")
    return _saved(figure, path)


def _read_log(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.strip()]


def _saved(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
