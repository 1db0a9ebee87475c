"""Train EGMA: `accelerate launch train_egma.py --config configs/phantom.yaml --data DIR --output_dir DIR`.

Reads a corpus of the one schema (`python -m dataset_scripts.build`), writes model and processor to the output folder
(the best by validation loss), a line of `metrics.jsonl` a step, TensorBoard logs and checkpoints.
"""

import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from dataset_scripts.schema import UserError, load_readings
from egma_training.arguments import TrainingSettings, parse_settings
from egma_training.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from egma_training.data import ReadingCollator, Readings, training_batches, validation_batches
from egma_training.start import build_model
from modeling_egma import EgmaModel
from modeling_egma.modeling_egma import MAX_LOGIT_SCALE

# what a resumed run must share with the run it goes on with
LASTING_SETTINGS = ("data", "batch_size", "seed", "gaze_ratio", "learning_rate", "max_steps", "epochs")


class Trainer:
    """One run: what was set, what it is made of, and where it stands."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.accelerator = _accelerator(settings)
        train_rows = load_readings(str(settings.data), "train")
        validation_rows = load_readings(str(settings.data), "validation")
        raw_model, self.processor = build_model(settings, train_rows)
        self.training = Readings(train_rows, settings.gaze_ratio, settings.seed)
        self.validation = Readings(validation_rows, min(1.0, math.ceil(settings.gaze_ratio)), settings.seed)
        self.steps_per_epoch = len(train_rows) // (settings.batch_size * self.accelerator.num_processes)
        self.total_steps = settings.max_steps or max(1, round(settings.epochs * self.steps_per_epoch))
        optimizer = torch.optim.AdamW(parameter_groups(raw_model, settings.weight_decay), lr=settings.learning_rate)
        warmup = round(settings.warmup_fraction * self.total_steps)
        self.schedule = get_cosine_schedule_with_warmup(optimizer, warmup, self.total_steps)
        self.model, self.optimizer = self.accelerator.prepare(raw_model, optimizer)
        self.step = 0
        self.best_loss = math.inf

    @property
    def raw_model(self) -> EgmaModel:
        return self.accelerator.unwrap_model(self.model)

    def resume(self, folder: Path) -> None:
        """Stand where the checkpoint stood."""
        lasting = {name: getattr(self.settings, name) for name in LASTING_SETTINGS}
        state = load_checkpoint(folder, self.raw_model, self.optimizer.optimizer, lasting)
        self.step, self.best_loss = state["step"], state["best_loss"] or math.inf
        self.schedule.load_state_dict(state["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate

    def save(self) -> None:
        """Write a checkpoint; one process does."""
        if self.accelerator.is_main_process:
            # the schedule's functions are rebuilt from the settings
            schedule = self.schedule.state_dict() | {"lr_lambdas": [None] * len(self.optimizer.param_groups)}
            state = {
                "step": self.step,
                "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
                "schedule": schedule,
                "settings": dataclasses.asdict(self.settings),
            }
            save_checkpoint(self.settings.output, self.raw_model, self.optimizer.optimizer, state)
        self.accelerator.wait_for_everyone()

    def run(self) -> None:
        """Train to the last step, validating on the way; leaves the best model in the output folder."""
        settings, accelerator = self.settings, self.accelerator
        collator = ReadingCollator(self.processor, settings.max_length, settings)
        rank, world = accelerator.process_index, accelerator.num_processes
        batches = training_batches(self.training, collator, settings, self.step, rank, world)
        every = settings.evaluation_steps or max(1, self.steps_per_epoch)
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not (accelerator.is_main_process and sys.stderr.isatty()),
        )
        try:
            while self.step < self.total_steps:
                self._train_step(batches, bar)
                if self.step % every == 0 or self.step == self.total_steps:
                    self._validate()
                    self.save()
        except KeyboardInterrupt:
            self.save()
            raise UserError(f"interrupted at step {self.step}; go on with --resume auto") from None
        finally:
            bar.close()
        self._finish()

    def _train_step(self, batches: Iterator[Any], bar: "tqdm[Any]") -> None:
        waited_from = time.perf_counter()
        batch = next(batches).to(self.accelerator.device)
        started = time.perf_counter()
        self.model.train()
        output = self.model(**batch)
        loss = output.loss
        if not torch.isfinite(loss):
            raise UserError(f"the loss at step {self.step + 1} is {float(loss)}; nothing was updated")
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            # beyond the cap the scale would have no gradient to come back by
            self.raw_model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        self.optimizer.zero_grad()
        self.step += 1
        bar.update()
        seconds = time.perf_counter() - started
        self._log(
            {
                **_terms(output),
                "logit_scale": float(self.raw_model.logit_scale.detach().exp()),
                "learning_rate": rate,
                "gradient_norm": float(norm),
                "pairs_per_second": len(batch["pixel_values"]) * self.accelerator.num_processes / seconds,
                "data_wait_seconds": started - waited_from,
            },
            bar,
        )

    def _log(self, values: dict[str, float], bar: "tqdm[Any]") -> None:
        if not self.accelerator.is_main_process:
            return
        _append(self.settings.output / "metrics.jsonl", {"step": self.step, **values})
        self.accelerator.log(values, step=self.step)
        if self.step % self.settings.log_steps == 0:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            bar.write(f"step {self.step}/{self.total_steps}  {text}")

    @torch.no_grad()
    def _validate(self) -> None:
        """Mean objective on the validation split, in eval mode; keeps the model when it is the best so far."""
        self.model.eval()
        collator = ReadingCollator(self.processor, self.settings.max_length)
        batches = validation_batches(self.validation, collator, self.settings.batch_size, self.settings.num_workers)
        sums: dict[str, float] = {}
        for batch in batches:
            terms = _terms(self.raw_model(**batch.to(self.accelerator.device)))
            sums = {name: sums.get(name, 0.0) + value * len(batch["pixel_values"]) for name, value in terms.items()}
        means = {f"validation_{name}": value / len(self.validation) for name, value in sums.items()}
        if not self.accelerator.is_main_process:
            return
        _append(self.settings.output / "metrics.jsonl", {"step": self.step, **means})
        self.accelerator.log(means, step=self.step)
        print(f"step {self.step}  " + "  ".join(f"{name} {value:.4g}" for name, value in means.items()), flush=True)
        if means["validation_loss"] < self.best_loss:
            self.best_loss = means["validation_loss"]
            self._save_model(self.settings.output / "best")

    def _save_model(self, folder: Path) -> None:
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        self.raw_model.save_pretrained(partial)
        self.processor.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def _finish(self) -> None:
        accelerator, output = self.accelerator, self.settings.output
        accelerator.wait_for_everyone()
        accelerator.end_training()
        if not accelerator.is_main_process:
            return
        for path in (output / "best").iterdir():
            path.replace(output / path.name)
        (output / "best").rmdir()
        if self.processor.truncated_sentences:
            print(f"{self.processor.truncated_sentences} sentences were cut to {self.settings.max_length} tokens")
        print(f"best validation loss {self.best_loss:.4f}; model and processor are in {output}", flush=True)


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: not on norms, biases and the logit scale."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _terms(output: Any) -> dict[str, float]:
    named: dict[str, Tensor] = {"loss": output.loss, **output.loss_components}
    return {name: float(value.detach()) for name, value in named.items()}


def _append(path: Path, values: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(values) + "\n")


def _accelerator(settings: TrainingSettings) -> Accelerator:
    accelerator = Accelerator(log_with="tensorboard", project_dir=settings.output)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("fp16 needs an accelerator; on a CPU use --mixed_precision bf16 or no")
    return accelerator


def _prepare_output(settings: TrainingSettings, accelerator: Accelerator) -> None:
    """A new run wants a folder without a run in it; a resumed one forgets the metrics after its checkpoint."""
    output = settings.output
    used = [any(output.glob("checkpoint-*")) or (output / "metrics.jsonl").exists()]
    broadcast_object_list(used)
    if used[0] and settings.resume is None:
        raise UserError(f"{output} already holds a run; go on with --resume auto, or name another --output_dir")
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(settings), indent=1)
        (output / "training_settings.json").write_text(text, encoding="utf-8")
    accelerator.wait_for_everyone()


def _forget_after(path: Path, step: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def train(settings: TrainingSettings) -> None:
    """Run `settings` from the start, or from a checkpoint."""
    trainer = Trainer(settings)
    _prepare_output(settings, trainer.accelerator)
    trainer.accelerator.init_trackers("tensorboard")
    if settings.resume is not None:
        trainer.resume(find_checkpoint(settings.output, settings.resume))
        if trainer.accelerator.is_main_process:
            _forget_after(settings.output / "metrics.jsonl", trainer.step)
    trainer.run()


def main(argv: list[str] | None = None) -> int:
    try:
        train(parse_settings(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
