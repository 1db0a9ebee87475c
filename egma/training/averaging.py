"""An exponential moving average of the weights: steadier than the last step's, with a rate that need not fall."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# among what the optimiser keeps of a parameter, so that checkpoints hold it as they hold that
ENTRY = "average"


class WeightAverage:
    """`average = decay * average + (1 - decay) * weight` after each update; young averages forget faster.

    Args:
        steps: updates so far; whoever goes on from a checkpoint sets it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.optimizer, self.decay, self.steps = optimizer, decay, 0
        optimizer.register_step_post_hook(self._update)

    @torch.no_grad()
    def _update(self, *_: Any) -> None:
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for parameter, state in self.optimizer.state.items():
            if ENTRY not in state:
                state[ENTRY] = parameter.detach().clone()
            state[ENTRY].lerp_(parameter, share)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model has the averages for its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, state in self.optimizer.state.items():
            if ENTRY in state:
                held = parameter.clone()
                parameter.copy_(state[ENTRY])
                state[ENTRY].copy_(held)


def averages(optimizer_tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averages by parameter among the tensors of a checkpoint's optimiser; none where none was kept."""
    names = {name: name.rpartition("/") for name in optimizer_tensors}
    return {parameter: optimizer_tensors[name] for name, (parameter, _, entry) in names.items() if entry == ENTRY}
