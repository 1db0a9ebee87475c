"""Contrastive batches beyond memory: the whole batch's gradient, micro batch by micro batch.

Source: Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", 2021 (GradCache).
"""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from egma.training.gather import Features, all_processes, join
from egma.training.step import Batch, Pull, Terms, TrainingModule, synchronised, to_device

PER_IMAGE = ("pixel_values", "gaze_mask", "report_ids", "reading_ids")
PER_SENTENCE = ("input_ids", "attention_mask", "token_type_ids", "gaze_heatmaps", "sentence_ids")


def cached_step(
    accelerator: Accelerator, module: nn.Module, batch: Batch, micro_batch_size: int
) -> tuple[Tensor, Terms]:
    """Gradients of the whole batch's loss with the memory of a micro batch.

    Features are made without a graph, then the loss and its gradient towards them, then the features again, micro
    batch by micro batch with the same dropout, each pulled by its gradient.
    """
    training: TrainingModule = accelerator.unwrap_model(module)
    parts = list(split(batch, micro_batch_size))
    cached, states = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(accelerator.device))
            cached.append(module(to_device(part, accelerator.device), stage="features"))
    loss, terms, pulls = _objective_and_pulls(training, cached)
    if not torch.isfinite(loss):
        return loss, terms
    for number, (part, state, pull) in enumerate(zip(parts, states, pulls, strict=True)):
        _set_random_state(accelerator.device, state)
        with synchronised(accelerator, module, number == len(parts) - 1):
            accelerator.backward(module(to_device(part, accelerator.device), stage="pull", pull=pull))
    return loss, terms


def _objective_and_pulls(training: TrainingModule, cached: list[Features]) -> tuple[Tensor, Terms, list[Pull]]:
    features = join(cached)
    leaves = features.patches.requires_grad_(), features.sentences.requires_grad_()
    with torch.enable_grad():
        loss, terms = training.objective(features, all_processes())
        scale = training.model.logit_scale
        patches, sentences, scale_gradient = torch.autograd.grad(loss, (*leaves, scale), materialize_grads=True)
    image_parts = patches.split([len(part.patches) for part in cached])
    sentence_parts = sentences.split([len(part.sentences) for part in cached])
    # the scale's gradient comes with the last micro batch, which is the one that DDP reduces
    shares = [torch.zeros_like(scale_gradient)] * (len(cached) - 1) + [scale_gradient]
    pulls = [Pull(*one) for one in zip(image_parts, sentence_parts, shares, strict=True)]
    return loss.detach(), terms, pulls


def split(batch: Batch, size: int) -> Iterator[dict[str, Any]]:
    """A batch in parts of `size` images, each with its own sentences."""
    rows = batch["sentence_to_image"]
    for start in range(0, len(batch["pixel_values"]), size):
        end = min(start + size, len(batch["pixel_values"]))
        chosen = ((rows >= start) & (rows < end)).nonzero().squeeze(1)
        part = {name: batch[name][start:end] for name in PER_IMAGE if batch.get(name) is not None}
        part |= {name: batch[name][chosen] for name in PER_SENTENCE if batch.get(name) is not None}
        yield part | {"sentence_to_image": rows[chosen] - start}


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
