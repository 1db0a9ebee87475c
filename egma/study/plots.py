"""The studies' plots: bars a row of the ablation, curves over the amount of gaze or of noise; every seed is a dot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from egma.evaluation.statistics.seeds import Spread
from egma.figures.training_curves import LINE_COLORS

Panels = Mapping[str, Mapping[str, Spread]]  # of each figure: row -> spread


def bars(panels: Panels, path: Path, note: str) -> None:
    """One panel a figure, one bar a row, mean with a dot a seed, in percent."""
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for place, (_, spread) in enumerate(rows.items()):
            axes.bar(place, 100 * spread.mean, color=LINE_COLORS[0], alpha=0.45, width=0.65)
            axes.plot([place] * len(spread.values), [100 * v for v in spread.values], "o", color="black", markersize=3)
        axes.set_xticks(range(len(rows)), list(rows), rotation=35, ha="right", fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(note, fontsize=8, color="#555555")
    figure.savefig(path, dpi=150)


def curves(panels: Panels, path: Path, note: str, label: str, reference: Mapping[str, Mapping[str, float]]) -> None:
    """One panel a figure, over rows in their order, in percent.

    Args:
        reference: of each figure, lines by name: chance, a model without gaze.
    """
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        places: Sequence[int] = range(len(rows))
        axes.plot(places, [100 * spread.mean for spread in rows.values()], "-", color=LINE_COLORS[0], linewidth=1.6)
        for place, spread in zip(places, rows.values(), strict=True):
            axes.plot([place] * len(spread.values), [100 * v for v in spread.values], "o", color="black", markersize=3)
        for color, (name, value) in zip(LINE_COLORS[1:], reference.get(title, {}).items(), strict=False):
            axes.axhline(100 * value, color=color, linestyle="--", linewidth=1.2, label=name)
        axes.set_xticks(places, list(rows), rotation=35, ha="right", fontsize=8)
        axes.set_xlabel(label, fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        if reference.get(title):
            axes.legend(frameon=False, fontsize=7)
    figure.supxlabel(note, fontsize=8, color="#555555")
    figure.savefig(path, dpi=150)
