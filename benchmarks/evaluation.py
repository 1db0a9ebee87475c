"""What evaluation costs beside the encoders: `python -m benchmarks.evaluation`. See benchmarks/README.md."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import normalize

from benchmarks.parts import run_parts
from dataset_scripts.schema import load_readings
from egma.evaluation import tasks
from egma.evaluation.evaluate import evaluate_model
from egma.inference.embeddings import ImageBank, TextBank

READINGS, TEST_READINGS, DIMENSION, PATCHES = 2700, 1000, 512, 49


def evaluation(folder: Path) -> None:
    """Seconds of every task for two models of random embeddings, on 1,000 generated readings."""
    raw, data = str(folder / "evaluation-raw"), folder / "evaluation"
    if not data.exists():
        for command in (
            ["dataset_scripts.phantom", "--output", raw, "--readings", str(READINGS)],
            ["dataset_scripts.build", "mimic_eye", "--source", raw, "--output", str(data), "--image-size", "64"],
        ):
            subprocess.run([sys.executable, "-m", *command], check=True)
    rows = load_readings(data, "train")
    test, training = rows.select(range(TEST_READINGS)), rows.select(range(TEST_READINGS, len(rows)))
    models: Any = [SimpleNamespace(seed=seed, config=SimpleNamespace(zero_shot_score="pooled")) for seed in (0, 1)]
    others = {"other": (models[1], models)}
    with patch.multiple(tasks, encode_images=_images, encode_texts=_texts):
        for name in (None, *(name for name in tasks.TASKS if name not in tasks.NAMED_TASKS)):
            start = time.perf_counter()
            evaluate_model(models[0], models, test, name and [name], training_rows=training, others=others)
            print(f"{name or 'all tasks'}: {time.perf_counter() - start:.1f} s", flush=True)


def _images(model: Any, _: Any, rows: Any, __: int) -> ImageBank:
    ids = sorted(set(rows["image_id"]))
    patches = _random(model, len(ids), PATCHES)
    return ImageBank({name: place for place, name in enumerate(ids)}, normalize(patches.mean(dim=1), dim=-1), patches)


def _texts(model: Any, _: Any, texts: list[str], __: int) -> TextBank:
    return TextBank({text: place for place, text in enumerate(sorted(set(texts)))}, _random(model, len(set(texts))))


def _random(model: Any, *shape: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, DIMENSION, generator=torch.Generator().manual_seed(model.seed)), dim=-1)


if __name__ == "__main__":
    run_parts(__doc__, {"evaluation": evaluation})
