"""Late interaction of images with reports (FILIP); how sentences of reports are laid out, and processes join theirs.

Source: Ma et al., NeurIPS 2024 (arXiv 2403.12416), equations 3 and 4; `docs/method.md`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# similarities that are alive at once: what a cache holds on a CPU, what fills an accelerator elsewhere
TILE_BYTES, CPU_TILE_BYTES = 2**26, 2**24


class Reports(NamedTuple):
    """Where the packed sentences of R reports stand, M being the longest report.

    `lengths`, the number of sentences of every report, on the host, and `counts` (R,), the same on the device; `valid`
    (R, M) bool; `slots` (N,), the place of every packed sentence among the R x M.
    """

    lengths: list[int]
    counts: Tensor
    valid: Tensor
    slots: Tensor

    def pad(self, values: Tensor) -> Tensor:
        """(N, ...) packed -> (R, M, ...) with zeros where there is no sentence."""
        flat = values.new_zeros(self.valid.numel(), *values.shape[1:])
        return flat.index_copy(0, self.slots, values).unflatten(0, self.valid.shape)


class Joined(NamedTuple):
    """Reports of all processes, and their packed `sentences` (N, D).

    `report_ids` (R,) and `sentence_ids` (N,): equal for equal texts, or None. `first_report` and `first_sentence` are
    where the own ones begin.
    """

    reports: Reports
    sentences: Tensor
    report_ids: Tensor | None
    sentence_ids: Tensor | None
    first_report: int
    first_sentence: int


class OneProcess:
    """How the batches of all processes meet: here there is one, whose batch is the joined one.

    A join of several processes has the same four methods. The gradient that each of them then has towards its own
    patches and sentences is that of the joined batch times the number of processes, as DDP and FSDP take means.
    """

    def shared(self, scale: Tensor) -> Tensor:
        """What every process holds; its gradient is the whole one on each."""
        return scale

    def reports(
        self, own: Reports, sentences: Tensor, report_ids: Tensor | None, sentence_ids: Tensor | None
    ) -> Joined:
        """Reports, sentences and ids of all processes; gradients go back to the sentences."""
        return Joined(own, sentences, report_ids, sentence_ids, 0, 0)

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        """(...) of every process -> (...), without a gradient."""
        return logits

    def total(self, shares: Tensor) -> Tensor:
        """(...) of every process -> their sum."""
        return shares


ONE_PROCESS = OneProcess()


@torch.compiler.disable
def lay_out(sentence_to_report: Tensor, num_reports: int, device: torch.device) -> Reports:
    """The layout of packed sentences (N,); the host waits for `sentence_to_report` where it is on a device."""
    rows = sentence_to_report
    counts = rows.new_zeros(num_reports).index_add_(0, rows, torch.ones_like(rows))
    lengths = counts.tolist()
    longest = max(lengths, default=0) or 1
    order = torch.argsort(rows, stable=True)
    first = torch.cumsum(counts, 0) - counts
    inside = torch.arange(len(rows), device=rows.device) - first[rows[order]]
    slots = torch.empty_like(rows).index_copy_(0, order, rows[order] * longest + inside)
    counts, slots = (tensor.to(device, non_blocking=True) for tensor in (counts, slots))
    return Reports(lengths, counts, torch.arange(longest, device=device) < counts[:, None], slots)


@torch.compiler.disable
def late_interaction(patches: Tensor, sentences: Tensor, reports: Reports) -> tuple[Tensor, Tensor]:
    """Cosines of B images with R reports: the mean over patches of the best sentence and that over sentences of the
    best patch, both (B, R), 0 for a report without a sentence.

    The (B, R, P, M) similarities are made tile by tile, reduced, and made again in the backward pass: nothing but the
    inputs is kept. At an exact tie of a maximum the first entry takes the gradient. There is no second derivative.

    Args:
        patches: (B, P, D).
        sentences: (N, D), packed as `reports` says.

    >>> reports = lay_out(torch.tensor([0, 0]), 1, torch.device("cpu"))
    >>> late_interaction(torch.eye(4)[None], torch.eye(4)[:2], reports)  # two patches of four; both sentences
    (tensor([[0.5000]]), tensor([[1.]]))
    """
    return _LateInteraction.apply(patches, sentences, reports)


class _Tile(NamedTuple):
    """Some images against some reports of like length; `similarity` (b, P, r, m), -inf where there is no sentence."""

    images: slice
    reports: Tensor
    places: Tensor
    sentences: Tensor
    lengths: Tensor
    valid: Tensor
    similarity: Tensor


def _tiles(patches: Tensor, sentences: Tensor, reports: Reports) -> Iterator[_Tile]:
    images, cells, width = patches.shape
    order, lengths = torch.argsort(reports.counts, stable=True), sorted(reports.lengths)
    places = reports.pad(torch.arange(len(sentences), device=sentences.device))
    entries = max((CPU_TILE_BYTES if patches.device.type == "cpu" else TILE_BYTES) // patches.element_size(), 1)
    end, empty = len(lengths), lengths.count(0)
    # from the longest report on, so that the first of a tile is as long as any of it
    while end > empty:
        longest = lengths[end - 1]
        # square tiles: as many sentences as patches
        height = min(max(round((entries**0.5) / longest), 1), end - empty)
        rows = order[end - height : end]
        chosen, valid = sentences[places[rows, :longest]], reports.valid[rows, :longest]
        step = max(entries // (cells * height * longest), 1)
        for start in range(0, images, step):
            some = slice(start, start + step)
            similarity = (patches[some].reshape(-1, width) @ chosen.reshape(-1, width).T).unflatten(1, valid.shape)
            if lengths[end - height] < longest:
                similarity = similarity.masked_fill_(~valid, -torch.inf)
            similarity = similarity.unflatten(0, (-1, cells))
            yield _Tile(some, rows, places[rows, :longest], chosen, reports.counts[rows], valid, similarity)
        end -= height


class _LateInteraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, sentences: Tensor, reports: Reports) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(patches, sentences)
        ctx.reports = reports
        image_logits = patches.new_zeros(len(patches), len(reports.lengths))
        text_logits = torch.zeros_like(image_logits)
        for tile in _tiles(patches, sentences, reports):
            image_logits[tile.images, tile.reports] = tile.similarity.amax(dim=-1).mean(dim=1)
            best_patch = tile.similarity.amax(dim=1).masked_fill(~tile.valid, 0.0)
            text_logits[tile.images, tile.reports] = best_patch.sum(dim=-1) / tile.lengths
        return image_logits, text_logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, image_gradient: Tensor, text_gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        patches, sentences = ctx.saved_tensors
        # whoever goes backward under autocast did not mean these products
        with torch.autocast(patches.device.type, enabled=False):
            return *_gradients(patches, sentences, ctx.reports, image_gradient, text_gradient), None


def _gradients(
    patches: Tensor, sentences: Tensor, reports: Reports, image_gradient: Tensor, text_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    patch_gradient, sentence_gradient = torch.zeros_like(patches), torch.zeros_like(sentences)
    for tile in _tiles(patches, sentences, reports):
        some, rows, similarity = tile.images, tile.reports, tile.similarity
        best_sentence, best_patch = similarity.argmax(dim=-1, keepdim=True), similarity.argmax(dim=1, keepdim=True)
        by_patch = (image_gradient[some, rows] / patches.shape[1])[:, None, :, None].expand(best_sentence.shape)
        by_sentence = (text_gradient[some, rows] / tile.lengths)[:, None, :, None] * tile.valid
        # the tile's memory becomes its gradient
        gradient = similarity.zero_().scatter_(-1, best_sentence, by_patch).scatter_add_(1, best_patch, by_sentence)
        gradient = gradient.flatten(2).flatten(0, 1)
        patch_gradient[some] += (gradient @ tile.sentences.flatten(0, 1)).view_as(patches[some])
        # a place without a sentence points to the first one and has no gradient
        own = gradient.T @ patches[some].flatten(0, 1)
        sentence_gradient.index_add_(0, tile.places.flatten(), own)
    return patch_gradient, sentence_gradient
