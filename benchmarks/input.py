"""What making batches costs: `python -m benchmarks.input [PART ...]`. See benchmarks/README.md."""

import itertools
import os
import time
from collections.abc import Callable, Iterable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import BertTokenizer
from transformers.image_processing_backends import PilBackend

from benchmarks.parts import run_parts
from benchmarks.training import corpus
from dataset_scripts.schema import load_readings, sentence_span
from egma.training.arguments import TrainingSettings
from egma.training.data import ReadingCollator, TrainingData
from egma.training.readings import list_lengths, numbers_of
from egma.training.sampling import EpochPlan
from modeling_egma import EgmaImageProcessor, EgmaProcessor
from modeling_egma.gaze_egma import gaze_matrices, square_frame, transform_fixations

BATCH, SIDE, GRID, SECONDS, WARM_BATCHES = 32, 224, 7, 6.0, 20
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"streaming": True},
    {"prepared": True},
    {"prepared": True, "keep_on_device": True},
)
PLANNED_ROWS = 10_000_000


def loading(folder: Path) -> None:
    """Images a second from Parquet to the batch, beside one picture at a time in colours, as it was."""
    torch.set_num_threads(1)
    data = corpus(folder)
    processor = _processor(data)
    before, text = _measured(lambda: _one_by_one(data, processor))
    print(f"one by one, in colours, one process: {text}")
    for way, workers in itertools.product(WAYS, (0, 2)):
        changes = way | ({"prepared": str(folder / "input-frames")} if "prepared" in way else {})
        settings = TrainingSettings(
            data=str(data), output_dir="unused", model="unused", batch_size=BATCH, num_workers=workers, **changes
        )
        made = TrainingData(settings, 0, 1)
        made.prepare(processor.image_processor)
        collator = ReadingCollator(processor, settings)
        rate, text = _measured(lambda made=made, collator=collator: made.batches(collator, 0))
        print(f"{', '.join(way) or 'Parquet'}, {workers} workers: {text}; {rate / before:.1f} times the images/s")


def planning(folder: Path) -> None:
    """Ten million generated rows: the images' numbers, lengths of lists, an epoch's batches."""
    ids = pa.chunked_array(
        [pa.array([f"image-{number:032d}" for number in range(at, at + 10**6)]) for at in range(0, PLANNED_ROWS, 10**6)]
    )
    images = _timed("numbers of the images", lambda: numbers_of([ids]))
    lists = pa.ListArray.from_arrays(np.arange(PLANNED_ROWS + 1, dtype=np.int32), pa.nulls(PLANNED_ROWS, pa.string()))
    _timed("lengths of a column of lists", lambda: list_lengths(pa.chunked_array([lists])))
    plan = EpochPlan(images, [PLANNED_ROWS], None, 1024, 0)
    _timed("an epoch's batches", lambda: plan.epoch(0))


def _timed(name: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    made = work()
    with Path("/proc/self/status").open(encoding="utf-8") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024**2
    print(f"{PLANNED_ROWS:,} rows, {name}: {time.perf_counter() - start:.1f} s, {peak:.1f} GiB resident at most so far")
    return made


def _processor(data: Path) -> EgmaProcessor:
    texts = load_readings(data, "train").select_columns(["sentences"])
    words = sorted({word for row in texts for one in row["sentences"] for word in one["text"].lower().split()})
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(entries)}, model_max_length=64)
    return EgmaProcessor(EgmaImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer, grid_size=GRID)


def _measured(make: Callable[[], Iterable[Any]]) -> tuple[float, str]:
    """Images a second, the first batches apart; and what they cost of all processes' time, and of the first one's."""
    batches = iter(make())
    for _ in range(WARM_BATCHES):
        next(batches)
    start, own, workers, count = time.perf_counter(), time.process_time(), _workers_seconds(), 0
    while time.perf_counter() < start + SECONDS:
        next(batches)
        count += BATCH
    rate, own = count / (time.perf_counter() - start), 1000 * (time.process_time() - own) / count
    whole = own + 1000 * (_workers_seconds() - workers) / count
    return rate, f"{rate:.0f} images/s, {whole:.2f} ms of a core each, {own:.2f} of them in the first process"


def _workers_seconds() -> float:
    """Of the cores' time so far."""
    stats = [Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8") for child in active_children()]
    ticks = [sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _one_by_one(data: Path, processor: EgmaProcessor) -> Iterable[Any]:
    rows = load_readings(data, "train")
    stock = PilBackend(
        do_convert_rgb=True, do_resize=True, size={"height": SIDE, "width": SIDE}, do_rescale=True, do_normalize=True,
        rescale_factor=1 / 255, image_mean=[0.5] * 3, image_std=[0.25] * 3, resample=2,
    )  # fmt: skip
    for numbers in _endless(len(rows)):
        batch = [rows[number] for number in numbers]
        yield stock([row["image"].convert("RGB") for row in batch], return_tensors="pt")
        processor(text=[one["text"] for row in batch for one in row["sentences"]])
        looked = [row for row in batch if row["fixations"] is not None]
        moved = [transform_fixations(row["fixations"], square_frame(*row["image"].size)) for row in looked]
        gaze_matrices(moved, [[sentence_span(one) for one in row["sentences"]] for row in looked], GRID)


def _endless(rows: int) -> Iterable[list[int]]:
    numbers = itertools.cycle(range(rows))
    while True:
        yield list(itertools.islice(numbers, BATCH))


if __name__ == "__main__":
    run_parts(__doc__, {"loading": loading, "planning": planning})
