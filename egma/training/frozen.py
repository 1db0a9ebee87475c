"""What a run leaves as it is: lower blocks, parameters that no gradient reaches, and learned running statistics."""

import itertools

import torch
from torch import nn

from dataset_scripts.schema import UserError
from egma.tools.running_statistics import split_statistics
from egma.training.arguments import TrainingSettings
from modeling_egma import EgmaModel

NAMED = 3


def freeze_lower(model: EgmaModel, trained_blocks: int | None) -> list[str]:
    """Freeze each encoder up to its last blocks (None: nothing); what follows these, and projections, are trained.

    Returns:
        A sentence on it.

    Raises:
        UserError: an encoder has fewer blocks.
    """
    if trained_blocks is None:
        return []
    for name, tower in (("vision", model.vision_model), ("text", model.text_model)):
        blocks = blocks_of(tower)
        if trained_blocks > len(blocks):
            raise UserError(f"trained_blocks is {trained_blocks}, expected at most the {name} encoder's {len(blocks)}")
        first = next(blocks[-trained_blocks].parameters())
        for parameter in itertools.takewhile(lambda one, first=first: one is not first, tower.parameters()):  # type: ignore[misc]
            parameter.requires_grad_(False)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return [f"the last {trained_blocks} blocks of each encoder and what follows are trained: {trained:,} parameters"]


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """An encoder's layers from the first to the last; those of its stages, where it has them."""
    found: list[nn.Module] = []
    for child in tower.children():
        for block in child if isinstance(child, nn.ModuleList) else [child]:
            found += blocks_of(block) or ([block] if block is not child and any(block.children()) else [])
    return found


def freeze_unreached(model: EgmaModel, height: int, width: int) -> list[str]:
    """Freeze the parameters that the objective does not depend on; DDP would wait for their gradients.

    One image of `height` x `width` pixels with two sentences and gaze has every term. A gradient that is zero counts.

    Returns:
        The names of the frozen parameters.
    """
    was_training = model.training
    model.eval()
    _, patches = model.encode_images(torch.zeros(1, 3, height, width))
    sentences = model.encode_text(torch.zeros(2, 2, dtype=torch.long))
    heatmaps, has_gaze = patches.new_ones(2, patches.shape[1]), torch.ones(1, dtype=torch.bool)
    loss, _ = model.objective(patches, sentences, torch.zeros(2, dtype=torch.long), heatmaps, has_gaze)
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    unreached = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    for name in unreached:
        parameters[name].requires_grad_(False)
    model.train(was_training)
    return unreached


def check_statistics(model: nn.Module, settings: TrainingSettings, processes: int) -> None:
    """What depends on its batch must see it whole, and once.

    Raises:
        UserError: a tower without learned statistics, in micro batches, recomputed, or on several processes.
    """
    _, dependent = split_statistics(model)
    recomputed = settings.micro_batch_size is not None or settings.gradient_checkpointing
    if dependent and (recomputed or processes > 1):
        names = {layer: name for name, layer in model.named_modules()}
        raise UserError(
            f"{names[dependent[0]]} ({type(dependent[0]).__name__}, one of {len(dependent)}) has no learned statistics "
            "and depends on the batch it sees; expected one process without --micro_batch_size and "
            "--gradient_checkpointing, or a tower that was trained before"
        )


def frozen_notes(model: nn.Module, unreached: list[str]) -> list[str]:
    """Sentences on what stays as it is, for the start of a run."""
    notes, held = [], split_statistics(model)[0]
    if unreached:
        first = ", ".join(unreached[:NAMED]) + (" ..." if len(unreached) > NAMED else "")
        notes.append(f"{len(unreached)} parameters get no gradient and are frozen: {first}")
    if held:
        notes.append(f"running statistics of {len(held)} {type(held[0]).__name__} layers stay as they were learned")
    return notes
