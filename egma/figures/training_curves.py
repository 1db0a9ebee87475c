"""Losses and rates of runs over their steps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from egma.figures.finish import finished

LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008


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
    return finished(figure, generated, path)


def _read_log(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.strip()]
