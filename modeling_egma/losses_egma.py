"""The EGMA objective on embeddings: one implementation a term, for one process and for many.

Source: Ma et al., "Eye-gaze Guided Multi-modal Alignment for Medical Representation Learning", NeurIPS 2024
(arXiv 2403.12416), equations 1-9; `docs/method.md` settles what the paper leaves open, `docs/training.md` says how
processes share it.

Shapes and symbols, the same in every function:

* `patches` (B, P, D) and `sentences` (N, D): L2-normalised embeddings. Sentences are packed: those of all reports
  stand one after the other, in any order.
* `sentence_to_image` (N,): the image row, in [0, B), of every sentence; where it lies on the host, the host waits for
  nothing.
* `gaze_heatmaps` (N, P) or (N, G, G): row `n` is where the radiologist looked while saying sentence `n`, in [0, 1].
* `gaze_mask` (B,) bool: this image has gaze. Heat maps of images without gaze are ignored.
* `logit_scale`: the multiplier itself, already exponentiated, above 0.

Half precision is computed in float32; float64 stays float64. A term that no image can contribute to is a zero that
still hangs on the graph.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .interaction_egma import ONE_PROCESS, Joined, OneProcess, Reports, late_interaction, lay_out
from .matching_egma import (
    OwnColumns,
    by_image,
    gazed_patches,
    in_tiles,
    matching_share,
    pairs_of,
    pooled_cosines,
    soft_gaze_share,
)

MAX_LOGIT_SCALE = 100.0
RELATIVE_CONSTANT_RANGE = 1e-6
MAPPING_FLOOR = 0.01


def alignment_objective(
    config: Any,
    patches: Tensor,
    sentences: Tensor,
    sentence_to_image: Tensor,
    gaze_heatmaps: Tensor | None,
    gaze_mask: Tensor | None,
    logit_scale: Tensor,
    report_ids: Tensor | None = None,
    sentence_ids: Tensor | None = None,
    join: OneProcess = ONE_PROCESS,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and terms of the joined batch, see the functions below; without the terms of weight 0 in `config`."""
    weights, shares = term_weights(config), {}
    own = _own(patches, sentences, sentence_to_image, gaze_heatmaps, gaze_mask, join.shared(logit_scale))
    pooled, in_batch = config.interaction == "cabs", config.mapping == "batch"
    if "contrastive" in weights or ("mapping" in weights and in_batch):
        ids = sentence_ids if pooled or in_batch else None
        joined = join.reports(own.reports, own.sentences, None if pooled else report_ids, ids)
    if "contrastive" in weights:
        shares["contrastive"] = _pooled_contrastive(own, joined, join) if pooled else _contrastive(own, joined, join)
    if "gaze" in weights and config.gaze_target == "soft":
        shares["gaze"] = soft_gaze_share(own.logits, own.heatmaps, own.looked)
    elif "gaze" in weights:
        shares["gaze"] = _gaze(own, config.gaze_label_threshold, config.gaze_sentence_weight)
    if "mapping" in weights:
        within = config.mapping_threshold, sentence_ids
        shares["mapping"] = _batch_mapping(own, joined, join) if in_batch else _mapping(own, *within)
    terms = _terms(shares, join)
    # with no term at all, the loss still hangs on the graph
    return sum((weights[name] * term for name, term in terms.items()), start=logit_scale * 0.0), terms


def term_weights(config: Any) -> dict[str, float]:
    """Weights of the terms that are computed: those above 0."""
    weights = {name: getattr(config, f"{name}_weight") for name in ("contrastive", "gaze", "mapping")}
    return {name: weight for name, weight in weights.items() if weight}


def _terms(shares: dict[str, Tensor], join: OneProcess) -> dict[str, Tensor]:
    """Terms of the joined batch from the `_share`s of this process; of several shares, the mean of their means."""
    if not shares:
        return {}
    flat = [share.reshape(-1, 2) for share in shares.values()]
    totals = join.total(torch.cat(flat)).split([len(share) for share in flat])
    return {name: _mean(total.T).mean() for name, total in zip(shares, totals, strict=True)}


