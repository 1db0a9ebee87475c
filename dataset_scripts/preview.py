"""Pictures of the first readings, and what their gaze is like, reader by reader: are clock, origin and scale right?

Every picture has the fixations on the image, a point's area by its seconds, and below it fixations and sentences in
time. What a sentence's window holds has the sentence's colour, what no sentence does is grey.
"""

import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Plan
from dataset_scripts.schema import Fixations, Reading, Sentence, sentence_span

LOST_TABLES = ("samples", "fixations")
HEAD = (
    "reader",
    "readings",
    "rows lost",
    "fixations/s",
    "mean s",
    "sentences with gaze",
    "first word after first look, s",
)


class Seen(NamedTuple):
    """A reading with gaze, and what was counted for it."""

    reading: Reading
    fixations: Fixations
    counted: Ledger


def preview(plan: Plan, folder: Path, count: int) -> str:
    """Write `preview_1.png` and so on, of the first readings that have gaze, and return the table.

    Args:
        count: of readings, at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_reader, ledger = defaultdict[str, list[Seen]](list), Ledger()
    for number, seen in enumerate(_with_gaze(plan, count, ledger), 1):
        _figure(seen).savefig(folder / f"preview_{number}.png", dpi=110, bbox_inches="tight")
        by_reader[seen.reading["reader_id"] or "-"].append(seen)
    lines = [HEAD, *(_line(reader, found) for reader, found in sorted(by_reader.items()))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    dropped = [found for table in plan.reading_tables if (found := ledger.tables.get(table))]
    told = [*(reason for table in dropped for reason in table.dropped.items()), *sorted(ledger.notes.items())]
    notes = [f"{name}: {found.count}, such as {found.first[0]}" for name, found in told]
    return "\n".join([*table, *notes, f"{sum(map(len, by_reader.values()))} pictures in {folder}"])


def _with_gaze(plan: Plan, count: int, ledger: Ledger) -> Iterator[Seen]:
    """The first readings with gaze, each with what was counted for it; all that was counted goes to `ledger` too."""
    for unit in plan.units:
        for reading, counted in plan.convert(unit):
            ledger.merge(counted)
            fixations = reading[1]["fixations"] if reading else None
            if reading and fixations and count > 0:
                count -= 1
                yield Seen(reading[1], fixations, counted)
        if count <= 0:
            return


def _line(reader: str, found: list[Seen]) -> tuple[str, ...]:
    tables = [table for seen in found for name in LOST_TABLES if (table := seen.counted.tables.get(name))]
    rows = sum(table.rows_in for table in tables)
    lengths, seconds, spoken, delays = list[float](), 0.0, list[bool](), list[float]()
    for reading, fixations, _ in found:
        spans = [span for sentence in reading["sentences"] if (span := sentence_span(sentence))]
        start = np.array(fixations["start"])
        end = start + np.array(fixations["duration"])
        lengths += fixations["duration"]
        seconds += float(end.max() - start.min())
        spoken += [bool(((start < last) & (end > first)).any()) for first, last in spans]
        delays += [min(spans)[0] - float(start.min())] if spans else []
    return (
        reader,
        str(len(found)),
        f"{sum(table.rows_dropped for table in tables) / rows:.0%}" if rows else "-",
        f"{len(lengths) / seconds:.1f}" if seconds else "-",
        f"{np.mean(lengths):.3f}",
        f"{np.mean(spoken):.0%}" if spoken else "-",
        f"{np.median(delays):+.1f}" if delays else "-",
    )


def _figure(seen: Seen) -> Figure:
    reading, fixations, _ = seen
    figure = Figure(figsize=(8, 9))
    above, below = figure.subplots(2, 1, height_ratios=(3, 1))
    picture = reading["image"]
    if isinstance(picture, dict):
        above.imshow(Image.open(io.BytesIO(picture["bytes"])), cmap="gray", extent=(0, 1, 1, 0))
    above.set(aspect=reading["height"] / reading["width"], xlim=(0, 1), ylim=(1, 0), title=reading["reading_id"])
    start, duration = np.array(fixations["start"]), np.array(fixations["duration"])
    colours = _colours(reading["sentences"], start, start + duration, below)
    above.plot(fixations["x"], fixations["y"], color="0.6", linewidth=0.5)
    above.scatter(fixations["x"], fixations["y"], s=400 * duration, c=colours, alpha=0.7, edgecolors="black")
    below.bar(start, 0.8, duration, align="edge", color=colours)
    below.set(xlabel="seconds", yticks=[])
    return figure


def _colours(sentences: list[Sentence], start: np.ndarray, end: np.ndarray, below: Axes) -> list[str]:
    """Every fixation's colour; the sentences are drawn into `below`, each a line further up."""
    colours = ["0.7"] * len(start)
    for place, sentence in enumerate(sentences):
        if span := sentence_span(sentence):
            colour = mpl.colors.to_hex(mpl.colormaps["tab10"](place % 10))
            below.barh(1.5 + place, span[1] - span[0], 0.8, span[0], color=colour)
            below.text(span[0], 1.5 + place, sentence["text"][:60], fontsize=6, verticalalignment="center")
            for index in np.flatnonzero((start < span[1]) & (end > span[0])):
                colours[index] = colour
    return colours
