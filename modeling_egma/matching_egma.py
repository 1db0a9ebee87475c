"""Sentences of the whole batch against images: what the objective has beside the paper's terms.

Sources: text-conditioned pooling of patches (RadZero, arXiv 2504.07416); a cross-entropy towards the map of gaze, and
gazed patches against the sentences of the batch, are this project's. `docs/method.md` has the formulas. Shapes and
symbols are those of `losses_egma.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .interaction_egma import Joined, OneProcess, Reports

# above it images are taken a few at a time, and made again in the backward pass
TILE_BYTES = 2**28


def in_tiles(function: Callable[..., Tensor], bytes_an_image: int, *images: Tensor) -> Tensor:
    """`function` of tensors (B, ...), which gives (B, ...); a few images at a time where all of them are large."""
    at_once = max(TILE_BYTES // max(bytes_an_image, 1), 1)
    if len(images[0]) <= at_once:
        return function(*images)
    again = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(*tile) for tile in zip(*(tensor.split(at_once) for tensor in images), strict=True)])


def pooled_cosines(patches: Tensor, sentences: Tensor, scale: Tensor | float) -> Tensor:
    """Cosine of every sentence with an image's patches, pooled as the sentence weighs them (RadZero's VL-CABS).

    With the cosines `x_p` and `a = softmax(scale x)` it is `sum a_p x_p / |sum a_p v_p|`. The length comes from the
    products of an image's patches with each other, so that nothing of the size B x N x D exists, or, where there are
    more patches than dimensions, from the pooled patches themselves.

    Args:
        patches: (B, P, D), `sentences` (N, D), both L2-normalised.

    Returns:
        (B, N).

    >>> pooled_cosines(torch.eye(4)[None], torch.eye(4)[:1], 0.0)  # all alike: 1/4, over a length of 1/2
    tensor([[0.5000]])
    """
    _, cells, width = patches.shape
    size = len(sentences) * (3 * cells + min(cells, width)) * patches.element_size()
    return in_tiles(partial(_pooled_cosines, sentences, scale), size, patches)


def _pooled_cosines(sentences: Tensor, scale: Tensor | float, patches: Tensor) -> Tensor:
    cosines = sentences @ patches.mT
    weights = torch.softmax(cosines * scale, dim=-1)
    if patches.shape[1] > patches.shape[2]:
        length = torch.linalg.vector_norm(weights @ patches, dim=-1)
    else:
        square = (weights @ (patches @ patches.mT) * weights).sum(dim=-1)
        length = square.clamp(min=torch.finfo(square.dtype).eps).sqrt()
    return (weights * cosines).sum(dim=-1) / length


class Pairs(NamedTuple):
    """Own sentences (n) against the sentences of all processes (N).

    `own` (n, N) bool: the sentence itself; `equal` (n, N) bool: of the same text, itself included; `image` (n,): its
    row among the own images.
    """

    own: Tensor
    equal: Tensor
    image: Tensor


def pairs_of(own: Reports, joined: Joined) -> Pairs:
    """Which sentences are each other's; without ids of texts, a sentence equals itself alone."""
    place = torch.arange(len(joined.sentences), device=own.slots.device)
    mine = place[joined.first_sentence : joined.first_sentence + len(own.slots)]
    itself, ids = mine[:, None] == place, joined.sentence_ids
    equal = itself if ids is None else ids[mine, None] == ids
    return Pairs(itself, equal, own.slots // own.valid.shape[1])


def by_image(values: Tensor, image: Tensor, images: int) -> Tensor:
    """(n, N) bool of own sentences -> (B, N): of any of an image's."""
    found = torch.zeros(images, values.shape[1], dtype=torch.int32, device=values.device)
    return found.index_add_(0, image, values.int()) > 0


def matching_share(logits: Tensor, positive: Tensor, equal: Tensor, rows: Tensor, join: OneProcess) -> Tensor:
    """Own rows (images, or what gaze says of them) against the sentences of all processes, both ways.

    Every positive stands alone against its negatives, `log(1 + sum over negatives of exp(l - l_positive))`: over the
    sentences of a row, the mean of its positives; over the rows of a sentence.

    Args:
        logits: (r, N).
        positive: (r, N) bool, at most one row of all processes a sentence.
        equal: (r, N) bool, sentences that are no negatives of the row.
        rows: (r,) bool, which take part.

    Returns:
        (2, 2): sum and number of the rows' losses, and of the sentences'.
    """
    positive, equal = positive & rows[:, None], equal & rows[:, None]
    negatives = torch.logsumexp(logits.masked_fill(equal, -torch.inf), dim=1, keepdim=True)
    alone = F.softplus(negatives - logits).masked_fill(~positive, 0.0)
    counts = positive.sum(dim=1)
    by_row = (alone.sum(dim=1) / counts.clamp(min=1)).sum()
    taken = rows[:, None] & (positive | ~equal)
    known = join.total(positive.any(dim=0).to(logits.dtype)) > 0
    by_sentence = OwnColumns.apply(logits.masked_fill(~taken, -torch.inf), positive, known, join)
    shares = (by_row, (counts > 0).sum()), (by_sentence, counts.sum())
    return torch.stack([torch.stack([total, number.to(logits.dtype)]) for total, number in shares])


class OwnColumns(torch.autograd.Function):
    """Sum of the cross-entropies, over the rows of all processes, of the columns whose positive is an own row.

    All processes add up their sums and weigh them alike. Each so knows, without a message, the gradient of every
    column's cross-entropy towards the logits that it has.

    Takes logits (r, N), -inf where a row takes no part; `positive` (r, N) bool, at most one a column on all processes;
    `known` (N,) bool, whether there is one.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positive: Tensor, known: Tensor, join: OneProcess) -> Tensor:
        columns = join.log_sum_exp(torch.logsumexp(logits, dim=0))
        ctx.save_for_backward(logits, columns, positive, known)
        return (columns - logits).masked_fill(~positive, 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None, None]:
        logits, columns, positive, known = ctx.saved_tensors
        gradient = (logits - columns).exp() - positive.to(logits.dtype)
        return gradient.masked_fill(~known, 0.0) * weight, None, None, None


def soft_gaze_share(logits: Tensor, heatmaps: Tensor, looked: Tensor) -> Tensor:
    """Cross-entropy of `softmax(logits)` over patches to the sentence's map; sum and number of sentences, (2,).

    Args:
        logits, heatmaps: (B, M, P) of the own image.
        looked: (B, M) bool, sentences with a map.
    """
    target = heatmaps / heatmaps.sum(dim=-1, keepdim=True).masked_fill(~looked[..., None], 1.0)
    losses = -(target * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
    return torch.stack([losses.masked_fill(~looked, 0.0).sum(), looked.sum().to(losses.dtype)])


def gazed_patches(patches: Tensor, heatmaps: Tensor) -> Tensor:
    """Mean patch of every sentence as gaze weighs them, normalised: (B, P, D) and (B, M, P) -> (B, M, D)."""
    return F.normalize(heatmaps @ patches, dim=-1)