def multi_label_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-label cross-entropy (ZLPR, Su et al. 2022): positives are pushed above 0, negatives below.

    `log(1 + sum over negatives of exp(l)) + log(1 + sum over positives of exp(-l))`.

    Args:
        logits: (..., K).
        labels: (..., K), true or non-zero for a positive.
        mask: (..., K) bool, false where an entry takes no part; all entries when None.

    Returns:
        (...).

    >>> multi_label_cross_entropy(torch.zeros(3), torch.tensor([1, 0, 0])).exp()  # ln 3 and ln 2
    tensor(6.)
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

    >>> late_interaction_logits(torch.eye(2)[:, None], torch.eye(2), torch.tensor([0, 1]), 10.0)[0]
    tensor([[10.,  0.],
            [ 0., 10.]])
    """
    patches, sentences = _at_least_float32(patches, sentences)
    reports = lay_out(sentence_to_image, len(patches) if num_reports is None else num_reports, patches.device)
    image_cosines, text_cosines = late_interaction(patches, sentences, reports)
    return image_cosines * logit_scale, text_cosines * logit_scale


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

    >>> contrastive_alignment_loss(torch.eye(2)[:, None], torch.eye(2), torch.tensor([0, 1]), math.log(3)).exp()
    tensor(1.3333)
    """
    own = _own(patches, sentences, sentence_to_image, None, None, logit_scale)
    joined = ONE_PROCESS.reports(own.reports, own.sentences, report_ids, None)
    return _mean(_contrastive(own, joined, ONE_PROCESS))


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

    >>> patches, rows, has_gaze = torch.eye(4), torch.tensor([0]), torch.tensor([True])  # half of ln 8 and of ln 2
    >>> gaze_alignment_loss(patches[None], patches[:1], rows, patches[:1], has_gaze, 0.0).exp()
    tensor(4.)
    """
    own = _own(patches, sentences, sentence_to_image, gaze_heatmaps, gaze_mask, logit_scale)
    return _mean(_gaze(own, threshold, sentence_weight))


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

    >>> own, rows, has_gaze = torch.eye(2), torch.tensor([0, 0]), torch.tensor([True])  # each is rebuilt as itself
    >>> cross_modality_mapping_loss(own[None], own, rows, own, has_gaze, 30.0).item() < 1e-9
    True
    """
    own = _own(patches, sentences, sentence_to_image, gaze_heatmaps, gaze_mask, logit_scale)
    return _mean(_mapping(own, threshold, sentence_ids))


class _Own(NamedTuple):
    """Images of this process, `patches` (B, P, D), and their reports: `sentences` packed (N, D) and `padded` (B, M, D).

    On their own images: `logits` and `heatmaps` (B, M, P), `has_gaze` (B,).
    """

    patches: Tensor
    sentences: Tensor
    reports: Reports
    scale: Tensor
    padded: Tensor
    logits: Tensor
    heatmaps: Tensor
    has_gaze: Tensor

    @property
    def looked(self) -> Tensor:
        """(B, M) bool: the sentence has a map of gaze."""
        return self.reports.valid & self.has_gaze[:, None] & (self.heatmaps.amax(dim=-1) > 0)


def _own(
    patches: Tensor,
    sentences: Tensor,
    rows: Tensor,
    heatmaps: Tensor | None,
    mask: Tensor | None,
    scale: Tensor | float,
) -> _Own:
    if (heatmaps is None) != (mask is None):
        raise ValueError("gaze_heatmaps and gaze_mask go together: pass both, or neither when no image has gaze")
    patches, sentences = _at_least_float32(patches, sentences)
    if heatmaps is None or mask is None:
        heatmaps, mask = patches.new_zeros(len(sentences), patches.shape[1]), patches.new_zeros(len(patches))
    scale = scale if isinstance(scale, Tensor) else patches.new_full((), scale)
    reports = lay_out(rows, len(patches), patches.device)
    padded, heatmaps = reports.pad(sentences), reports.pad(heatmaps.flatten(1).to(patches.dtype))
    logits = padded @ patches.mT * scale
    return _Own(patches, sentences, reports, scale, padded, logits, heatmaps, mask.bool())


