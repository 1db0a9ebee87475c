"""What DDP and FSDP wrap, and the loss and gradients of one optimiser step."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from egma.tools.running_statistics import split_statistics
from egma.training.gather import Features, all_processes
from modeling_egma import EgmaModel
from modeling_egma.losses_egma import ONE_PROCESS, OneProcess

Batch = Mapping[str, Any]
Terms = dict[str, Tensor]

# with torch.compile, tokens a sentence and sentences a batch are padded to multiples, so that shapes are few
TOKEN_BUCKET = 16
SENTENCE_BUCKET = 32


class Pull(NamedTuple):
    """Gradients of the loss towards one micro batch's patches (b, P, D) and sentences (n, D), and the log scale."""

    patches: Tensor
    sentences: Tensor
    logit_scale: Tensor


class TrainingModule(nn.Module):
    """The model as DDP or FSDP wraps it: all that needs gradients happens inside `forward`.

    Args:
        buckets: whether token lengths and numbers of sentences are padded to multiples (`torch_compile`).
    """

    def __init__(self, model: EgmaModel, buckets: bool = False) -> None:
        super().__init__()
        self.model = model
        self.buckets = buckets
        self.held, _ = split_statistics(model)

    def train(self, mode: bool = True) -> Self:
        """As in PyTorch, but for running statistics that were learned."""
        super().train(mode)
        for layer in self.held:
            layer.eval()
        return self

    def forward(self, batch: Batch, stage: str = "objective", pull: Pull | None = None) -> Any:
        """Depends on `stage`.

        * `objective`: the loss and its terms over the batches of all processes.
        * `alone`: the same over this batch only.
        * `features`: the `Features` of this batch alone.
        * `pull`: a scalar whose gradient towards the parameters is that of the loss whose gradient towards the
          features is `pull`.
        """
        features = self._features(batch)
        if stage == "features":
            return features
        if stage in ("objective", "alone"):
            return self.objective(features, all_processes() if stage == "objective" else ONE_PROCESS)
        assert stage == "pull" and pull is not None
        pulled = (features.patches * pull.patches).sum() + (features.sentences * pull.sentences).sum()
        return pulled + self.model.logit_scale * pull.logit_scale

    def objective(self, features: Features, join: OneProcess) -> tuple[Tensor, Terms]:
        return self.model.objective(*features, join=join)

    def _features(self, batch: Batch) -> Features:
        _, patches = self.model.encode_images(batch["pixel_values"])
        ids, mask = batch["input_ids"], batch["attention_mask"]
        count = len(ids)
        if self.buckets:
            ids, mask = _to_buckets(ids, mask, self.model.config.text_config.pad_token_id or 0)
        sentences = self.model.encode_text(ids, mask)[:count]
        heatmaps, gaze_mask = batch.get("gaze_heatmaps"), batch.get("gaze_mask")
        if heatmaps is None or gaze_mask is None:
            heatmaps = patches.new_zeros(count, patches.shape[1])
            gaze_mask = torch.zeros(len(patches), dtype=torch.bool, device=patches.device)
        return Features(
            patches,
            sentences,
            batch["sentence_to_image"],
            heatmaps.flatten(1),
            gaze_mask,
            batch.get("report_ids"),
            batch.get("sentence_ids"),
        )


def whole_step(accelerator: Accelerator, module: nn.Module, batches: Sequence[Batch]) -> tuple[Tensor, Terms]:
    """Gradients of the mean loss of `batches`; a batch's readings are each other's only negatives.

    Several batches are plain gradient accumulation: the gradient of more readings, the negatives of one batch.

    Returns:
        The loss and its terms, means over `batches`.
    """
    losses, terms = [], []
    for number, batch in enumerate(batches):
        with synchronised(accelerator, module, number == len(batches) - 1):
            loss, components = module(batch)
            accelerator.backward(loss / len(batches))
        losses.append(loss.detach())
        terms.append(components)
    means = {name: torch.stack([one[name].detach() for one in terms]).mean() for name in terms[0]}
    return torch.stack(losses).mean(), means


def _to_buckets(ids: Tensor, mask: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """(N, L) padded to multiples; a sentence that is only there to fill has one token."""
    more_tokens, more_rows = -ids.shape[1] % TOKEN_BUCKET, -len(ids) % SENTENCE_BUCKET
    if not len(ids):
        return ids, mask
    ids = F.pad(ids, (0, more_tokens, 0, more_rows), value=pad)
    mask = F.pad(mask, (0, more_tokens, 0, more_rows))
    mask[len(mask) - more_rows :, 0] = 1
    return ids, mask


def synchronised(accelerator: Accelerator, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Gradients are averaged over the processes once a step."""
    return nullcontext() if last else accelerator.no_sync(module)


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items() if isinstance(value, Tensor)}
    return dict(batch) | moved
