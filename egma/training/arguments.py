"""Arguments of `train_egma.py`: a dataclass, a YAML preset, and the command line over both."""

import argparse
import dataclasses
import difflib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from dataset_scripts.schema import UserError
from egma.tools.processes import preset_path
from modeling_egma import EgmaConfig

STARTS = ("model", "start_from", "vision_model", "text_model")
POSITIVES = ("diagonal", "text_match")
SCHEDULES = ("cosine", "constant_with_warmup")
OBJECTIVE_WEIGHTS = ("contrastive_weight", "gaze_weight", "mapping_weight")
# what a run that goes on may set anew; its start's content and the model's configuration are compared themselves
_FREE = """output_dir config resume extend dry_run report_to push_to_hub log_steps num_workers prepared keep_on_device
heat_map_cases data model start_from vision_model text_model egma_config checkpoint_steps checkpoint_minutes
evaluation_steps early_stopping_patience"""
FREE_SETTINGS = {*_FREE.split(), *OBJECTIVE_WEIGHTS}
OBJECTIVE_KINDS = ("interaction", "gaze_target", "mapping")
OBJECTIVE_FIELDS = (
    *(*OBJECTIVE_WEIGHTS, *OBJECTIVE_KINDS),
    *("gaze_sentence_weight", "gaze_label_threshold", "mapping_threshold"),
)


