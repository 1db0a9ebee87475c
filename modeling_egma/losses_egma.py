"""The EGMA objective as pure functions on embeddings.

Source: Ma et al., "Eye-gaze Guided Multi-modal Alignment for Medical Representation Learning", NeurIPS 2024
(arXiv 2403.12416), equations 1-9; `docs/method.md` settles what the paper leaves open.

Shapes and symbols, the same in every function:

* `patches` (B, P, D) and `sentences` (N, D): L2-normalised embeddings. Sentences are packed: those of all reports
  stand one after the other, in any order.
* `sentence_to_image` (N,): the image row, in [0, B), of every sentence.
* `gaze_heatmaps` (N, P) or (N, G, G): row `n` is where the radiologist looked while saying sentence `n`, in [0, 1].
* `gaze_mask` (B,) bool: this image has gaze. Heat maps of images without gaze are ignored.
* `logit_scale`: the multiplier itself, already exponentiated.

Half precision is computed in float32; float64 stays float64. A term that no image can contribute to is a zero that
still hangs on the graph.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

RELATIVE_CONSTANT_RANGE = 1e-6
MAPPING_FLOOR = 0.01
# above it the similarities of all patches with all sentences are made tile by tile, and again in the backward pass
TILE_BYTES = 2**26


class PaddedReports(NamedTuple):
    """Packed sentences laid out by report, M being the longest report.

    `sentences` (R, M, D), zero where a report has no such sentence; `valid` (R, M) bool; `slot` (N,) the place of
    every packed sentence inside its report; `sentence_to_report` (N,).
    """

    sentences: Tensor
    valid: Tensor
    slot: Tensor
    sentence_to_report: Tensor

    def pad(self, values: Tensor) -> Tensor:
        """(N, ...) packed -> (R, M, ...) with zeros where there is no sentence."""
        padded = values.new_zeros(*self.valid.shape, *values.shape[1:])
        return padded.index_put((self.sentence_to_report, self.slot), values)

    def pack(self, padded: Tensor) -> Tensor:
        """(R, M, ...) -> (N, ...) in the order of the packed sentences."""
        return padded[self.sentence_to_report, self.slot]


def pad_reports(sentences: Tensor, sentence_to_report: Tensor, num_reports: int) -> PaddedReports:
    """Lay packed sentences (N, D) out as (R, M, D)."""
    counts = torch.bincount(sentence_to_report, minlength=num_reports)
    longest = max(int(counts.max()), 1) if len(sentence_to_report) else 1
    order = torch.argsort(sentence_to_report, stable=True)
    first = torch.cumsum(counts, 0) - counts
    slot = torch.empty_like(sentence_to_report)
    slot[order] = torch.arange(len(order), device=order.device) - first[sentence_to_report[order]]
    valid = torch.arange(longest, device=counts.device) < counts[:, None]
    empty = PaddedReports(sentences, valid, slot, sentence_to_report)
    return empty._replace(sentences=empty.pad(sentences))


def multi_label_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-label cross-entropy (ZLPR, Su et al. 2022): positives are pushed above 0, negatives below.

    `log(1 + sum over negatives of exp(l)) + log(1 + sum over positives of exp(-l))`.

    Args:
        logits: (..., K).
        labels: (..., K), true or non-zero for a positive.
        mask: (..., K) bool, false where an entry takes no part; all entries when None.

    Returns:
        (...).
    """
    positive = labels.bool()
    negative = ~positive
    if mask is not None:
        positive, negative = positive & mask, negative & mask
    zero = logits.new_zeros(*logits.shape[:-1], 1)
    above = torch.cat([zero, logits.masked_fill(~negative, -torch.inf)], dim=-1)
    below = torch.cat([zero, (-logits).masked_fill(~positive, -torch.inf)], dim=-1)
    return torch.logsumexp(above, dim=-1) + torch.logsumexp(below, dim=-1)


