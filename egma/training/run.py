"""A run of the training program: what it is made of, its steps, validations and checkpoints."""

import dataclasses
import math
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from dataset_scripts.identity import corpus_identity, model_identity
from dataset_scripts.schema import UserError
from egma.tools.processes import write_json
from egma.training.arguments import TrainingSettings
from egma.training.cached import cached_step
from egma.training.checkpoint import load_checkpoint, save_checkpoint
from egma.training.data import ReadingCollator, TrainingData
from egma.training.devices import (
    make_accelerator,
    make_module,
    make_optimizer,
    part_processes,
    prepare_sharding,
)
from egma.training.frozen import check_statistics, freeze_unreached, frozen_notes
from egma.training.interruption import Interrupted, Interruption
from egma.training.objective import check_objective, objective_notes
from egma.training.start import build_model
from egma.training.step import Batch, TrainingModule, to_device, whole_step
from egma.training.watching import Speedometer, Watch, gallery_rows
from modeling_egma.losses_egma import term_weights

# what a resumed run must share with the run it goes on with
LASTING_SETTINGS = (
    *("data", "data_weights", "streaming", "shuffle_buffer", "positives", "gaze_ratio", "seed"),
    *("batch_size", "micro_batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay"),
    *("warmup_fraction", "max_steps", "epochs", "gaze_sigma", "gaze_lead_seconds", "max_length"),
    *("contrastive_weight", "gaze_weight", "mapping_weight", "max_grad_norm"),
    *("model", "vision_model", "text_model", "egma_config", "vocabulary_size"),
    *("brightness", "contrast", "rotation_degrees", "scale_fraction", "shift_fraction", "crop_fraction"),
    *("flip_probability", "max_grad_norm", "egma_config"),
)


