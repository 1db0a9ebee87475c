"""Contrastive batches beyond memory: the whole batch's gradient, micro batch by micro batch.

Source: Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", 2021 (GradCache).
"""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from egma.inference.texts import TEXT_INPUTS
from egma.training.gather import all_processes
from egma.training.random_states import random_states, restore_random_states
from egma.training.step import Batch, Pull, Terms, TrainingModule, synchronised, to_device
from modeling_egma.interaction_egma import ONE_PROCESS

ENCODED = ("pixel_values", "text_lengths", *TEXT_INPUTS)
# what is moved to the device, finished and encoded part by part
PARTED = (*ENCODED, "frame_affines", "greys")


def cached_step(
    accelerator: Accelerator, module: nn.Module, batch: Batch, micro_batch_size: int
) -> tuple[Tensor, Terms]:
    """Gradients of the whole batch's loss with the memory of a micro batch.

    Embeddings are made without a graph, then the loss and its gradient towards them, then the embeddings again, micro
    batch by micro batch with the same dropout, each pulled by its gradient.
    """
    training: TrainingModule = accelerator.unwrap_model(module)
    parts = list(split(batch, -(-len(batch["pixel_values"]) // micro_batch_size)))
    cached, states = [], []
    with torch.no_grad():
        for part in parts:
            states.append(random_states(accelerator.device))
            cached.append(module(to_device(part, accelerator.device), stage="embeddings"))
    loss, terms, pulls = _objective_and_pulls(training, compared(batch, accelerator.device), cached)
    for number, (part, state, pull) in enumerate(zip(parts, states, pulls, strict=True)):
        restore_random_states(state, accelerator.device)
        with synchronised(accelerator, module, number == len(parts) - 1):
            accelerator.backward(module(to_device(part, accelerator.device), stage="pull", pull=pull))
    return loss, terms


@torch.no_grad()
def validation_objective(
    accelerator: Accelerator, module: nn.Module, batch: Batch, micro_batch_size: int | None
) -> tuple[Tensor, Terms]:
    """Loss and terms of a batch of `TrainingData.validation_batches`, over all processes, a micro batch at a time."""
    training: TrainingModule = accelerator.unwrap_model(module)
    world = 1 if len(batch["pixel_values"]) == batch["weight"] else accelerator.num_processes
    # shares differ by an image, numbers of parts must not
    most, least = -(-batch["weight"] // world), batch["weight"] // world
    parts = split(batch, min(-(-most // (micro_batch_size or most)), least))
    encoded = [module(to_device(part, accelerator.device), stage="embeddings") for part in parts]
    features = training.features(compared(batch, accelerator.device), *map(torch.cat, zip(*encoded, strict=True)))
    return training.objective(features, ONE_PROCESS if world == 1 else all_processes())


def _objective_and_pulls(
    training: TrainingModule, batch: Batch, cached: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Terms, list[Pull]]:
    leaves = [torch.cat(column).requires_grad_() for column in zip(*cached, strict=True)]
    with torch.enable_grad():
        loss, terms = training.objective(training.features(batch, *leaves), all_processes())
        scale = training.model.logit_scale
        patches, texts, scale_gradient = torch.autograd.grad(loss, (*leaves, scale), materialize_grads=True)
    image_parts = patches.split([len(part) for part, _ in cached])
    text_parts = texts.split([len(part) for _, part in cached])
    # the scale's gradient comes with the last micro batch, which is the one that DDP reduces
    shares = [torch.zeros_like(scale_gradient)] * (len(cached) - 1) + [scale_gradient]
    return loss.detach(), terms, list(zip(image_parts, text_parts, shares, strict=True))


def split(batch: Batch, parts: int) -> Iterator[dict[str, Any]]:
    """What is encoded of a batch, in parts of as many images and of as many of its texts, of whatever image."""
    encoded = {name: batch[name] for name in PARTED if batch.get(name) is not None}
    whole = {"finish": batch["finish"]} if "finish" in batch else {}
    for part in range(parts):
        bounds = {name: [len(rows) * end // parts for end in (part, part + 1)] for name, rows in encoded.items()}
        yield {name: rows[slice(*bounds[name])] for name, rows in encoded.items()} | whole


def compared(batch: Batch, device: torch.device) -> dict[str, Any]:
    """What the objective takes beside embeddings, on the device."""
    return to_device({name: value for name, value in batch.items() if name not in ENCODED}, device)