def _at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def _share(values: Tensor, chosen: Tensor) -> Tensor:
    """(2,), the sum of `values` (B,) over the `chosen` (B,) ones, and their number."""
    return torch.stack([values.masked_fill(~chosen, 0.0).sum(), chosen.sum().to(values.dtype)])


def _mean(share: Tensor) -> Tensor:
    """A mean from its `_share`; 0 on the graph when there is none."""
    return share[0] / share[1].clamp(min=1)


def _contrastive(own: _Own, joined: Joined, join: OneProcess) -> Tensor:
    """Share of the own images' rows and the own reports' columns; see `contrastive_alignment_loss`."""
    first, known, ids = joined.first_report, joined.reports.counts > 0, joined.report_ids
    mine = slice(first, first + len(own.patches))
    positive = torch.zeros(len(own.patches), len(known), dtype=torch.bool, device=known.device)
    positive.diagonal(first).fill_(True)
    taken = known[mine, None] & known
    if ids is not None:
        taken = taken & (ids[mine, None] != ids)
    # an image without a sentence has its own, empty report alone: its cross-entropy is 0 and has no gradient
    taken = taken | positive
    cosines = late_interaction(own.patches, joined.sentences, joined.reports)
    image_logits, text_logits = ((side * own.scale).masked_fill(~taken, -torch.inf) for side in cosines)
    by_image = (torch.logsumexp(image_logits, dim=1) - image_logits.diagonal(first)).sum()
    by_text = OwnColumns.apply(text_logits, positive, known, join)
    return torch.stack([(by_image + by_text) / 2, known[mine].sum().to(by_text.dtype)])


def _pooled_contrastive(own: _Own, joined: Joined, join: OneProcess) -> Tensor:
    """Shares of images against sentences by `pooled_cosines`, in place of the paper's late interaction."""
    pairs, images = pairs_of(own.reports, joined), len(own.patches)
    logits = pooled_cosines(own.patches, joined.sentences, own.scale) * own.scale
    positive, equal = (by_image(values, pairs.image, images) for values in (pairs.own, pairs.equal))
    return matching_share(logits, positive, equal, own.reports.counts > 0, join)


def _batch_mapping(own: _Own, joined: Joined, join: OneProcess) -> Tensor:
    """Shares of `gazed_patches` against the sentences of the batch, in place of the paper's mapping."""
    pairs, slots = pairs_of(own.reports, joined), own.reports.slots
    gazed = gazed_patches(own.patches, own.heatmaps).flatten(0, 1)[slots]
    logits = gazed @ joined.sentences.T * own.scale
    return matching_share(logits, pairs.own, pairs.equal, own.looked.flatten()[slots], join)


def _gaze(own: _Own, threshold: float, sentence_weight: float) -> Tensor:
    """Share of the own images; see `gaze_alignment_loss`."""
    logits, valid, count = own.logits, own.reports.valid, own.reports.counts
    labels = own.heatmaps > threshold * own.heatmaps.amax(dim=-1, keepdim=True)
    by_sentence = multi_label_cross_entropy(logits, labels).masked_fill(~valid, 0.0)
    sentence_to_patch = by_sentence.sum(dim=-1) / count.clamp(min=1)
    by_patch = multi_label_cross_entropy(logits.mT, labels.mT, valid[:, None].expand_as(logits.mT))
    loss = sentence_weight * sentence_to_patch + (1 - sentence_weight) * by_patch.mean(dim=-1)
    return _share(loss, own.has_gaze & (count > 0))