class TrainingRun:
    """One run: what was set, what it is made of, and where it stands."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.accelerator = accelerator = make_accelerator(settings)
        self.data = TrainingData(settings, accelerator.process_index, accelerator.num_processes)
        model, self.processor = build_model(settings, self.data.rows)
        gaze, size = self.processor.gaze_kwargs, self.processor.image_processor.size
        # what was not given is the model's
        settings = dataclasses.replace(settings, gaze_sigma=gaze["sigma"], gaze_lead_seconds=gaze["lead"])
        self.settings = settings
        check_objective(model.config, self.data.has_gaze)
        check_statistics(model, settings, accelerator.num_processes)
        self.notes = objective_notes(settings, model.config, self.data.has_gaze)
        self.notes += frozen_notes(model, freeze_unreached(model, size["height"], size["width"]))
        prepare_sharding(accelerator, model)
        optimizer = make_optimizer(model, settings, accelerator.device)
        self.module, self.optimizer = accelerator.prepare(make_module(model, settings), optimizer)
        steps_per_epoch = self.data.batches_per_epoch / settings.gradient_accumulation_steps
        self.total_steps = settings.max_steps or whole_steps(settings.epochs * steps_per_epoch)
        self.evaluation_steps = settings.evaluation_steps or whole_steps(steps_per_epoch)
        warmup = round(settings.warmup_fraction * self.total_steps)
        self.schedule = get_cosine_schedule_with_warmup(optimizer, warmup, self.total_steps)
        self.watch = Watch(accelerator, settings.output, settings.log_steps)
        self.speed = Speedometer(accelerator)
        self.step = 0
        self.best_loss, self.best_step = math.inf, 0
        self.validations_without_gain = 0

    @property
    def training(self) -> TrainingModule:
        return self.accelerator.unwrap_model(self.module)

    @cached_property
    def origin(self) -> dict[str, str | None]:
        """Identities of the corpora and of the models that the run starts from; all processes ask together."""
        found: list[Any] = [None]
        if self.accelerator.is_main_process:
            models = (self.settings.model, self.settings.vision_model, self.settings.text_model)
            found = [
                {f"content of {folder}": corpus_identity(folder) for folder in self.data.folders}
                | {f"content of {name}": model_identity(name) for name in models if name}
            ]
        broadcast_object_list(found)
        return dict(found[0])

    def resume(self, folder: Path) -> None:
        """Stand where the checkpoint stood."""
        lasting = {name: getattr(self.settings, name) for name in LASTING_SETTINGS} | self.origin
        state = load_checkpoint(self.accelerator, folder, self.training.model, self.optimizer.optimizer, lasting)
        self.step, self.best_step = state["step"], state["best_step"]
        self.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.validations_without_gain = state["validations_without_gain"]
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def save(self) -> None:
        """Write a checkpoint; every process takes part."""
        # the schedule's functions are rebuilt from the settings
        schedule = self.schedule.state_dict() | {"lr_lambdas": [None] * len(self.optimizer.param_groups)}
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
            "best_step": self.best_step,
            "validations_without_gain": self.validations_without_gain,
            "schedule": schedule,
            "scaler": None if scaler is None else scaler.state_dict(),
            "settings": dataclasses.asdict(self.settings) | self.origin,
        }
        save_checkpoint(self.accelerator, self.settings.output, self.training.model, self.optimizer.optimizer, state)

    def run(self) -> None:
        """Train to the last step, validating on the way; leaves the best model in the output folder.

        Raises:
            Interrupted: after a signal, when a checkpoint is written.
            UserError: a loss or gradient that is not finite; nothing was updated.
        """
        settings, accelerator = self.settings, self.accelerator
        self.announce()
        collator = ReadingCollator(self.processor, settings)
        batches = self.data.batches(collator, self.step * settings.gradient_accumulation_steps)
        self.watch.start(self.step, self.total_steps)
        try:
            with Interruption(accelerator) as interruption:
                while self.step < self.total_steps and not self._has_converged():
                    self._train_step(batches)
                    validates = self.step % self.evaluation_steps == 0 or self.step == self.total_steps
                    if validates:
                        self._validate()
                    interrupted = interruption.requested()
                    if validates or interrupted:
                        self.save()
                    if interrupted:
                        raise Interrupted(interruption.signal, self.step)
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
        rate = self.schedule.get_last_lr()[0]
        if not accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()
        self.step += 1
        values = {
            "loss": float(loss),
            **{name: float(value.detach()) for name, value in terms.items()},
            "logit_scale": float(self.training.model._scale().detach()),
            "learning_rate": rate,
            "gradient_norm": float(norm),
        }
        readings = sum(len(batch["pixel_values"]) for batch in taken)
        self.watch.step(self.step, values | self.speed.read(readings))

    def gradients(self, batches: Sequence[Batch]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, its terms, and the norm of the clipped gradients of one step.

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
        self._check_finite(loss, norm, batches)
        return loss, terms, norm

    def _check_finite(self, loss: Tensor, norm: Tensor, batches: Sequence[Batch]) -> None:
        """Stop before the update; the readings of the step, on all processes, are named in a file.

        An overflow of float16's scaled gradients is the scaler's to handle: it skips the step and scales less.
        """
        faults = {"loss": loss, "gradient norm": norm}
        if self.accelerator.scaler is not None:
            del faults["gradient norm"]
        broken = {name: str(float(value)) for name, value in faults.items() if not torch.isfinite(value)}
        if not broken:
            return
        own = [str(name) for batch in batches for name in batch["reading_ids"]]
        readings = gather_object(own)
        path = self.settings.output / "nonfinite_batch.json"
        if self.accelerator.is_main_process:
            write_json(path, {"step": self.step + 1, **broken, "reading_ids": readings})
        named = ", ".join(readings[:3]) + (" ..." if len(readings) > 3 else "")
        what = " and ".join(f"the {name} is {value}" for name, value in broken.items())
        raise UserError(
            f"step {self.step + 1}: {what}; nothing was updated. Its {len(readings)} readings ({named}) are in {path}; "
            "go on from the last checkpoint with --resume auto and a lower --learning_rate, or without them"
        )

    @torch.no_grad()
    def _validate(self) -> None:
        """Mean objective on the validation split, in eval mode; keeps the model when it is the best so far."""
        self.module.eval()
        collator = ReadingCollator(self.processor)
        names = ["loss", *term_weights(self.training.model.config)]
        # loss, its terms, and the number of readings
        sums = torch.zeros(len(names) + 1, dtype=torch.float64)
        for batch in self.data.validation_batches(collator):
            loss, terms = self.module(to_device(batch, self.accelerator.device), stage="alone")
            values = torch.stack([loss, *terms.values()]).double().cpu()
            sums += batch["weight"] * torch.cat([values, torch.ones(1, dtype=torch.float64)])
        totals = self.accelerator.reduce(sums.to(self.accelerator.device), reduction="sum").tolist()
        means = {f"validation_{name}": total / totals[-1] for name, total in zip(names, totals[:-1], strict=True)}
        self.watch.validation(self.step, means)
        self._draw_heat_maps(collator)
        if not math.isfinite(means["validation_loss"]):
            raise UserError(f"step {self.step}: the validation loss is {means['validation_loss']}")
        if means["validation_loss"] < self.best_loss:
            self.best_loss, self.best_step = means["validation_loss"], self.step
            self.validations_without_gain = 0
            self._save_model(self.settings.output / "best")
        else:
            self.validations_without_gain += 1

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

    def _save_model(self, folder: Path) -> None:
        state_dict = self.accelerator.get_state_dict(self.module)
        if self.accelerator.is_main_process:
            partial = folder.with_name(f".partial-{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)
            own = {name.removeprefix("model."): value for name, value in state_dict.items()}
            self.training.model.save_pretrained(partial, state_dict=own)
            self.processor.save_pretrained(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> None:
        accelerator, output = self.accelerator, self.settings.output
        accelerator.wait_for_everyone()
        del self.module
        part_processes(accelerator)
        if not accelerator.is_main_process:
            return
        # copied, so that a run that was cut off here finds its best model again
        if (output / "best").exists():
            shutil.copytree(output / "best", output, dirs_exist_ok=True)
            shutil.rmtree(output / "best")
        if cut := self.data.truncated_sentences:
            self.watch.say(f"{cut} sentences were cut to {self.processor.max_length} tokens on the main process")
        self.watch.say(
            f"best validation loss {self.best_loss:.4f} at step {self.best_step}; model and processor are in {output}"
        )


def whole_steps(steps: float) -> int:
    return max(1, round(steps))