@dataclass
class TrainingSettings:
    """Everything that decides a run. The model comes from `model`, a whole other one, two towers, or `egma_config`."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "converted corpus (dataset_scripts.build), a folder or hf://datasets/ID@REVISION, or several: A,B"
        },
    )
    data_weights: str | None = field(
        default=None, metadata={"help": "each corpus' share of an epoch, as 2,1; without: every reading once"}
    )
    streaming: bool = field(default=False, metadata={"help": "read the training split on the fly, without an index"})
    shuffle_buffer: int = field(default=4096, metadata={"help": "readings shuffled at a time when streaming"})
    output_dir: str | None = field(default=None, metadata={"help": "where model, checkpoints and metrics go"})
    config: str | None = field(
        default=None,
        metadata={"help": "YAML preset, or several: A,B, the later over the earlier; the command line overrides them"},
    )
    model: str | None = field(default=None, metadata={"help": "EGMA model to start from: Hub id or folder"})
    start_from: str | None = field(
        default=None,
        metadata={"help": "whole CLIP, SigLIP or SigLIP 2 to start from: Hub id or folder"},
    )
    vision_model: str | None = field(default=None, metadata={"help": "pretrained vision backbone: Hub id or folder"})
    text_model: str | None = field(default=None, metadata={"help": "pretrained text encoder: Hub id or folder"})
    egma_config: dict = field(  # type: ignore[type-arg]
        default_factory=dict, metadata={"help": "fields of EgmaConfig for a new model, as JSON"}
    )
    contrastive_weight: float | None = field(
        default=None, metadata={"help": "of the contrastive term; 1 when not given"}
    )
    gaze_weight: float | None = field(default=None, metadata={"help": "of the gaze term; 1 when not given"})
    mapping_weight: float | None = field(default=None, metadata={"help": "of the mapping term; 1 when not given"})
    trained_blocks: int | None = field(
        default=None, metadata={"help": "train so many last blocks of each encoder and what follows; without: all"}
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": "train adapters (LoRA) of this rank in the place of the encoders"}
    )
    vocabulary_size: int = field(default=4000, metadata={"help": "WordPiece entries when the text encoder is new"})
    max_length: int = field(default=64, metadata={"help": "tokens a sentence; what is cut is counted"})

    max_steps: int | None = field(default=None, metadata={"help": "optimiser steps; overrides epochs"})
    epochs: float = field(default=10.0, metadata={"help": "passes over the training split"})
    batch_size: int = field(
        default=32, metadata={"help": "readings of one contrastive batch on one process; every process adds as many"}
    )
    micro_batch_size: int | None = field(
        default=None,
        metadata={"help": "encode so many readings at a time: the whole batch's gradient in less memory, more time"},
    )
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "batches a step; readings of different batches are not each other's negatives"}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "peak, after warm-up"})
    weight_decay: float = field(default=1e-4, metadata={"help": "not on norms, biases and the logit scale"})
    warmup_fraction: float = field(default=0.1, metadata={"help": "share of the steps"})
    learning_rate_schedule: str = field(
        default="cosine", metadata={"help": "after warm-up: 'cosine' to 0, or 'constant_with_warmup'"}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "validate and export an exponential moving average of the weights, as .99; without: none"},
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradient clipping"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "recompute activations to save memory"})
    torch_compile: bool = field(default=False, metadata={"help": "compile encoders and objective; lengths in buckets"})
    tf32: bool = field(default=False, metadata={"help": "TensorFloat-32 matrix products where the GPU has them"})
    seed: int = field(default=42, metadata={"help": "initialisation, order, augmentation, dropout, gaze subset"})

    gaze_ratio: float = field(default=1.0, metadata={"help": "share of the readings that keep their gaze, 0 to 1"})
    positives: str = field(
        default="diagonal",
        metadata={"help": "'diagonal': every other report is a negative; 'text_match': not one of the same text"},
    )
    gaze_sigma: float | None = field(
        default=None,
        metadata={"help": "width of a fixation, fraction of the frame's side; the model's, 0.05 for a new one"},
    )
    gaze_lead_seconds: float | None = field(
        default=None, metadata={"help": "by how much the eyes run ahead of speech; the model's, 0 for a new one"}
    )

    brightness: float = field(default=0.0, metadata={"help": "augmentation: largest change, fraction of full scale"})
    contrast: float = field(default=0.0, metadata={"help": "augmentation: largest relative change"})
    rotation_degrees: float = field(default=0.0, metadata={"help": "augmentation: largest rotation"})
    scale_fraction: float = field(default=0.0, metadata={"help": "augmentation: largest relative change of size"})
    shift_fraction: float = field(default=0.0, metadata={"help": "augmentation: largest shift, fraction of the frame"})
    crop_fraction: float = field(default=0.0, metadata={"help": "augmentation: largest share of a side cut away"})
    flip_probability: float = field(default=0.0, metadata={"help": "augmentation; off because left is not right"})

    evaluation_steps: int | None = field(default=None, metadata={"help": "steps between validations; None: an epoch"})
    checkpoint_steps: int | None = field(
        default=None, metadata={"help": "steps between checkpoints, beside validations"}
    )
    checkpoint_minutes: float | None = field(default=None, metadata={"help": "minutes between checkpoints at most"})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after so many validations without a lower loss"}
    )
    heat_map_cases: int = field(default=4, metadata={"help": "validation readings drawn with their maps each time"})
    num_workers: int | None = field(
        default=None, metadata={"help": "processes that prepare batches; chosen by cores and device when not given"}
    )
    prepared: str | None = field(
        default=None, metadata={"help": "folder of the frames that the model sees, made once and mapped into memory"}
    )
    keep_on_device: bool = field(
        default=False, metadata={"help": "with prepared: the training frames in the device's memory, where they fit"}
    )
    log_steps: int = field(default=10, metadata={"help": "steps between log lines, and between a GPU's reports"})
    report_to: str = field(
        default="tensorboard", metadata={"help": "trackers of accelerate, as tensorboard,wandb; 'all'; 'none'"}
    )
    resume: str | None = field(
        default=None, metadata={"help": "'auto': start, go on from the newest checkpoint, or be done; or a checkpoint"}
    )
    extend: bool = field(default=False, metadata={"help": "go on with a larger max_steps, or more epochs"})
    push_to_hub: str | None = field(
        default=None, metadata={"help": "user/name on the Hub: push the finished model there, private, with its card"}
    )
    dry_run: bool = field(default=False, metadata={"help": "check everything, run one batch, say what it takes"})

    def __post_init__(self) -> None:
        if self.data is None or self.output_dir is None:
            raise UserError("--data (a converted corpus) and --output_dir are needed")
        _check_ranges(self)
        if (self.prepared and self.streaming) or (self.keep_on_device and not self.prepared):
            raise UserError("prepared needs the index that streaming does without, and keep_on_device needs prepared")
        if self.lora_rank and self.trained_blocks:
            raise UserError("lora_rank leaves the encoders as they are, trained_blocks trains them: name one of them")
        for name, known in (("positives", POSITIVES), ("learning_rate_schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is '{getattr(self, name)}', expected {' or '.join(known)}")
        _check_known("egma_config", self.egma_config, _names(EgmaConfig))
        if self.micro_batch_size is not None and self.gradient_accumulation_steps > 1:
            raise UserError(
                "micro_batch_size keeps the negatives of the whole batch and gradient_accumulation_steps gives them "
                "up: name one of them"
            )
        towers = bool(self.vision_model or self.text_model)
        sources = [bool(self.model), bool(self.start_from), towers, "vision_config" in self.egma_config]
        if sum(sources) != 1:
            raise UserError(
                "name one start for the model: --model, or --start_from, or --vision_model with --text_model, or a "
                "preset whose egma_config holds vision_config and text_config"
            )
        if bool(self.vision_model) != bool(self.text_model):
            raise UserError("--vision_model and --text_model go together")

    @property
    def output(self) -> Path:
        return Path(str(self.output_dir))

    @property
    def model_fields(self) -> dict[str, Any]:
        """Fields of `EgmaConfig`: the objective, which a run has of its own, and what else was given."""
        defaults = {item.name: item.default for item in dataclasses.fields(EgmaConfig) if item.name in OBJECTIVE_FIELDS}
        weights = {name: getattr(self, name) for name in OBJECTIVE_WEIGHTS}
        given = {name: weight for name, weight in weights.items() if weight is not None}
        return defaults | self.egma_config | given


def parse_settings(argv: list[str]) -> TrainingSettings:
    """Command line over preset over defaults; so the fields of `egma_config`, one by one.

    Raises:
        UserError: an unknown or ill-typed field, a preset that cannot be read, values that do not fit each other.
    """
    parser = _Parser([TrainingSettings], allow_abbrev=False)  # type: ignore[list-item]
    parser.set_type("egma_config", _json_fields)
    preset = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    preset.add_argument("--config")
    paths = preset.parse_known_args(argv)[0].config
    for path in paths.split(",") if paths else ():
        values = _read_preset(preset_path(path.strip()))
        _check_known(path, values, _names(TrainingSettings))
        _check_types(path, values, parser)
        fields = {"egma_config": parser.get_default("egma_config") | values.get("egma_config", {})}
        parser.set_defaults(**values | fields)
    given, unknown = parser.parse_known_args(argv)
    given.egma_config = parser.get_default("egma_config") | given.egma_config
    if unknown:
        options = [name for name in unknown if name.startswith("--")] or unknown
        _check_known("command line", [name.lstrip("-").split("=")[0] for name in options], _names(TrainingSettings))
        raise UserError(f"command line: unexpected {' '.join(unknown)}")
    return TrainingSettings(**vars(given))


class _Parser(HfArgumentParser):
    def set_type(self, name: str, convert: Callable[[str], Any]) -> None:
        next(action for action in self._actions if action.dest == name).type = convert

    def error(self, message: str) -> Any:
        raise UserError(f"command line: {message}")


def _names(dataclass_type: type) -> list[str]:
    return [item.name for item in dataclasses.fields(dataclass_type) if not item.name.startswith("_")]


def _json_fields(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is no JSON ({error}): {text!r}") from None
    if not isinstance(fields, dict):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected fields of EgmaConfig as a JSON object")
    return fields


def _read_preset(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a preset ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected 'field: value' lines, found {type(values).__name__}")
    return values


def _check_known(where: str, given: Any, known: list[str]) -> None:
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0)
            raise UserError(f"{where}: unknown field '{name}'; did you mean '{nearest[0]}'?")


def _check_types(path: str, values: dict[str, Any], parser: HfArgumentParser) -> None:
    """YAML values go through the same conversion as the command line's."""
    for action in parser._actions:
        if action.dest not in values or values[action.dest] is None or action.dest == "egma_config":
            continue
        value = values[action.dest]
        try:
            converted = action.type(str(value)) if callable(action.type) else value
        except (ValueError, TypeError, argparse.ArgumentTypeError):
            raise UserError(f"{path}: {action.dest} is {value!r}, expected {action.type.__name__}") from None  # type: ignore[union-attr]
        values[action.dest] = converted
    if not isinstance(values.get("egma_config", {}), dict):
        raise UserError(f"{path}: egma_config is {values['egma_config']!r}, expected fields of EgmaConfig")