def _mapping(own: _Own, threshold: float, sentence_ids: Tensor | None) -> Tensor:
    """Share of the own images; see `cross_modality_mapping_loss`."""
    valid = own.reports.valid
    pairs = valid[:, :, None] & valid[:, None]
    if sentence_ids is not None:
        ids = own.reports.pad(sentence_ids)
        pairs = pairs & (ids[:, :, None] != ids[:, None])
    cells, width = own.patches.shape[1:]
    # logits of patches with patches, and mapped patches, with their gradients
    size = cells * (4 * cells + 5 * width) * own.patches.element_size()
    batch = (own.patches, own.padded, own.logits, own.heatmaps, own.has_gaze, valid, pairs)
    values = in_tiles(partial(_mapping_of_images, threshold, own.scale), size, *batch)
    return _share(values, own.reports.counts >= 2)


def _mapping_of_images(
    threshold: float,
    scale: Tensor,
    patches: Tensor,
    padded: Tensor,
    logits: Tensor,
    heatmaps: Tensor,
    has_gaze: Tensor,
    valid: Tensor,
    pairs: Tensor,
) -> Tensor:
    """The mapping term of each image, (B,); `pairs` (B, M, M), sentences that are each other's negatives."""
    entries = valid[:, :, None].expand_as(logits)
    text_to_image = _mapping_weights(logits, entries, heatmaps, has_gaze, threshold, scale)
    image_to_text = _mapping_weights(logits.mT, entries.mT, heatmaps.mT, has_gaze, threshold, scale)
    mapped_sentences = F.normalize(text_to_image @ patches, dim=-1)
    mapped_patches = F.normalize(image_to_text @ padded, dim=-1)
    text_logits = mapped_sentences @ padded.mT * scale
    # an entry that is not there keeps its diagonal, whose cross-entropy is 0 and has no gradient
    diagonal = torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)
    text_logits = text_logits.masked_fill(~(pairs | diagonal), -torch.inf)
    text_loss = _symmetric_info_nce(text_logits).sum(dim=-1) / valid.sum(dim=1).clamp(min=1)
    image_loss = _symmetric_info_nce(mapped_patches @ patches.mT * scale).mean(dim=-1)
    return (text_loss + image_loss) / 2


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


def _mapping_weights(
    logits: Tensor, valid: Tensor, heatmaps: Tensor, has_gaze: Tensor, threshold: float, scale: Tensor
) -> Tensor:
    """Row-normalised weights of the cross mapping, (B, rows, columns); rows without a valid entry are 0."""
    omega = _suppressed_min_max(logits, valid, threshold, scale)
    omega = torch.where(has_gaze[:, None, None], (omega + heatmaps) / 2, omega)
    weights = (omega + MAPPING_FLOOR).masked_fill(~valid, 0.0)
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)


def _symmetric_info_nce(logits: Tensor) -> Tensor:
    """(B, K, K) -> (B, K), the mean of the cross-entropies of a row and a column with their diagonal entry."""
    both = torch.logsumexp(logits, dim=2) + torch.logsumexp(logits, dim=1)
    return both / 2 - logits.diagonal(dim1=1, dim2=2)


class CappedScale(torch.autograd.Function):
    """The logit scale of its learned logarithm, at most `exp(cap)`.

    The logarithm is clamped; beyond the cap a gradient that leads back (one above 0) goes through, and no other.
    """

    @staticmethod
    def forward(ctx: Any, log_scale: Tensor, cap: float = math.log(MAX_LOGIT_SCALE)) -> Tensor:
        scale = log_scale.clamp(max=cap).exp()
        ctx.cap = cap
        ctx.save_for_backward(log_scale, scale)
        return scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_scale, scale = ctx.saved_tensors
        return gradient * scale * ((log_scale < ctx.cap) | (gradient > 0)), None


def similarity_maps(patches: Tensor, sentences: Tensor) -> Tensor:
    """Embeddings (B, P, D) and (N, D) -> cosines (B, N, G, G); see `EgmaModel.get_similarity_map`.

    >>> similarity_maps(torch.eye(4)[None], torch.eye(4)[:1]).tolist()
    [[[[1.0, 0.0], [0.0, 0.0]]]]
    """
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
