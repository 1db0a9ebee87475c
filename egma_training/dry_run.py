"""`--dry_run`: everything checked, one batch run on weights that are thrown away, and what the whole would take."""

import time
from typing import TYPE_CHECKING

from egma_training.data import ReadingCollator
from egma_training.devices import memory_gigabytes

if TYPE_CHECKING:
    from train_egma import Trainer

TIMED_STEPS = 2


def dry_run(trainer: "Trainer") -> None:
    """Forward, backward and update on the first batches; prints the figures and writes nothing."""
    settings, accelerator, model = trainer.settings, trainer.accelerator, trainer.training.model
    trainer.announce()
    collator = ReadingCollator(trainer.processor, settings)
    batches = trainer.data.batches(collator, 0)
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        taken = [next(batches) for _ in range(settings.gradient_accumulation_steps)]
        loss, terms, _ = trainer.gradients(taken)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        # the device has finished when the loss can be read
        float(loss)
        seconds.append(time.perf_counter() - started)
    parameters = {
        "vision encoder": model.vision_model,
        "text encoder": model.text_model,
        "whole model": model,
    }
    for name, module in parameters.items():
        trainer.watch.say(f"{name}: {sum(p.numel() for p in module.parameters()):,} parameters")
    batch = taken[0]
    shape = tuple(batch["pixel_values"].shape[-2:])
    trainer.watch.say(
        f"batch of a process: {len(batch['pixel_values'])} images of {shape[0]} x {shape[1]} px, "
        f"{len(batch['input_ids'])} sentences, {int(batch['attention_mask'].sum())} tokens "
        f"({batch['attention_mask'].numel()} with padding)"
    )
    trainer.watch.say("loss " + f"{float(loss):.4g}  " + "  ".join(f"{n} {float(v):.4g}" for n, v in terms.items()))
    trainer.watch.say(f"memory: {memory_gigabytes(accelerator.device):.2f} GB at most on the main process")
    # the first step also warms the device up, and compiles
    hours = seconds[-1] * trainer.total_steps / 3600
    trainer.watch.say(
        f"time: {seconds[-1]:.2f} s a step, about {hours:.2f} h for {trainer.total_steps} steps, validation apart; "
        "nothing was written"
    )
