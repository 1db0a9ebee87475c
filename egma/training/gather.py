"""Embeddings of all processes as one batch, with their gradients.

Every process computes the same objective of the same joined batch, so the gradient of its own rows is complete where
they were made: nothing is sent in the backward pass. DDP and FSDP take the mean over processes; times the number of
processes it is the gradient that one process with the joined batch would have.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


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


def gather(own: Features) -> Features:
    """The features of all processes in their order; these keep their gradients, and so does nothing else's copy."""
    world = process_count()
    if world == 1:
        return own
    sizes = torch.tensor([len(own.patches), len(own.sentences)], device=own.patches.device)
    images, sentences = _all_gather(sizes[None], [1] * world).T.tolist()
    starts = torch.tensor([sum(images[:rank]) for rank in range(world)], device=sizes.device)
    rows = own.sentence_to_image + starts[dist.get_rank()]
    return Features(
        patches=_GatherRows.apply(own.patches, images),
        sentences=_GatherRows.apply(own.sentences, sentences),
        sentence_to_image=_all_gather(rows, sentences),
        heatmaps=_all_gather(own.heatmaps, sentences),
        gaze_mask=_all_gather(own.gaze_mask.to(torch.uint8), images).bool(),
        report_ids=None if own.report_ids is None else _all_gather(own.report_ids, images),
        sentence_ids=None if own.sentence_ids is None else _all_gather(own.sentence_ids, sentences),
    )


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        rank = dist.get_rank()
        ctx.start, ctx.count, ctx.world = sum(counts[:rank]), counts[rank], len(counts)
        return _all_gather(rows, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.start : ctx.start + ctx.count] * ctx.world, None


def _all_gather(rows: Tensor, counts: list[int]) -> Tensor:
    """(n, ...) of every process, n being `counts` -> (sum of counts, ...)."""
    longest = max(counts)
    # collectives want one size; what is padded is cut off again
    padding = [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]
    padded = F.pad(rows.detach(), padding).contiguous()
    gathered = [torch.empty_like(padded) for _ in counts]
    if longest:
        dist.all_gather(gathered, padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
