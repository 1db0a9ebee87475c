"""A run of the training program: what it is made of, its steps, validations and checkpoints."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor
from transformers import get_scheduler

from dataset_scripts.identity import corpus_identity, model_identity
from dataset_scripts.schema import UserError
from egma.tools.processes import write_json
from egma.training.adapters import add_adapters
from egma.training.arguments import FREE_SETTINGS, STARTS, TrainingSettings
from egma.training.augmentation import text_number
from egma.training.averaging import WeightAverage
from egma.training.cached import cached_step, validation_objective
from egma.training.checkpoint import FINISHED, export_best, load_checkpoint, save_checkpoint
from egma.training.data import ReadingCollator, TrainingData
from egma.training.devices import (
    check_windows,
    make_accelerator,
    make_module,
    make_optimizer,
    part_processes,
    prepare_sharding,
)
from egma.training.frozen import check_statistics, freeze_lower, freeze_unreached, frozen_notes
from egma.training.interruption import Interrupted, Interruption
from egma.training.objective import check_objective, objective_notes
from egma.training.start import build_model
from egma.training.step import Batch, TrainingModule, to_device, whole_step
from egma.training.together import largest, on_first
from egma.training.watching import Speedometer, Step, Watch, fetch, gallery_rows


class TrainingRun:
    """One run: what was set, what it is made of, and where it stands."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.accelerator = accelerator = make_accelerator(settings)
        self.data = TrainingData(settings, accelerator.process_index, accelerator.num_processes, accelerator.device)
        model, self.processor = build_model(settings, self.data.rows)
        self.data.prepare(self.processor.image_processor)
        gaze, size = self.processor.gaze_kwargs, self.processor.image_processor.size
        # what was not given is the model's
        settings = dataclasses.replace(settings, gaze_sigma=gaze["sigma"], gaze_lead_seconds=gaze["lead"])
        self.settings = settings
        check_objective(model.config, self.data.has_gaze)
        check_statistics(model, settings, accelerator.num_processes)
        check_windows(model.config.vision_config, settings, accelerator.device)
        self.notes = objective_notes(settings, model.config, self.data.has_gaze)
        self.notes += freeze_lower(model, settings.trained_blocks) + add_adapters(model, settings.lora_rank)
        self.notes += frozen_notes(model, freeze_unreached(model, size["height"], size["width"]))
        # every process draws a dropout of its own
        torch.manual_seed(text_number(f"dropout {settings.seed} {accelerator.process_index}"))
        prepare_sharding(accelerator, model)
        optimizer = make_optimizer(model, settings, accelerator.device)
        module = make_module(model, accelerator.device, settings.torch_compile)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        steps_per_epoch = self.data.batches_per_epoch / settings.gradient_accumulation_steps
        self.total_steps = settings.max_steps or whole_steps(settings.epochs * steps_per_epoch)
        self.evaluation_steps = settings.evaluation_steps or whole_steps(steps_per_epoch)
        warmup = round(settings.warmup_fraction * self.total_steps)
        self.schedule = get_scheduler(settings.learning_rate_schedule, optimizer, warmup, self.total_steps)
        self.average = None if settings.ema_decay is None else WeightAverage(optimizer, settings.ema_decay)
        self.watch = Watch(accelerator, settings.output, settings.log_steps)
        self.speed = Speedometer(accelerator)
        self.unread: list[Step] = []
        # a GPU runs ahead: the host learns of a broken step later. A sharded optimiser cannot be told on the device
        self.runs_ahead = accelerator.device.type == "cuda" and accelerator.distributed_type != DistributedType.FSDP
        self.broken = torch.zeros((), device=accelerator.device)
        self.saved_at = time.monotonic()
        self.step = 0
        self.best_loss, self.best_step = math.inf, 0
        self.validations_without_gain = 0

    @property
    def training(self) -> TrainingModule:
        return self.accelerator.unwrap_model(self.module)

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Identities of the corpora and of the models that the run starts from; all processes ask together."""
        named = {field: getattr(self.settings, field) for field in STARTS}

        def ask() -> dict[str, Any]:
            models = {f"content of {field}": model_identity(name) or name for field, name in named.items() if name}
            return {"content of data": [corpus_identity(folder) for folder in self.data.folders]} | models

        return on_first(self.accelerator, ask)

    @property
    def lasting(self) -> dict[str, Any]:
        """What a run that goes on must share with the one before: everything but `FREE_SETTINGS`."""
        free = FREE_SETTINGS | ({"max_steps", "epochs"} if self.settings.extend else set())
        given = {name: value for name, value in dataclasses.asdict(self.settings).items() if name not in free}
        launch = {"precision": self.accelerator.mixed_precision, "processes": self.accelerator.num_processes}
        config = _flat("config", json.loads(self.training.model.config.to_json_string(use_diff=False)))
        return given | launch | config | self.origin

    def resume(self, folder: Path) -> None:
        """Stand where the checkpoint stood."""
        state = load_checkpoint(self.accelerator, folder, self.training.model, self.optimizer.optimizer, self.lasting)
        if self.total_steps < state["total_steps"]:
            raise UserError(
                f"{folder}: of {state['total_steps']} steps, here {self.total_steps}; expected as many or more"
            )
        self.step, self.best_step = state["step"], state["best_step"]
        self.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.validations_without_gain = state["validations_without_gain"]
        if self.average is not None:
            self.average.steps = self.step
        if folder.resolve().parent != self.settings.output.resolve():
            # the best model so far stays where it is
            self.best_loss, self.best_step, self.validations_without_gain = math.inf, 0, 0
        self.schedule.last_epoch = state["schedule"]
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def save(self) -> None:
        """Write a checkpoint, of steps that are known to be sound; every process takes part."""
        self._fetch()
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
            "best_step": self.best_step,
            "total_steps": self.total_steps,
            "validations_without_gain": self.validations_without_gain,
            "schedule": self.schedule.last_epoch,
            "scaler": None if scaler is None else scaler.state_dict(),
            "settings": dataclasses.asdict(self.settings) | self.lasting,
        }
        save_checkpoint(self.accelerator, self.settings.output, self.training.model, self.optimizer.optimizer, state)
        self.saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the last step, validating on the way; leaves the best model in the output folder.

        Raises:
            Interrupted: after a signal, when a checkpoint is written.
            UserError: a loss or gradient that is not finite; nothing was updated from there on.
        """
        settings, accelerator = self.settings, self.accelerator
        self.announce()
        collator = ReadingCollator(self.processor, settings)
        batches = self.data.batches(collator, self.step * settings.gradient_accumulation_steps)
        self.watch.start(self.step, self.total_steps)
        try:
            with Interruption() as interruption:
                while self.step < self.total_steps and not self._has_converged():
                    self._train_step(batches)
                    validates = self.step % self.evaluation_steps == 0 or self.step == self.total_steps
                    number, due = largest(accelerator, interruption.signal, self._is_due())
                    if validates:
                        self._validate()
                    if validates or number or due:
                        self.save()
                    if number:
                        raise Interrupted(int(number), self.step)
        finally:
            self.watch.stop()
        self._finish()

    def announce(self) -> None:
        """What this run is, before its first step."""
        settings, world = self.settings, self.accelerator.num_processes
        pairs = settings.batch_size * world
        self.watch.say(
            f"{self.data.summary}; {self.total_steps} steps on {world} process(es); every image is compared with "
            f"{pairs} reports ({pairs - 1} negatives) and every report with {pairs} images"
        )
        if settings.gradient_accumulation_steps > 1:
            self.watch.say(
                f"{settings.gradient_accumulation_steps} batches a step: their gradients are added, their readings "
                "are not each other's negatives (--micro_batch_size keeps the negatives)"
            )
        for note in self.notes:
            self.watch.say(note)

    def _train_step(self, batches: Iterator[Batch]) -> None:
        settings, accelerator = self.settings, self.accelerator
        self.speed.waits()
        taken = [next(batches) for _ in range(settings.gradient_accumulation_steps)]
        self.speed.starts()
        loss, terms, norm = self.gradients(taken)
        self.optimizer.step()
        rate, waited = self.optimizer.param_groups[0]["lr"], self.speed.waited_seconds
        if not accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()
        self.step += 1
        scale = self.training.model._scale().detach()
        on_device = {"loss": loss, **terms, "logit_scale": scale, "gradient_norm": norm}
        on_host = {"learning_rate": rate, "data_wait_seconds": waited}
        self.unread.append(Step(self.step, on_device, on_host, self.speed.ends(), _reading_ids(taken)))
        if not self.runs_ahead or self.step % settings.log_steps == 0:
            self._fetch()

    def _fetch(self) -> None:
        """Figures of the steps since the last fetch, which waits for the device; raises UserError at a broken one."""
        steps, self.unread = self.unread, []
        for step, values in zip(steps, fetch(steps), strict=True):
            if self.runs_ahead:
                self._check_finite(step.number, values["loss"], values["gradient_norm"], step.reading_ids)
            self.watch.step(step.number, values | self.speed.read(len(step.reading_ids), step.seconds()))

    def _is_due(self) -> bool:
        """Whether a checkpoint is due, by steps or by the clock."""
        steps, minutes = self.settings.checkpoint_steps, self.settings.checkpoint_minutes
        by_steps = steps is not None and self.step % steps == 0
        return by_steps or (minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes)

    def gradients(self, batches: Sequence[Batch]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, its terms, and the norm of the clipped gradients of one step.

        One that is not finite updates nothing. Where the host waits for every step, this raises; where the device runs
        ahead, it skips this update and those that follow, and `_fetch` raises.

        Raises:
            UserError: one of them is not finite.
        """
        settings, accelerator = self.settings, self.accelerator
        self.module.train()
        if settings.micro_batch_size is not None:
            loss, terms = cached_step(accelerator, self.module, batches[0], settings.micro_batch_size)
        else:
            moved = [to_device(batch, accelerator.device) for batch in batches]
            self.speed.count_operations(self.training, moved[0])
            loss, terms = whole_step(accelerator, self.module, moved)
        norm = accelerator.clip_grad_norm_(self.module.parameters(), settings.max_grad_norm)
        if not self.runs_ahead:
            self._check_finite(self.step + 1, float(loss), float(norm), _reading_ids(batches))
        elif accelerator.scaler is None:
            self.broken = torch.maximum(self.broken, 1 - (loss.detach().isfinite() & norm.isfinite()).float())
            # as a gradient scaler tells it: a fused optimiser asks it on the device
            self.optimizer.optimizer.found_inf = self.broken
        return loss, terms, norm

    def _check_finite(self, step: int, loss: float, norm: float, own: Sequence[str]) -> None:
        """Raise UserError for a broken step; its readings, on all processes, are named in a file.

        An overflow of float16's scaled gradients is the scaler's to handle: it skips the step and scales less.
        """
        faults = {"loss": loss} | ({} if self.accelerator.scaler is not None else {"gradient norm": norm})
        broken = {name: str(value) for name, value in faults.items() if not math.isfinite(value)}
        if not broken:
            return
        readings = gather_object(list(own))
        path = self.settings.output / "nonfinite_batch.json"
        if self.accelerator.is_main_process:
            write_json(path, {"step": step, **broken, "reading_ids": readings})
        named = ", ".join(readings[:3]) + (" ..." if len(readings) > 3 else "")
        what = " and ".join(f"the {name} is {value}" for name, value in broken.items())
        raise UserError(
            f"step {step}: {what}; nothing was updated. Its {len(readings)} readings ({named}) are in {path}; "
            "go on from the last checkpoint with --resume auto and a lower --learning_rate, or without them"
        )

    @torch.no_grad()
    def _validate(self) -> None:
        """Mean objective on the validation split, in eval mode; keeps the model when it is the best so far.

        Where an average of the weights is kept, it is what is validated.
        """
        self._fetch()
        with nullcontext() if self.average is None else self.average.in_use():
            means = self._validation_means()
        self.watch.validation(self.step, means)
        if not math.isfinite(means["validation_loss"]):
            raise UserError(f"step {self.step}: the validation loss is {means['validation_loss']}")
        if means["validation_loss"] < self.best_loss:
            self.best_loss, self.best_step = means["validation_loss"], self.step
            self.validations_without_gain = 0
        else:
            self.validations_without_gain += 1

    def _validation_means(self) -> dict[str, float]:
        self.module.eval()
        collator = ReadingCollator(self.processor)
        names: list[str] = []
        values, weights = [], []
        for batch in self.data.validation_batches(collator):
            loss, terms = validation_objective(self.accelerator, self.module, batch, self.settings.micro_batch_size)
            names = ["loss", *terms]
            values.append(torch.stack([loss, *terms.values()]).double() * batch["weight"])
            weights.append(batch["weight"])
        # the same on every process but for rounding, and all shall decide alike
        totals = self.accelerator.reduce(torch.stack(values).sum(dim=0), reduction="mean").tolist()
        self._draw_heat_maps(collator)
        return {f"validation_{name}": total / sum(weights) for name, total in zip(names, totals, strict=True)}

    def _draw_heat_maps(self, collator: ReadingCollator) -> None:
        rows = self.data.fixed_cases(self.settings.heat_map_cases)
        if not rows:
            return
        batch = to_device(collator(rows), self.accelerator.device)
        features = self.module(batch, stage="features")
        maps = torch.einsum("nd,npd->np", features.sentences, features.patches[features.sentence_to_image])
        grid = math.isqrt(maps.shape[1])
        gallery = gallery_rows(rows, batch, maps.unflatten(1, (grid, grid)).float().cpu())
        self.watch.heat_maps(self.step, gallery, self.data.generated)

    def _has_converged(self) -> bool:
        patience = self.settings.early_stopping_patience
        if patience is None or self.validations_without_gain < patience:
            return False
        self.watch.say(f"stopped at step {self.step}: no lower validation loss in {patience} validations")
        return True

    def _finish(self) -> None:
        """The best model to its place; `finished.json` is the last thing that is written."""
        output, model, settings = self.settings.output, self.training.model, dataclasses.asdict(self.settings)
        settings |= self.lasting
        self.part()
        if not self.accelerator.is_main_process:
            return
        export_best(output / f"checkpoint-{self.best_step}", model, self.processor, output)
        best = {"best_step": self.best_step, "best_validation_loss": self.best_loss}
        write_json(
            output / FINISHED, {"step": self.step, "total_steps": self.total_steps, **best, "settings": settings}
        )
        if cut := self.data.truncated_sentences:
            self.watch.say(f"{cut} sentences were cut to {self.processor.max_length} tokens on the main process")
        self.watch.say(
            f"best validation loss {self.best_loss:.4f} at step {self.best_step}; model and processor are in {output}"
        )

    def part(self) -> None:
        """No process waits for another any more."""
        self.accelerator.wait_for_everyone()
        del self.module
        part_processes(self.accelerator)


def _reading_ids(batches: Sequence[Batch]) -> list[str]:
    return [str(name) for batch in batches for name in batch["reading_ids"]]


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Fields of fields by dotted names; not what only says where a model came from, and by which version."""
    if not isinstance(value, dict):
        return {} if name.endswith(("_name_or_path", "transformers_version")) else {name: value}
    return {path: leaf for key, part in value.items() for path, leaf in _flat(f"{name}.{key}", part).items()}


def whole_steps(steps: float) -> int:
    return max(1, round(steps))
