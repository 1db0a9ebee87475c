"""What a run leaves as it is: parameters that no gradient reaches, and running statistics that a tower has learned."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from dataset_scripts.schema import UserError
from egma_training.arguments import TrainingSettings
from modeling_egma import EgmaModel

NAMED = 3


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


def split_statistics(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """Layers with running statistics of a tower that has learned them, and layers that depend on their batch.

    The first are to stay in evaluation mode: then micro batches, processes and a whole batch see the same.
    """
    held: list[nn.Module] = []
    dependent: list[nn.Module] = []
    for tower in model.children():
        layers = [layer for layer in tower.modules() if isinstance(layer, _NormBase)]
        learned = any(_has_learned(layer) for layer in layers)
        held += [layer for layer in layers if learned and layer.running_mean is not None]
        fresh = [layer for layer in layers if not learned or layer.running_mean is None]
        dependent += [layer for layer in fresh if layer.running_mean is not None or isinstance(layer, _BatchNorm)]
    return held, dependent


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


def _has_learned(layer: _NormBase) -> bool:
    mean, variance, batches = layer.running_mean, layer.running_var, layer.num_batches_tracked
    if mean is None or variance is None:
        return False
    return bool(mean.any()) or bool((variance != 1).any()) or (batches is not None and int(batches) > 0)
