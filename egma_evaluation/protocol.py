"""`evaluate_model`: all protocols on one split of a converted corpus, every image and sentence encoded once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_scripts.schema import PRESENT, Reading, Split, UserError, is_generated, load_readings
from egma_evaluation.bootstrap import CONFIDENCE, PatientBootstrap, patient
from egma_evaluation.embeddings import (
    ImageBank,
    ImageTextModel,
    Processor,
    Readings,
    TextBank,
    encode_images,
    encode_texts,
    records,
)
from egma_evaluation.gaze_agreement import gaze_agreement
from egma_evaluation.grounding import grounding, grounding_targets
from egma_evaluation.pointing import mean_box_centre, pointing_game, pointing_targets
from egma_evaluation.prompts import Prompts, draw_prompts, load_prompts
from egma_evaluation.report import headline
from egma_evaluation.retrieval import report_sentences, retrieval
from egma_evaluation.zero_shot import Pooling, zero_shot, zero_shot_classes
from modeling_egma.processing_egma import GAZE_DEFAULTS

PROTOCOL_VERSION = "1"
TASKS = ("zero_shot", "retrieval", "pointing_game", "grounding", "gaze_agreement")
SENTENCE_TASKS = {"retrieval", "grounding", "gaze_agreement"}  # read the reports, not only prompts


def evaluate_model(
    model: ImageTextModel,
    processor: Processor,
    data: str | Path | Readings,
    tasks: Sequence[str] | None = None,
    *,
    split: Split = "test",
    training_rows: Readings | None = None,
    prompts: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    prompts_per_class: int | None = None,
    pooling: Pooling = "max",
    batch_size: int = 64,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a model; the result is what `results.json` holds.

    Args:
        data: a converted corpus (its `split` is read), or its rows.
        tasks: of TASKS; None takes all and notes the ones that the data do not allow.
        training_rows: rows for the centre-bias baselines when `data` is rows; a corpus brings its own.
        prompts: by class name; None takes the prompt files of the package.
        classes: findings to evaluate; None takes those that have prompts.
        prompts_per_class: draw this many by class name and `seed`; None takes all.
        bootstrap: draws of the intervals; 0 leaves them out.

    Raises:
        UserError: what was asked for and the data or the prompts do not hold.
    """
    _check_numbers(tasks, batch_size, bootstrap)
    rows = load_readings(data, split) if isinstance(data, str | Path) else data
    readings = records(rows)
    chosen = _choose_prompts(readings, load_prompts() if prompts is None else prompts, classes)
    if prompts_per_class is not None:
        chosen = draw_prompts(chosen, prompts_per_class, seed)
    resampling = PatientBootstrap(readings, bootstrap, seed)
    images = encode_images(model, processor, rows, batch_size)
    texts = _encode_all_texts(model, processor, readings, chosen, tasks or TASKS, batch_size)
    training = _training_records(data) if training_rows is None else records(training_rows)
    # a processor that draws no gaze leaves the width and the lead to the project's defaults; the result names them
    gaze = getattr(processor, "gaze_kwargs", GAZE_DEFAULTS)
    runs = Tasks(readings, images, texts, chosen, classes is not None, pooling, training, gaze, resampling)
    details = _run({name: getattr(runs, name) for name in tasks or TASKS}, asked=tasks is not None)
    return {
        "protocol_version": PROTOCOL_VERSION,
        "generated": is_generated(data) if isinstance(data, str | Path) else None,
        **headline(details, model.config.zero_shot_score),
        "zero_shot_score": model.config.zero_shot_score,
        "bootstrap": {"draws": bootstrap, "seed": seed, "confidence": CONFIDENCE, "unit": "patient"},
        "prompts_per_class": {name: len(used) for name, used in sorted(chosen.items())},
        "data": describe_data(data, readings, split),
        "details": details,
    }


