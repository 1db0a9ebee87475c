"""What a marker does to one finding: its AUROC, where its map peaks, and how often that is the marker."""

from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from dataset_scripts.schema import PRESENT, Box, UserError, load_readings
from egma.evaluation.protocols.pointing import Target, finding_targets, peak_credit, target_maps
from egma.evaluation.protocols.zero_shot import finding_labels
from egma.inference.embeddings import encode_images, encode_texts, records
from egma.inference.models import load_whole_model
from egma.inference.prompts import load_prompts
from egma.inference.scores import class_scores
from egma.study.corpora import marker_box

BATCH_SIZE = 64


def finding_figures(model_folder: Path, data: Path, finding: str) -> dict[str, float]:
    """On the test split: `auroc` and `pointing_game` of the finding, and `peak_on_marker`.

    A figure that the split does not allow is left out. The last is the share of all images whose map of the finding's
    prompts peaks where the marker lies, or would lie.
    """
    prompts = load_prompts()
    if finding not in prompts:
        raise UserError(f"finding '{finding}' has no prompts; there are prompts for {', '.join(sorted(prompts))}")
    chosen = {finding: prompts[finding]}
    rows = load_readings(data, "test")
    readings = records(rows)
    model, processor = load_whole_model(model_folder)
    images = encode_images(model, processor, rows, BATCH_SIZE)
    texts = encode_texts(model, processor, chosen[finding], BATCH_SIZE)
    labels = finding_labels(readings, [finding])
    listed = labels.listed(0)
    scores = class_scores(images, texts, chosen, "max")[model.config.zero_shot_score]
    places = np.asarray(images.places(readings))[listed]
    positive = labels.values[listed, 0] == PRESENT
    figures: dict[str, float] = {}
    if positive.any() and not positive.all():
        figures["auroc"] = float(roc_auc_score(positive, scores[places, 0]))
    targets = [target for reading in readings for target in finding_targets(reading, chosen)]
    if targets:
        figures["pointing_game"] = float(peak_credit(target_maps(targets, images, texts), targets).mean())
    on_marker = [
        Target(reading, finding, tuple(chosen[finding]), [_marker(reading["width"], reading["height"])])
        for reading in labels.select(listed)
    ]
    figures["peak_on_marker"] = float(peak_credit(target_maps(on_marker, images, texts), on_marker).mean())
    return figures


def _marker(width: int, height: int) -> Box:
    x_min, y_min, x_max, y_max = marker_box(width, height)
    return Box(label="marker", shape="box", x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max, certainty=None)
