"""The objective of the batches of all processes, each process doing its own share.

Sentences travel, patches stay: every process compares its own images with the reports of all. `docs/training.md` counts
the messages.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from modeling_egma.interaction_egma import ONE_PROCESS, Joined, OneProcess, Reports, lay_out

Message = Callable[[Tensor], Tensor]


class Features(NamedTuple):
    """What the objective takes of B images and N sentences.

    `patches` (B, P, D) and `sentences` (N, D); `sentence_to_image` (N,); `heatmaps` (N, P), anything where there is no
    gaze; `gaze_mask` (B,) bool; `report_ids` (B,) and `sentence_ids` (N,) int64, equal for equal texts, or None.
    """

    patches: Tensor
    sentences: Tensor
    sentence_to_image: Tensor
    heatmaps: Tensor
    gaze_mask: Tensor
    report_ids: Tensor | None = None
    sentence_ids: Tensor | None = None


def process_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_processes() -> OneProcess:
    """The join of the processes that there are."""
    return AllProcesses() if process_count() > 1 else ONE_PROCESS


class AllProcesses(OneProcess):
    """The join of a group of processes, in their order."""

    @torch.compiler.disable
    def shared(self, scale: Tensor) -> Tensor:
        return _Message.apply(scale, torch.clone, lambda gradient: _sum(gradient) / process_count())

    @torch.compiler.disable
    def reports(
        self, own: Reports, sentences: Tensor, report_ids: Tensor | None, sentence_ids: Tensor | None
    ) -> Joined:
        rank, size = dist.get_rank(), own.slots.new_tensor([[len(own.lengths), len(sentences)]])
        images, counts = torch.cat(_all_gather(size, [1] * process_count())).T.tolist()
        first = sum(images[:rank])
        rows = torch.cat(_all_gather(own.slots // own.valid.shape[1] + first, counts))
        report_ids = None if report_ids is None else torch.cat(_all_gather(report_ids, images))
        sentence_ids = None if sentence_ids is None else torch.cat(_all_gather(sentence_ids, counts))
        gathered = _Message.apply(
            sentences, lambda own: torch.cat(_all_gather(own, counts)), lambda total: _reduce_scatter(total, counts)
        )
        reports = lay_out(rows, sum(images), rows.device)
        return Joined(reports, gathered, report_ids, sentence_ids, first, sum(counts[:rank]))

    @torch.compiler.disable
    def log_sum_exp(self, logits: Tensor) -> Tensor:
        # where nobody has a logit, the sum is that of nothing and no NaN
        highest = _sum(logits, dist.ReduceOp.MAX).clamp(min=torch.finfo(logits.dtype).min)
        return highest + _sum((logits - highest).exp()).log()

    @torch.compiler.disable
    def total(self, shares: Tensor) -> Tensor:
        return _Message.apply(shares, _sum, lambda gradient: gradient * process_count())


class _Message(torch.autograd.Function):
    """`forth(value)`, whose gradient is `back` of what comes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, forth: Message, back: Message) -> Tensor:
        ctx.back = back
        return forth(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient), None, None


def _sum(values: Tensor, operation: Any = dist.ReduceOp.SUM) -> Tensor:
    total = values.clone()
    dist.all_reduce(total, operation)
    return total


def _all_gather(rows: Tensor, counts: list[int]) -> list[Tensor]:
    """(n, ...) of every process, n being `counts`."""
    padded = _padded(rows, max(counts))
    gathered = [torch.empty_like(padded) for _ in counts]
    if len(padded):
        dist.all_gather(gathered, padded)
    return [part[:count] for part, count in zip(gathered, counts, strict=True)]


def _reduce_scatter(rows: Tensor, counts: list[int]) -> Tensor:
    """(sum of counts, ...) of every process -> the sum over processes of the own (n, ...)."""
    parts = [_padded(part, max(counts)) for part in rows.split(counts)]
    own = torch.empty_like(parts[0])
    if len(own):
        dist.reduce_scatter(own, parts)
    return own[: counts[dist.get_rank()]]


def _padded(rows: Tensor, longest: int) -> Tensor:
    """Collectives want one size; what is padded is cut off again."""
    return F.pad(rows, [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]).contiguous()