def _check_ranges(settings: TrainingSettings) -> None:
    shares = ("gaze_ratio", "warmup_fraction", "flip_probability", "brightness", "contrast", "shift_fraction")
    counts = (
        *("shuffle_buffer", "batch_size", "micro_batch_size", "gradient_accumulation_steps", "max_steps"),
        *("trained_blocks", "lora_rank", "early_stopping_patience"),
        *("evaluation_steps", "checkpoint_steps", "log_steps"),
    )
    amounts = ("heat_map_cases", "checkpoint_minutes", "num_workers", "learning_rate", "weight_decay")
    rules: dict[str, tuple[float, float]] = {
        **dict.fromkeys(shares, (0, 1)),
        **dict.fromkeys(counts, (1, math.inf)),
        **dict.fromkeys((*amounts, *OBJECTIVE_WEIGHTS), (0, math.inf)),
        **dict.fromkeys(("scale_fraction", "crop_fraction"), (0, 0.9)),
        "ema_decay": (0, 0.999999),
        **dict.fromkeys(("epochs", "gaze_sigma"), (1e-9, math.inf)),
        "rotation_degrees": (0, 180),
        "max_grad_norm": (1e-12, math.inf),
        "max_length": (2, math.inf),
        "vocabulary_size": (5, math.inf),
        "seed": (0, 2**32 - 1),
    }
    for name, (low, high) in rules.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise UserError(f"{name} is {value}, expected a number {bounds}")