def late_interaction_logits(
    patches: Tensor,
    sentences: Tensor,
    sentence_to_image: Tensor,
    logit_scale: Tensor | float,
    num_reports: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Instance logits of every image with every report by late interaction (FILIP; METHOD "EGF").

    Args:
        num_reports: R, the number of reports that `sentence_to_image` refers to; B when None.

    Returns:
        `zI` (B, R), the mean over patches of the best sentence, and `zT` (B, R), the mean over sentences of the best
        patch; rows are images. The columns of a report without a sentence are 0.
    """
    patches, sentences = _at_least_float32(patches, sentences)
    reports = pad_reports(sentences, sentence_to_image, len(patches) if num_reports is None else num_reports)
    if patches[..., 0].numel() * reports.valid.numel() * patches.element_size() > TILE_BYTES:
        return tiled_interaction(patches * logit_scale, reports, TILE_BYTES)
    count = reports.valid.sum(dim=1)
    similarity = torch.einsum("bpd,rmd->brpm", patches, reports.sentences) * logit_scale
    best_sentence = similarity.masked_fill(~reports.valid[:, None], -torch.inf).amax(dim=-1)
    image_logits = best_sentence.mean(dim=-1).masked_fill(count == 0, 0.0)
    best_patch = similarity.amax(dim=-2).masked_fill(~reports.valid, 0.0)
    text_logits = best_patch.sum(dim=-1) / count.clamp(min=1)
    return image_logits, text_logits


@torch.compiler.disable
def tiled_interaction(patches: Tensor, reports: PaddedReports, tile_bytes: int) -> tuple[Tensor, Tensor]:
    """`late_interaction_logits` without its (B, R, P, M) similarities: tiles of at most about `tile_bytes` are made,
    reduced, and made again in the backward pass. Nothing but the inputs is kept.

    At an exact tie of a maximum the first entry takes the gradient. There is no second derivative.

    Args:
        patches: (B, P, D), already times the logit scale.
    """
    return _TiledInteraction.apply(patches, reports.sentences, reports.valid.sum(dim=1), tile_bytes)


class _Tile(NamedTuple):
    """Some images against some reports of like length; `similarity` (b, P, r, m), -inf where there is no sentence."""

    images: slice
    reports: Tensor
    sentences: Tensor
    lengths: Tensor
    valid: Tensor
    similarity: Tensor


def _tiles(patches: Tensor, sentences: Tensor, count: Tensor, tile_bytes: int) -> Iterator[_Tile]:
    images, cells, width = patches.shape
    order = torch.argsort(count, stable=True)
    lengths = count[order].tolist()
    entries = max(tile_bytes // patches.element_size(), 1)
    end = len(lengths)
    # from the longest report on, so that the first of a tile is as long as any of it
    while end and lengths[end - 1]:
        longest = lengths[end - 1]
        # square tiles: as many sentences as patches
        height = min(max(round((entries**0.5) / longest), 1), end)
        rows = order[end - height : end]
        chosen, valid = sentences[rows, :longest], torch.arange(longest, device=count.device) < count[rows, None]
        step = max(entries // (cells * height * longest), 1)
        for start in range(0, images, step):
            some = slice(start, start + step)
            similarity = (patches[some].reshape(-1, width) @ chosen.reshape(-1, width).T).unflatten(1, valid.shape)
            similarity = similarity.masked_fill_(~valid, -torch.inf).unflatten(0, (-1, cells))
            yield _Tile(some, rows, chosen, count[rows], valid, similarity)
        end -= height


class _TiledInteraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, sentences: Tensor, count: Tensor, tile_bytes: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(patches, sentences, count)
        ctx.tile_bytes = tile_bytes
        image_logits = patches.new_zeros(len(patches), len(count))
        text_logits = torch.zeros_like(image_logits)
        for tile in _tiles(patches, sentences, count, tile_bytes):
            image_logits[tile.images, tile.reports] = tile.similarity.amax(dim=-1).mean(dim=1)
            best_patch = tile.similarity.amax(dim=1).masked_fill(~tile.valid, 0.0)
            text_logits[tile.images, tile.reports] = best_patch.sum(dim=-1) / tile.lengths
        return image_logits, text_logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, image_gradient: Tensor, text_gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        patches, sentences, count = ctx.saved_tensors
        patch_gradient, sentence_gradient = torch.zeros_like(patches), torch.zeros_like(sentences)
        for tile in _tiles(patches, sentences, count, ctx.tile_bytes):
            some, rows, similarity = tile.images, tile.reports, tile.similarity
            best_sentence, best_patch = similarity.argmax(dim=-1, keepdim=True), similarity.argmax(dim=1, keepdim=True)
            by_patch = (image_gradient[some, rows] / patches.shape[1])[:, None, :, None].expand(best_sentence.shape)
            by_sentence = (text_gradient[some, rows] / tile.lengths)[:, None, :, None] * tile.valid
            # the tile's memory becomes its gradient
            gradient = similarity.zero_().scatter_(-1, best_sentence, by_patch).scatter_add_(1, best_patch, by_sentence)
            gradient = gradient.flatten(2).flatten(0, 1)
            patch_gradient[some] += (gradient @ tile.sentences.flatten(0, 1)).view_as(patches[some])
            longest = tile.valid.shape[1]
            own = (gradient.T @ patches[some].flatten(0, 1)).view_as(tile.sentences)
            sentence_gradient[rows, :longest] += own
        return patch_gradient, sentence_gradient, None, None


def contrastive_alignment_loss(
    patches: Tensor,
    sentences: Tensor,
    sentence_to_image: Tensor,
    logit_scale: Tensor | float,
    report_ids: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE between images and reports on the late-interaction logits; a scalar.

    Images without a sentence take no part, neither as an anchor nor as a negative.

    Args:
        report_ids: (B,), equal for reports of the same text, which then are not each other's negatives; None: the
            paper's diagonal, every other report is a negative.
    """
    image_logits, text_logits = late_interaction_logits(patches, sentences, sentence_to_image, logit_scale)
    has_report = torch.bincount(sentence_to_image, minlength=len(patches)) > 0
    kept = has_report.nonzero().squeeze(1)
    target = torch.arange(len(kept), device=kept.device)
    image_logits, text_logits = image_logits[kept][:, kept], text_logits[kept][:, kept]
    if report_ids is not None:
        same = _same_but_not_itself(report_ids[kept])
        image_logits, text_logits = (logits.masked_fill(same, -torch.inf) for logits in (image_logits, text_logits))
    by_image = F.cross_entropy(image_logits, target, reduction="sum")
    by_text = F.cross_entropy(text_logits.T, target, reduction="sum")
    return (by_image + by_text) / 2 / max(len(kept), 1)


def gaze_alignment_loss(
    patches: Tensor,
    sentences: Tensor,
    sentence_to_image: Tensor,
    gaze_heatmaps: Tensor | None,
    gaze_mask: Tensor | None,
    logit_scale: Tensor | float,
    threshold: float = 0.1,
    sentence_weight: float = 0.5,
) -> Tensor:
    """The gaze term of EGF: patches that were looked at while a sentence was said are its positives.

    Args:
        threshold: a cell is a positive when it exceeds this fraction of its row's maximum.
        sentence_weight: weight of sentence-to-patch; the rest goes to patch-to-sentence.

    Returns:
        A scalar, the mean over the images that have gaze and a sentence.
    """
    patches, sentences = _at_least_float32(patches, sentences)
    _check_gaze_pair(gaze_heatmaps, gaze_mask)
    if gaze_heatmaps is None or gaze_mask is None:
        return (patches.sum() + sentences.sum()) * logit_scale * 0.0
    reports = pad_reports(sentences, sentence_to_image, len(patches))
    logits = _own_similarity(patches, reports) * logit_scale
    heatmaps = reports.pad(gaze_heatmaps.flatten(1).to(logits.dtype))
    labels = heatmaps > threshold * heatmaps.amax(dim=-1, keepdim=True)
    count = reports.valid.sum(dim=1)
    by_sentence = multi_label_cross_entropy(logits, labels).masked_fill(~reports.valid, 0.0)
    sentence_to_patch = by_sentence.sum(dim=-1) / count.clamp(min=1)
    valid_by_patch = reports.valid[:, None].expand(-1, logits.shape[-1], -1)
    by_patch = multi_label_cross_entropy(logits.mT, labels.mT, valid_by_patch)
    patch_to_sentence = by_patch.mean(dim=-1)
    loss = sentence_weight * sentence_to_patch + (1 - sentence_weight) * patch_to_sentence
    return _mean_over(loss, gaze_mask.bool() & (count > 0))


def cross_modality_mapping_loss(
    patches: Tensor,
    sentences: Tensor,
    sentence_to_image: Tensor,
    gaze_heatmaps: Tensor | None,
    gaze_mask: Tensor | None,
    logit_scale: Tensor | float,
    threshold: float = 2 / 7,
    sentence_ids: Tensor | None = None,
) -> Tensor:
    """EGM: each modality is rebuilt from the other with gaze-guided weights and matched with itself.

    Args:
        threshold: min-max scaled similarities below it become 0.
        sentence_ids: (N,), equal for sentences of the same text, which then are not each other's negatives; None:
            every other sentence of the report is a negative.

    Returns:
        A scalar, the mean over the images with two or more sentences.
    """
    patches, sentences = _at_least_float32(patches, sentences)
    reports = pad_reports(sentences, sentence_to_image, len(patches))
    logits = _own_similarity(patches, reports) * logit_scale
    valid = reports.valid[:, :, None].expand_as(logits)
    heatmaps, has_gaze = None, None
    _check_gaze_pair(gaze_heatmaps, gaze_mask)
    if gaze_heatmaps is not None and gaze_mask is not None:
        heatmaps, has_gaze = reports.pad(gaze_heatmaps.flatten(1).to(logits.dtype)), gaze_mask.bool()
    omega_text = _suppressed_min_max(logits, valid, threshold, logit_scale)
    omega_image = _suppressed_min_max(logits.mT, valid.mT, threshold, logit_scale)
    text_to_image = _mapping_weights(omega_text, valid, heatmaps, has_gaze)
    image_to_text = _mapping_weights(omega_image, valid.mT, None if heatmaps is None else heatmaps.mT, has_gaze)
    mapped_sentences = F.normalize(text_to_image @ patches, dim=-1)
    mapped_patches = F.normalize(image_to_text @ reports.sentences, dim=-1)
    every_patch = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
    same = None if sentence_ids is None else _same_but_not_itself(reports.pad(sentence_ids))
    text_loss = _symmetric_info_nce(mapped_sentences, reports.sentences, reports.valid, logit_scale, same)
    image_loss = _symmetric_info_nce(mapped_patches, patches, every_patch, logit_scale)
    return _mean_over((text_loss + image_loss) / 2, reports.valid.sum(dim=1) >= 2)


def _at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def _check_gaze_pair(gaze_heatmaps: Tensor | None, gaze_mask: Tensor | None) -> None:
    if (gaze_heatmaps is None) != (gaze_mask is None):
        raise ValueError("gaze_heatmaps and gaze_mask go together: pass both, or neither when no image has gaze")


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of `values` (B,) over the `chosen` (B,) ones; 0 on the graph when there is none."""
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)


def _same_but_not_itself(ids: Tensor) -> Tensor:
    """(..., K) -> (..., K, K) bool: pairs of different places with the same id."""
    same = ids[..., :, None] == ids[..., None, :]
    return same & ~torch.eye(ids.shape[-1], dtype=torch.bool, device=ids.device)


def _own_similarity(patches: Tensor, reports: PaddedReports) -> Tensor:
    """Cosines of every image's sentences with its own patches, (B, M, P)."""
    return reports.sentences @ patches.mT


def _suppressed_min_max(logits: Tensor, valid: Tensor, threshold: float, logit_scale: Tensor | float) -> Tensor:
    """`omega`: min-max along the last axis over the valid entries, then values below `threshold` become 0."""
    low = logits.masked_fill(~valid, torch.inf).amin(dim=-1, keepdim=True)
    high = logits.masked_fill(~valid, -torch.inf).amax(dim=-1, keepdim=True)
    # an all-invalid row has range -inf and so counts as constant
    constant = high - low <= RELATIVE_CONSTANT_RANGE * logit_scale
    unused = constant | ~valid
    low, span = low.masked_fill(constant, 0.0), (high - low).masked_fill(constant, 1.0)
    omega = ((logits - low) / span).masked_fill(unused, 0.0)
    return omega.masked_fill(omega < threshold, 0.0)


def _mapping_weights(omega: Tensor, valid: Tensor, heatmaps: Tensor | None, has_gaze: Tensor | None) -> Tensor:
    """Row-normalised weights of the cross mapping, (B, rows, columns); rows without a valid entry are 0."""
    if heatmaps is not None and has_gaze is not None:
        omega = torch.where(has_gaze[:, None, None], (omega + heatmaps) / 2, omega)
    weights = (omega + MAPPING_FLOOR).masked_fill(~valid, 0.0)
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)


