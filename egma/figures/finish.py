"""What every figure ends with: a note where its data are generated, and a file."""

from pathlib import Path

from matplotlib.figure import Figure

DOTS_PER_INCH = 150


def finished(figure: Figure, generated: bool, path: str | Path | None = None) -> Figure:
    """The figure, which says so when its data are generated, saved where there is a path."""
    if generated:
        figure.supxlabel("generated data, no patients", fontsize=8, color="#555555")
    if path is not None:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    return figure
