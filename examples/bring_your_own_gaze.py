"""How well a reader's gaze fits where a model looks, sentence by sentence.

    python examples/bring_your_own_gaze.py MODEL IMAGE FIXATIONS.csv SENTENCES.csv

FIXATIONS.csv: x, y (fractions of the image), start, duration (seconds). SENTENCES.csv: text, start, end (seconds).
"""

import csv
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

import modeling_egma  # noqa: F401  or trust_remote_code=True below
from dataset_scripts.command_line import run_example


def main(model_id: str, image: str, fixations_file: str, sentences_file: str) -> None:
    with Path(fixations_file).open(newline="") as table:
        rows = list(csv.DictReader(table))
    fixations = {name: [float(row[name]) for row in rows] for name in ("x", "y", "start", "duration")}
    with Path(sentences_file).open(newline="") as table:
        sentences = list(csv.DictReader(table))
    texts = [row["text"] for row in sentences]
    spans = [(float(row["start"]), float(row["end"])) for row in sentences]

    model, processor = AutoModel.from_pretrained(model_id), AutoProcessor.from_pretrained(model_id)
    inputs = processor(images=[image], text=[texts], gaze=[fixations], spans=[spans])
    with torch.no_grad():
        maps = model.get_similarity_map(inputs["pixel_values"], inputs["input_ids"], inputs["attention_mask"])[0]
    for text, where_model, where_reader in zip(texts, maps, inputs["gaze_heatmaps"], strict=True):
        together = torch.stack([where_model.flatten(), where_reader.flatten()])
        print(f"{float(torch.corrcoef(together)[0, 1]):+.2f}  {text}")


if __name__ == "__main__":
    sys.exit(run_example(main, __doc__))