def _symmetric_info_nce(
    mapped: Tensor, original: Tensor, valid: Tensor, logit_scale: Tensor | float, same: Tensor | None = None
) -> Tensor:
    """Per image, InfoNCE both ways between `mapped` and `original` (B, K, D) over the valid entries; (B,).

    Args:
        same: (B, K, K) bool, pairs that are no negatives.
    """
    logits = mapped @ original.mT * logit_scale
    pairs = valid[:, :, None] & valid[:, None, :]
    if same is not None:
        pairs = pairs & ~same
    # an entry that is not there keeps its diagonal, whose cross-entropy is 0 and has no gradient
    diagonal = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    logits = logits.masked_fill(~(pairs | diagonal), -torch.inf)
    matched = logits.diagonal(dim1=1, dim2=2)
    rows = torch.logsumexp(logits, dim=2) - matched
    columns = torch.logsumexp(logits, dim=1) - matched
    return (rows + columns).sum(dim=-1) / 2 / valid.sum(dim=1).clamp(min=1)


def similarity_maps(patches: Tensor, sentences: Tensor) -> Tensor:
    """Embeddings (B, P, D) and (N, D) -> cosines (B, N, G, G); see `EgmaModel.get_similarity_map`."""
    grid = grid_of(patches)
    maps = (sentences @ patches.mT).unflatten(-1, (grid, grid))
    if not torch.compiler.is_compiling() and not bool(maps.isfinite().all()):
        image, sentence = (~maps.isfinite()).any(dim=(-2, -1)).nonzero()[0].tolist()
        raise ValueError(f"the map of sentence {sentence} in image {image} is not finite; expected cosines")
    return maps


def grid_of(patches: Tensor) -> int:
    count = patches.shape[-2]
    grid = round(count**0.5)
    if grid * grid != count:
        raise ValueError(
            f"{count} patches are no square grid; expected square images, as EgmaImageProcessor makes them"
        )
    return grid
