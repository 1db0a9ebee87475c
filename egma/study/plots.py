"""The studies' plots: bars a row of the ablation, curves over the amount of gaze or of noise; every seed is a dot."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from egma.evaluation.statistics.seeds import Spread
from egma.figures.training_curves import LINE_COLORS

Panels = Mapping[str, Mapping[str, Spread]]  # of each figure: row -> spread


def bars(panels: Panels, path: Path, note: str) -> None:
    """One panel a figure side by side, one bar a row from above, mean with a dot a seed, in percent."""
    most = max(map(len, panels.values()))
    figure = Figure(figsize=(2.0 + 3.0 * len(panels), 0.9 + 0.34 * most), layout="constrained")
    subplots = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, rows) in zip(subplots, panels.items(), strict=True):
        for place, spread in enumerate(rows.values()):
            axes.barh(place, 100 * spread.mean, color=LINE_COLORS[0], alpha=0.45, height=0.65)
            axes.plot([100 * v for v in spread.values], [place] * len(spread.values), "o", color="black", markersize=3)
        axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    subplots[0].invert_yaxis()
    figure.supxlabel(note, fontsize=8, color="#555555")
    figure.savefig(path, dpi=150)


def curves(
    panels: Mapping[str, Panels], path: Path, note: str, label: str, reference: Mapping[str, Mapping[str, float]]
) -> None:
    """One panel a figure, a line a series over its rows in the order of the longest, in percent.

    Args:
        panels: of each figure: series -> row -> spread.
        reference: of each figure, lines by name: chance, a model without gaze.
    """
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    for axes, (title, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        rows = max(map(list, series.values()), key=len)
        colors = cycle(LINE_COLORS)
        for name, spreads in series.items():
            places, means = [rows.index(row) for row in spreads], [100 * spread.mean for spread in spreads.values()]
            (line,) = axes.plot(places, means, color=next(colors), linewidth=1.6, label=name)
            for place, spread in zip(places, spreads.values(), strict=True):
                values = [100 * value for value in spread.values]
                axes.plot([place] * len(values), values, "o", color=line.get_color(), markersize=3)
        for name, value in reference.get(title, {}).items():
            axes.axhline(100 * value, color=next(colors), linestyle="--", linewidth=1.2, label=name)
        axes.set_xticks(range(len(rows)), rows, rotation=35, ha="right", fontsize=8)
        axes.set_xlabel(label, fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    figure.supxlabel(note, fontsize=8, color="#555555")
    figure.savefig(path, dpi=150)