@dataclass(frozen=True)
class Tasks:
    """What the tasks share, and each task by its name; `classes_named` is whether the user chose the classes."""

    readings: Sequence[Reading]
    images: ImageBank
    texts: TextBank
    prompts: Prompts
    classes_named: bool
    pooling: Pooling
    training: Sequence[Reading]
    gaze_settings: Mapping[str, float]
    bootstrap: PatientBootstrap

    def zero_shot(self) -> dict[str, Any]:
        names = list(self.prompts) if self.classes_named else zero_shot_classes(self.readings, self.prompts)
        prompts = {name: self.prompts[name] for name in names}
        return zero_shot(self.readings, self.images, self.texts, prompts, self.bootstrap, self.pooling)

    def retrieval(self) -> dict[str, Any]:
        return retrieval(self.readings, self.images, self.texts, self.bootstrap)

    def pointing_game(self) -> dict[str, Any]:
        targets, centre = pointing_targets(self.readings, self.prompts), mean_box_centre(self.training)
        return pointing_game(targets, self.images, self.texts, centre, self.bootstrap)

    def grounding(self) -> dict[str, Any]:
        targets = grounding_targets(self.readings, self.prompts)
        return grounding(targets, self.images, self.texts, self.training, self.bootstrap)

    def gaze_agreement(self) -> dict[str, Any]:
        return gaze_agreement(
            self.readings, self.images, self.texts, self.training, **self.gaze_settings, bootstrap=self.bootstrap
        )


def describe_data(data: str | Path | Readings, readings: Sequence[Reading], split: Split) -> dict[str, Any]:
    """What was evaluated: counts, and a digest of the readings' names by which two runs can be compared."""
    names = "\n".join(f"{reading['source']} {reading['image_id']} {reading['reading_id']}" for reading in readings)
    return {
        "name": Path(data).resolve().name if isinstance(data, str | Path) else None,
        "split": split,
        "sources": sorted({reading["source"] for reading in readings}),
        "readings": len(readings),
        "images": len({reading["image_id"] for reading in readings}),
        "patients": len({patient(reading) for reading in readings}),
        "digest": hashlib.sha256(names.encode()).hexdigest()[:16],
    }


def _check_numbers(tasks: Sequence[str] | None, batch_size: int, bootstrap: int) -> None:
    for task in tasks or ():
        if task not in TASKS:
            raise UserError(f"unknown task '{task}'; expected {', '.join(TASKS)}")
    if batch_size < 1:
        raise UserError(f"batch size: expected at least 1, got {batch_size}")
    if bootstrap < 0:
        raise UserError(f"bootstrap: expected 0 draws or more, got {bootstrap}")


def _choose_prompts(
    readings: Sequence[Reading], prompts: Mapping[str, Sequence[str]], classes: Sequence[str] | None
) -> Prompts:
    """Prompts of the findings that the readings list, or of `classes`, each of which must have what it takes."""
    values: dict[str, set[int]] = {}
    for finding in (finding for reading in readings for finding in reading["findings"]):
        values.setdefault(finding["name"], set()).add(finding["value"])
    for name in classes or ():
        if name not in values:
            raise UserError(f"class '{name}' is not in these readings; they list {', '.join(sorted(values)) or 'none'}")
        if not prompts.get(name):
            raise UserError(f"class '{name}' has no prompts; there are prompts for {', '.join(sorted(prompts))}")
        if PRESENT not in values[name]:
            raise UserError(f"class '{name}' is present in none of these readings")
    wanted = values if classes is None else set(classes)
    return {name: list(prompts[name]) for name in sorted(wanted) if prompts.get(name)}


def _encode_all_texts(
    model: ImageTextModel,
    processor: Processor,
    readings: Sequence[Reading],
    prompts: Prompts,
    tasks: Sequence[str],
    batch_size: int,
) -> TextBank:
    texts = [prompt for used in prompts.values() for prompt in used]
    if SENTENCE_TASKS & set(tasks):
        texts += [text for reading in readings for text in report_sentences(reading)]
    if not texts:
        raise UserError("nothing to evaluate: the readings hold no sentence, and none of their findings has prompts")
    return encode_texts(model, processor, texts, batch_size)


def _training_records(data: str | Path | Readings) -> list[Reading]:
    if not isinstance(data, str | Path) or not any(Path(data).glob("data/train-*.parquet")):
        return []
    return records(load_readings(data, "train"))


def _run(programs: Mapping[str, Callable[[], dict[str, Any]]], asked: bool) -> dict[str, Any]:
    """Run the tasks; one that nobody asked for by name may be impossible, and then gives its reason."""
    details: dict[str, Any] = {}
    for name, program in programs.items():
        try:
            details[name] = program()
        except UserError as error:
            if asked:
                raise
            details[name] = {"reason": str(error)}
    if all("reason" in result for result in details.values()):
        raise UserError("; ".join(result["reason"] for result in details.values()))
    return details
