"""What several processes agree on: what the first one found on its disk, and the largest of a few numbers."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dataset_scripts.schema import UserError

T = TypeVar("T")


def on_first(accelerator: Accelerator, ask: Callable[[], T]) -> T:
    """What the first process answers, on all of them; only the first needs the output folder.

    Raises:
        UserError: the first process met it, or the system refused it a file.
    """
    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = ask()
        except (UserError, OSError) as error:
            answer[1] = str(error)
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def largest(accelerator: Accelerator, *values: float) -> list[float]:
    """Of each value the largest of all processes; the processes wait for each other, but for no device."""
    own = torch.tensor(values, dtype=torch.float64)
    if accelerator.num_processes > 1:
        dist.all_reduce(own, dist.ReduceOp.MAX, group=_cpu_group())
    return own.tolist()


@cache
def _cpu_group() -> Any:
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
