"""Layers with running statistics: those of a tower that has learned them, and those that depend on their batch."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase


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


def _has_learned(layer: _NormBase) -> bool:
    mean, variance, batches = layer.running_mean, layer.running_var, layer.num_batches_tracked
    if mean is None or variance is None:
        return False
    return bool(mean.any()) or bool((variance != 1).any()) or (batches is not None and int(batches) > 0)
