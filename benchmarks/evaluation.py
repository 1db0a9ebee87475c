"""What evaluation costs beside the encoders: `python -m benchmarks.evaluation`. See benchmarks/README.md."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from datasets import concatenate_datasets
from torch.nn.functional import normalize

from benchmarks.parts import run_parts
from dataset_scripts.schema import SPLITS, load_readings
from egma.evaluation import tasks
from egma.evaluation.evaluate import evaluate_model
from egma.inference.embeddings import ImageBank, TextBank

READINGS, TEST_READINGS, DIMENSION, PATCHES = 2000, 1000, 512, 49


def evaluation(folder: Path) -> None:
    """Seconds of every task of two models, random embeddings on 1,000 generated readings; the first makes the blind."""
    raw, data = folder / "evaluation-raw", folder / "evaluation"
    if not data.exists():
        generate = ["dataset_scripts.phantom", "--output", str(raw), "--readings", str(READINGS)]
        convert = [
            "dataset_scripts.build",
            "mimic_eye",
            "--source",
            str(raw),
            "--output",
            str(data),
            "--image-size",
            "64",
        ]
        for command in (generate, convert):
            subprocess.run([sys.executable, "-m", *command], check=True)
    rows = concatenate_datasets([load_readings(data, split) for split in SPLITS])
    training, test = (
        rows.select(range(len(rows) - TEST_READINGS)),
        rows.select(range(len(rows) - TEST_READINGS, len(rows))),
    )
    models: Any = [SimpleNamespace(seed=seed, config=SimpleNamespace(zero_shot_score="pooled")) for seed in (0, 1)]
    with patch.object(tasks, "encode_images", _images), patch.object(tasks, "encode_texts", _texts):
        for name in (None, *(name for name in tasks.TASKS if name not in tasks.NAMED_TASKS)):
            start = time.perf_counter()
            evaluate_model(
                models[0], models, test, name and [name], training_rows=training, others={"second": (models[1], models)}
            )
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
