"""What evaluation costs beside the encoders: `python -m benchmarks.evaluation`. See benchmarks/README.md."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.functional import normalize

from egma.evaluation.protocols.class_retrieval import class_retrieval
from egma.evaluation.protocols.published import PROTOCOLS
from egma.evaluation.protocols.zero_shot import zero_shot
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import ImageBank, TextBank
from egma.inference.prompts import draw_prompts
from egma.inference.scores import class_scores

DRAWS, DIMENSION, PATCHES, IMAGES_PER_CLASS = 1000, 512, 49, 200


def main() -> None:
    """Generated embeddings in the sizes of CheXpert 5x200 and 8x200."""
    _measure("chexpert_5x200", zero_shot)
    _measure("chexpert_8x200", class_retrieval)


def _measure(source: str, task: Callable[..., Any]) -> None:
    file = PROTOCOLS[source].prompt_file()
    assert file is not None
    prompts = draw_prompts(file.classes, file.per_class or 1000, 0)
    readings: Any = [
        {"image_id": f"{name} {n}", "subject_id": f"{name} {n}", "findings": _findings(name, list(prompts))}
        for name in prompts
        for n in range(IMAGES_PER_CLASS)
    ]
    ids = [reading["image_id"] for reading in readings]
    sentences = [prompt for of_class in prompts.values() for prompt in of_class]
    patches = normalize(torch.randn(len(ids), PATCHES, DIMENSION), dim=-1)
    images = ImageBank(_places(ids), normalize(patches.mean(dim=1), dim=-1), patches)
    texts = TextBank(_places(sentences), normalize(torch.randn(len(sentences), DIMENSION), dim=-1))
    size = f"{source}: {len(ids):,} images x {len(sentences)} sentences"
    print(f"{size}, scores of both kinds: {_seconds(lambda: class_scores(images, texts, prompts, 'max')):.2f} s")
    for draws in (0, DRAWS):
        bootstrap = PatientBootstrap(readings, draws)
        seconds = _seconds(partial(task, readings, images, texts, prompts=prompts, bootstrap=bootstrap))
        print(f"{size}, all figures with {draws} draws: {seconds:.2f} s")


def _places(names: list[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _findings(name: str, classes: list[str]) -> list[dict[str, Any]]:
    return [{"name": other, "value": int(other == name)} for other in classes]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
