"""What a run says of itself: a line a step, a progress bar, trackers, and heat maps of the same validation readings."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from egma.figures.heat_maps import GalleryRow, heatmap_gallery
from egma.training.devices import memory_gigabytes, peak_flops
from egma.training.step import Batch, TrainingModule

METRICS_FILE = "metrics.jsonl"


class Watch:
    """The voice of the main process; the others are silent."""

    def __init__(self, accelerator: Accelerator, output: Path, log_steps: int) -> None:
        self.accelerator = accelerator
        self.output = output
        self.log_steps = log_steps
        self.bar: tqdm[Any] | None = None

    def start(self, step: int, total_steps: int) -> None:
        """Show the bar from `step` on; lines of a run that went further than its checkpoint are forgotten."""
        shown = self.accelerator.is_main_process and sys.stderr.isatty()
        self.bar = tqdm(total=total_steps, initial=step, desc="training", unit="step", disable=not shown)
        if self.accelerator.is_main_process:
            _forget_after(self.output / METRICS_FILE, step)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One step's figures: always into `metrics.jsonl` and the trackers, each `log_steps` as a line."""
        assert self.bar is not None
        self.bar.update()
        self._record(step, values)
        if step % self.log_steps == 0:
            self.say(f"step {step}/{self.bar.total}  " + _text(values))

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        self._record(step, values)
        self.say(f"step {step}  " + _text(values))

    def say(self, text: str) -> None:
        """A line above the bar, from the main process."""
        if self.accelerator.is_main_process:
            tqdm.write(text)
            sys.stdout.flush()

    def heat_maps(self, step: int, rows: Sequence[GalleryRow], generated: bool) -> None:
        """A picture in `heat_maps/` and in every tracker that takes pictures."""
        if not self.accelerator.is_main_process or not rows:
            return
        path = self.output / "heat_maps" / f"step-{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        heatmap_gallery(rows, path, generated)
        picture = np.asarray(Image.open(path).convert("RGB"))[None]
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"heat_maps": picture}, step=step, **layout)

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.output / METRICS_FILE).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log(dict(values), step=step)


class Step(NamedTuple):
    """A step: its figures on the device and on the host, its seconds, known when it is over, and its own readings."""

    number: int
    on_device: dict[str, Tensor]
    on_host: dict[str, float]
    seconds: Callable[[], float]
    reading_ids: list[str]


def fetch(steps: Sequence[Step]) -> list[dict[str, float]]:
    """All figures of `steps`, in one transfer, which waits for the device."""
    figures = [value.detach().float() for step in steps for value in step.on_device.values()]
    values = iter(torch.stack(figures).tolist() if figures else ())
    return [{name: next(values) for name in step.on_device} | step.on_host for step in steps]


class Speedometer:
    """Pairs a second, seconds of the step spent waiting for data, memory and, where the device's peak is known, MFU.

    MFU is the share of the device's peak that the operations of forward and backward pass make up; they are counted
    once a reading, on the first batch. Times on a GPU are those of events in its queue, which nothing waits for.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.peak = peak_flops(accelerator.device)
        self.flops_per_reading: float | None = None
        self.on_gpu = accelerator.device.type == "cuda"
        self.waits_from = self.waited_seconds = 0.0

    def waits(self) -> None:
        self.began = self._now()
        self.waits_from = time.perf_counter()

    def starts(self) -> None:
        self.waited_seconds = time.perf_counter() - self.waits_from

    def ends(self) -> Callable[[], float]:
        """Seconds since `waits`, to be asked when the device has finished."""
        began, ended = self.began, self._now()
        return lambda: began.elapsed_time(ended) / 1000 if self.on_gpu else ended - began

    def count_operations(self, module: TrainingModule, batch: Batch) -> None:
        """Once, and only where there is a peak to compare with."""
        if self.peak is not None and self.flops_per_reading is None:
            self.flops_per_reading = training_flops(module, batch) / len(batch["pixel_values"])

    def read(self, readings: int, seconds: float) -> dict[str, float]:
        """Figures of a step of `readings` on this process."""
        values = {
            "pairs_per_second": readings * self.accelerator.num_processes / seconds,
            "memory_gigabytes": memory_gigabytes(self.accelerator.device),
        }
        if self.peak is not None and self.flops_per_reading is not None:
            values["mfu"] = readings * self.flops_per_reading / seconds / self.peak
        return values

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def training_flops(module: TrainingModule, batch: Batch) -> float:
    """Floating point operations of forward and backward pass of a batch: three times those of its forward pass.

    The pass is made in evaluation mode, so that neither dropout's random state nor running statistics move.
    """
    training = module.training
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(batch, stage="features")
    module.train(training)
    return 3.0 * counter.get_total_flops()


def gallery_rows(rows: Sequence[Mapping[str, Any]], batch: Batch, maps: Tensor) -> list[GalleryRow]:
    """The longest sentence of each reading: its map by the model, and by the reader's gaze where there is one.

    Args:
        batch: the collated `rows`, un-augmented, from `step.to_device`.
        maps: (N, G, G) of every sentence on its own image.
    """
    of_image, gaze = batch["sentence_to_image"], batch["gaze_heatmaps"]
    chosen = []
    for place, row in enumerate(rows):
        sentences = (of_image == place).nonzero().squeeze(1)
        if not len(sentences):
            continue
        texts = [sentence["text"] for sentence in row["sentences"]]
        longest = max(range(len(texts)), key=lambda index: len(texts[index]))
        index = int(sentences[longest])
        looked = bool(batch["gaze_mask"][place])
        chosen.append(GalleryRow(row["image"], texts[longest], maps[index], gaze[index].cpu() if looked else None))
    return chosen


def _text(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _forget_after(path: Path, step: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """Step of a line; a line that a crash cut short belongs to none."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")
