"""Figures of one evaluation: ROC curves, confusion, retrieval examples, heat maps beside gaze, a map of the images."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.metrics import roc_curve

from dataset_scripts.schema import PRESENT, Reading
from egma.evaluation.protocols.retrieval import places_of_truth, report_sentences
from egma.evaluation.protocols.zero_shot import Labels, argmax_credit, entries, lacking
from egma.figures.finish import finished
from egma.inference.embeddings import ImageBank, Images
from egma.tools.arrays import Array

TSNE_IMAGES = 2000
TSNE_SMALLEST = 10
EXAMPLES, SHOWN_REPORTS = 4, 3


def roc_figure(labels: Labels, scores: Array, generated: bool) -> Figure:
    """One curve a class with both values, on the readings that list it."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    colors = colormaps["tab20"](np.linspace(0, 1, max(2, len(labels.classes))))
    for column, name in enumerate(labels.classes):
        of = entries(labels, scores, column)
        if lacking(of) is None:
            false, true, _ = roc_curve(of[1], of[0])
            area = np.trapezoid(true, false)
            axes.plot(false, true, label=f"{name} {100 * area:.1f}", color=colors[column], linewidth=1.4)
    axes.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1, label="chance 50.0")
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7, title="AUROC, percent", title_fontsize=8)
    return finished(figure, generated)


def reliability_figure(fits: Mapping[str, Mapping[str, Any]], generated: bool) -> Figure:
    """A panel for each of `decisions`: by bin of the probability the share of positives with its interval, by class."""
    figure = Figure(figsize=(6.4 * len(fits), 4.2), layout="constrained")
    for axes, (title, of) in zip(figure.subplots(1, len(fits), squeeze=False)[0], fits.items(), strict=True):
        axes.set_prop_cycle(color=colormaps["tab20"](np.linspace(0, 1, max(2, len(of)))))
        for name, fit in of.items():
            places, shares = zip(*fit["reliability"], strict=True)
            (line,) = axes.plot(places, [share["value"] for share in shares], label=name, linewidth=1.2)
            ends = np.array([share["interval"] or (share["value"], share["value"]) for share in shares])
            axes.vlines(places, *ends.T, colors=line.get_color(), linewidth=0.5, alpha=0.5)
        axes.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1)
        axes.set(title=title, xlabel="probability", ylabel="share of positives")
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return finished(figure, generated)


def confusion_figure(labels: Labels, scores: Array, generated: bool) -> Figure:
    """`confusion_counts`, coloured by their share of the row."""
    counts = confusion_counts(labels, scores)
    columns = [*labels.classes, "no prediction"][: counts.shape[1]]
    side = 2.2 + 0.38 * len(columns)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(labels.classes)), labels.classes, fontsize=7)
    axes.set_xlabel("best score")
    axes.set_ylabel("the one finding")
    return finished(figure, generated)


def confusion_counts(labels: Labels, scores: Array) -> NDArray[np.int64]:
    """Readings with exactly one class: rows are what they show, columns the one best score.

    Where classes tie for it there is no prediction, as in the F1: they stand in one more column, if there are any.
    """
    single, classes = labels.single(), len(labels.classes)
    truth = (labels.values[single] == PRESENT).argmax(axis=1)
    _, predicted = argmax_credit(scores[single], truth)
    counts = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)  # NO_PREDICTION is -1, the last column
    return counts if counts[:, -1].any() else counts[:, :-1]


def tsne_figure(images: ImageBank, labels: Labels, generated: bool) -> Figure:
    """Image embeddings in the plane, coloured where a reading shows exactly one class."""
    places = np.asarray(images.places(labels.readings))
    single = labels.single()
    of_image = {int(places[row]): int((labels.values[row] == PRESENT).argmax()) for row in single}
    chosen = np.random.default_rng(0).permutation(len(images.place))[:TSNE_IMAGES]
    embeddings = images.pooled.numpy()[chosen]
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(embeddings)
    colors = colormaps["tab20"](np.linspace(0, 1, max(2, len(labels.classes))))
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    shown = np.array([of_image.get(int(place), -1) for place in chosen])
    axes.scatter(points[shown < 0, 0], points[shown < 0, 1], s=6, color="#cccccc", label="none or several")
    for column, name in enumerate(labels.classes):
        if (shown == column).any():
            of_class = points[shown == column]
            axes.scatter(of_class[:, 0], of_class[:, 1], s=10, color=colors[column], label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("image embeddings, t-SNE", fontsize=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return finished(figure, generated)


def retrieval_figure(pairs: Sequence[Reading], images: Images, scores: Array, generated: bool) -> Figure:
    """Some images with the reports that fit them best; the right one is marked.

    Args:
        pairs: of an image and a report, n.
        scores: (n, n), rows images, columns reports.
    """
    before, tied = places_of_truth(scores)
    queries = np.random.default_rng(0).permutation(len(pairs))[:EXAMPLES]
    figure = Figure(figsize=(9, 2.1 * len(queries)), layout="constrained")
    for (picture, words), query in zip(
        figure.subplots(len(queries), 2, squeeze=False, width_ratios=[1, 4]), queries, strict=True
    ):
        row = images.rows[images.place[pairs[query]["image_id"]]]
        picture.imshow(np.asarray(row["image"].convert("L")), cmap="gray")
        picture.set_axis_off()
        words.set_axis_off()
        best = np.argsort(-scores[query], kind="stable")[:SHOWN_REPORTS]
        lines = [f"own report: rank {before[query] + (tied[query] + 1) / 2:g} of {len(pairs)}"]
        for place, other in enumerate(best.tolist(), 1):
            mark = "its own" if other == query else "another's"
            lines.append(f"{place}. ({mark}) {shorten(' '.join(report_sentences(pairs[other])), 150)}")
        words.text(0, 1, "\n".join(lines), va="top", fontsize=7, wrap=True)
    return finished(figure, generated)
