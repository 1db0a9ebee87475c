"""`--dry_run`: everything checked, one batch run on weights that are thrown away, and what the whole would take."""

import time

from egma.training.data import ReadingCollator
from egma.training.devices import memory_gigabytes
from egma.training.run import TrainingRun

TIMED_STEPS = 2


def dry_run(run: TrainingRun) -> None:
    """Forward, backward and update on the first batches; prints the figures and writes nothing."""
    settings, accelerator, model = run.settings, run.accelerator, run.training.model
    run.announce()
    collator = ReadingCollator(run.processor, settings)
    batches = run.data.batches(collator, 0)
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        taken = [next(batches) for _ in range(settings.gradient_accumulation_steps)]
        loss, terms, _ = run.gradients(taken)
        run.optimizer.step()
        run.optimizer.zero_grad()
        # the device has finished when the loss can be read
        float(loss)
        seconds.append(time.perf_counter() - started)
    parameters = {
        "vision encoder": model.vision_model,
        "text encoder": model.text_model,
        "whole model": model,
    }
    for name, module in parameters.items():
        total, trained = (
            sum(p.numel() for p in module.parameters() if p.requires_grad or not only) for only in (False, True)
        )
        run.watch.say(f"{name}: {total:,} parameters, {trained:,} of them trained")
    batch = taken[0]
    shape = tuple(batch["pixel_values"].shape[-2:])
    encoded = sum((stop - start) * length for start, stop, length in run.training.text_blocks(batch))
    run.watch.say(
        f"batch of a process: {len(batch['pixel_values'])} images of {shape[0]} x {shape[1]} px, "
        f"{len(batch['sentence_to_image'])} sentences, {len(batch['input_ids'])} of them distinct; "
        f"{int(batch['attention_mask'].sum())} tokens ({encoded} with padding)"
    )
    run.watch.say("  ".join(f"{name} {float(value.detach()):.4g}" for name, value in {"loss": loss, **terms}.items()))
    run.watch.say(f"memory: {memory_gigabytes(accelerator.device):.2f} GB at most on the main process")
    # the first step also warms the device up, and compiles
    hours = seconds[-1] * run.total_steps / 3600
    run.watch.say(
        f"time: {seconds[-1]:.2f} s a step, about {hours:.2f} h for {run.total_steps} steps, validation apart; "
        "nothing was written"
    )
