"""The figures are drawn, and a map lies over the image where its patches are."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from egma.figures.heat_maps import HIGHEST_OPACITY, GalleryRow, draw_overlay, heatmap_gallery
from egma.figures.training_curves import training_curves


def test_overlay_takes_the_padding_off() -> None:
    axes = Figure().subplots()
    draw_overlay(axes, Image.new("L", (80, 40)), np.eye(4))
    shown = np.asarray(axes.images[1].get_array())[..., 3]
    assert shown.shape == (40, 80) and axes.images[1].get_extent() == axes.images[0].get_extent()
    # the image is the middle half of the frame's height: its corners lie between two patches of the diagonal
    assert shown[20, 40] == pytest.approx(HIGHEST_OPACITY / 2, abs=0.02)
    assert shown[:, 0].max() < HIGHEST_OPACITY * 0.6 and shown[9, 29] > 0.9 * HIGHEST_OPACITY


def test_a_flat_map_is_transparent() -> None:
    axes = Figure().subplots()
    draw_overlay(axes, Image.new("L", (40, 40)), np.full((4, 4), 0.3))
    assert np.asarray(axes.images[1].get_array())[..., 3].max() == 0


def test_gallery_shows_sentence_and_notice(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.arange(80, dtype=np.uint8), (40, 1)))
    rows = [GalleryRow(image, "There is edema.", np.eye(4), np.eye(4)), GalleryRow(image, "No gaze here.", np.eye(4))]
    figure = heatmap_gallery(rows, tmp_path / "gallery.png", generated=True)
    assert Image.open(tmp_path / "gallery.png").size[0] > 800
    assert figure.get_supxlabel() == "generated data, no patients"
    assert [band.get_suptitle() for band in figure.subfigs] == ["“There is edema.”", "“No gaze here.”"]
    assert figure.subfigs[1].axes[2].get_title() == "no gaze"
    assert [len(axes.images) for axes in figure.subfigs[0].axes] == [1, 2, 2]


def test_gallery_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        heatmap_gallery([])


def test_curves_have_a_panel_a_metric_and_a_line_a_run(tmp_path: Path) -> None:
    for name in ("no gaze", "EGMA"):
        lines = [{"step": step, "loss": 5 / step} | ({"auroc": 0.5} if step % 2 else {}) for step in range(1, 6)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    logs = {name: tmp_path / f"{name}.jsonl" for name in ("no gaze", "EGMA")}
    figure = training_curves(logs, ("loss", "auroc"), tmp_path / "curves.png")
    loss, auroc = figure.axes
    assert [line.get_label() for line in loss.lines] == ["no gaze", "EGMA"]
    assert len(auroc.lines[0].get_xdata()) == 3
    assert (tmp_path / "curves.png").is_file()
