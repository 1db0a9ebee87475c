"""What DDP and FSDP wrap, and the loss and gradients of one optimiser step."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from egma.inference.texts import Block, encode_blocks, length_blocks, text_inputs
from egma.tools.running_statistics import split_statistics
from egma.training.gather import Features, all_processes
from modeling_egma import EgmaModel
from modeling_egma.interaction_egma import ONE_PROCESS, OneProcess

Batch = Mapping[str, Any]
Terms = dict[str, Tensor]
Pull = tuple[Tensor, Tensor, Tensor]  # gradients towards patches (B, P, D), texts (U, D) and the log scale

# with torch.compile, tokens a sentence are padded to multiples, so that shapes are few
TOKEN_BUCKET = 16
SHARDED_BLOCKS = 2  # the same everywhere, as every process gathers the text encoder's layers once a block


class TrainingModule(nn.Module):
    """The model as DDP or FSDP wraps it: all that needs gradients happens inside `forward`.

    Args:
        buckets: whether token lengths and numbers of sentences are padded to multiples, for compiled encoders.
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
        * `features`: the `Features` of this batch alone.
        * `embeddings`: patches (B, P, D) and texts (U, D) of this batch, what `features` takes.
        * `pull`: a scalar whose gradient towards the parameters is that of the loss whose gradient towards the
          embeddings is `pull`.
        """
        patches, texts = self._embeddings(batch)
        if stage == "embeddings":
            return patches, texts
        if stage == "pull":
            assert pull is not None
            pulled = zip((patches, texts, self.model.logit_scale), pull, strict=True)
            return torch.stack([(value * gradient).sum() for value, gradient in pulled]).sum()
        features = self.features(batch, patches, texts)
        if stage == "features":
            return features
        return self.objective(features, all_processes() if stage == "objective" else ONE_PROCESS)

    def objective(self, features: Features, join: OneProcess) -> tuple[Tensor, Terms]:
        return self.model.objective(*features, join=join)

    def _embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        _, patches = self.model.encode_images(batch["pixel_values"])
        filler = (self.model.config.text_config.pad_token_id or 0) if self.buckets else None
        return patches, encode_blocks(self.model.encode_text, text_inputs(batch), self.text_blocks(batch), filler)

    def text_blocks(self, batch: Batch) -> list[Block]:
        """Rows of `input_ids` that are encoded together; all, where `distinct_texts` did not say how long they are."""
        count, columns = batch["input_ids"].shape
        lengths = batch.get("text_lengths", [columns] * count)
        blocks = SHARDED_BLOCKS if isinstance(self, FSDPModule) else None
        return length_blocks(lengths, TOKEN_BUCKET if self.buckets else 1, self.model.text_positions, blocks)

    def features(self, batch: Batch, patches: Tensor, texts: Tensor) -> Features:
        """Embeddings of the whole batch, or of its parts one after the other, and what the objective needs beside."""
        index = batch.get("sentence_index")
        sentences = texts if index is None else texts[index]
        heatmaps, gaze_mask = batch.get("gaze_heatmaps"), batch.get("gaze_mask")
        if heatmaps is None or gaze_mask is None:
            heatmaps = patches.new_zeros(len(sentences), patches.shape[1])
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


def synchronised(accelerator: Accelerator, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Gradients are averaged over the processes once a step."""
    return nullcontext() if last else accelerator.no_sync(module)


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    """The batch on the device, and finished there; before it where the device has no float64.

    `sentence_to_image` stays: its counts are sizes, and the host would wait for them (`losses_egma`).
    """
    finish = batch.get("finish")
    if finish is not None and device.type == "mps":
        batch, finish = finish(batch), None
    moving = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name != "sentence_to_image"}
    moved = {name: value.to(device, non_blocking=True) for name, value in moving.items()}
    whole = dict(batch) | moved
    return whole if finish is None else finish(whole)
