"""Where a step's time goes: `python -m benchmarks.step [demo] [base]`. See benchmarks/README.md."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from benchmarks.parts import ROOT, run_parts
from benchmarks.training import corpus
from egma.inference.texts import encode_blocks, text_inputs
from egma.training.arguments import TrainingSettings, parse_settings
from egma.training.data import ReadingCollator, TrainingData
from egma.training.devices import make_module, make_optimizer
from egma.training.start import build_model
from egma.training.step import TrainingModule, to_device
from modeling_egma import EgmaModel
from modeling_egma.interaction_egma import ONE_PROCESS

TERMS = ("contrastive", "gaze", "mapping")
# steps that are timed, after one that warms up
STEPS: dict[str, int] = {"demo": 10, "base": 1}
BASE: dict[str, Any] = {
    "vision_config": {"model_type": "swin", "image_size": 224},
    "text_config": {"model_type": "bert", "max_position_embeddings": 512},
}


class Stopwatch:
    """Seconds by name, one list entry a step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        started = self._now()
        result = work()
        self.seconds.setdefault(name, []).append(self._now() - started)
        return result

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def milliseconds(self, name: str) -> float:
        """Median over the steps, the first apart."""
        return 1000 * float(np.median(self.seconds[name][1:]))


def demo(folder: Path) -> None:
    """The preset of `make demo`, at its batch."""
    _measure("demo", _settings(folder, "--config", str(ROOT / "configs" / "phantom.yaml")))


def base(folder: Path) -> None:
    """Swin-Tiny and BERT-base, from nothing, 8 readings."""
    preset = folder / "base.yaml"
    preset.write_text(yaml.safe_dump({"egma_config": BASE, "batch_size": 8, "vocabulary_size": 4000}))
    _measure("base", _settings(folder, "--config", str(preset)))


def _settings(folder: Path, *extra: str) -> TrainingSettings:
    return parse_settings([*extra, "--data", str(corpus(folder)), "--output_dir", str(folder / "unused")])


def _measure(name: str, settings: TrainingSettings) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = TrainingData(settings, 0, 1)
    model, processor = build_model(settings, data.rows)
    module = make_module(model.to(device), device).train()
    optimizer = make_optimizer(model, settings, device)
    watch, batches = Stopwatch(device), data.batches(ReadingCollator(processor, settings), 0)
    sentences = real = encoded = padded = 0
    for _ in range(STEPS[name] + 1):
        batch = watch("wait", functools.partial(next, batches))
        sentences += len(batch["sentence_to_image"])
        real += int(batch["attention_mask"].sum())
        encoded += sum((stop - start) * length for start, stop, length in module.text_blocks(batch))
        padded += len(batch["sentence_to_image"]) * batch["input_ids"].shape[1]
        _parts(watch, module, optimizer, to_device(batch, device))
    steps = STEPS[name] + 1
    print(f"{name}: {settings.batch_size} readings and {sentences / steps:.0f} sentences a step, on {device.type}")
    print(
        f"  {real / steps:.0f} real tokens of {encoded / steps:.0f} encoded ({real / encoded:.2f}); every sentence, "
        f"filled up to the longest, would be {padded / steps:.0f}"
    )
    print("  milliseconds: " + ", ".join(f"{part} {watch.milliseconds(part):.1f}" for part in watch.seconds))
    ratio = watch.milliseconds("whole step") / watch.milliseconds("plain CLIP step")
    print(f"  a step takes {ratio:.2f} times that of the same towers with a plain CLIP loss")


def _parts(
    watch: Stopwatch, module: TrainingModule, optimizer: torch.optim.Optimizer, batch: Mapping[str, Any]
) -> None:
    """One step, part by part, forward and backward, and as a whole; then the same towers under a plain CLIP loss."""
    model = module.model
    watch("image", lambda: model.encode_images(batch["pixel_values"])[1].sum().backward())
    watch("text", lambda: _texts(module, batch).sum().backward())
    plain = {name: values[batch["sentence_index"]] for name, values in text_inputs(batch).items()}
    watch("text with every sentence", lambda: model.encode_text(**plain).sum().backward())
    with torch.no_grad():
        features = module(batch, stage="features")
    for term in TERMS:
        patches, sentences = (part.clone().requires_grad_() for part in (features.patches, features.sentences))
        leaves = features._replace(patches=patches, sentences=sentences)
        with _only(model, term):
            watch(term, lambda leaves=leaves: module.objective(leaves, ONE_PROCESS)[0].backward())
    watch("optimiser", optimizer.step)
    watch("whole step", lambda: _update(optimizer, module(batch)[0]))
    watch("plain CLIP step", lambda: _update(optimizer, _clip_loss(module, batch)))


def _texts(module: TrainingModule, batch: Mapping[str, Any]) -> Tensor:
    return encode_blocks(module.model.encode_text, text_inputs(batch), module.text_blocks(batch))


def _clip_loss(module: TrainingModule, batch: Mapping[str, Any]) -> Tensor:
    """Pooled images against the mean of their sentences."""
    images, _ = module.model.encode_images(batch["pixel_values"])
    sentences = _texts(module, batch)[batch["sentence_index"]]
    rows = batch["sentence_to_image"].to(sentences.device)
    reports = F.normalize(torch.zeros_like(images).index_add(0, rows, sentences), dim=-1)
    logits = images @ reports.T * module.model.logit_scale.exp()
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@contextmanager
def _only(model: EgmaModel, term: str) -> Iterator[None]:
    """The objective of one term; the others weigh nothing."""
    names = [f"{one}_weight" for one in TERMS]
    weights = [getattr(model.config, one) for one in names]
    for one in names:
        setattr(model.config, one, float(one == f"{term}_weight"))
    try:
        yield
    finally:
        for one, weight in zip(names, weights, strict=True):
            setattr(model.config, one, weight)


PARTS = {"demo": demo, "base": base}


if __name__ == "__main__":
    run_parts(__doc__, PARTS)
