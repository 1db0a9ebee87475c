"""Small invented batches, and the joined batch of several."""

import torch
from transformers import BertConfig, SwinConfig

from modeling_egma import EgmaConfig, EgmaModel

GRID = 7


def small_model(
    dtype: torch.dtype, weights: tuple[float, float, float] = (1, 1, 1), dropout: float = 0.0, **kinds: str
) -> EgmaModel:
    """The same weights at every call; `kinds` of the objective's terms, the paper's where none is given."""
    torch.manual_seed(0)
    vision = SwinConfig(
        image_size=56, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=7,
        drop_path_rate=dropout, hidden_dropout_prob=dropout,
    )  # fmt: skip
    text = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    fields = dict(zip(("contrastive_weight", "gaze_weight", "mapping_weight"), weights, strict=True)) | kinds
    config = EgmaConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=12, **fields)
    return EgmaModel(config).to(dtype)


def make_batch(
    counts: list[int], seed: int, dtype: torch.dtype, gaze: bool | None = True, length: int = 6
) -> dict[str, torch.Tensor]:
    """`gaze` None: the batch says nothing of gaze; False: no image has it; True: all but the last have."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    mask = torch.arange(length) < torch.randint(1, length + 1, (total, 1), generator=generator)
    batch = {
        "pixel_values": torch.randn(len(counts), 3, 56, 56, generator=generator, dtype=dtype),
        "input_ids": torch.randint(5, 40, (total, length), generator=generator) * mask,
        "attention_mask": mask.long(),
        "sentence_to_image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
    }
    if gaze is not None:
        maps = torch.rand(total, GRID, GRID, generator=generator, dtype=dtype) ** 4
        batch["gaze_heatmaps"] = maps if gaze else torch.zeros_like(maps)
        batch["gaze_mask"] = (torch.arange(len(counts)) < len(counts) - 1) & gaze
    return batch


def joined(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One batch of several, written without the code under test."""
    length = max(batch["input_ids"].shape[1] for batch in batches)
    columns: dict[str, list[torch.Tensor]] = {}
    images = 0
    for batch in batches:
        total, size = len(batch["input_ids"]), len(batch["pixel_values"])
        whole = dict(batch)
        whole.setdefault("gaze_heatmaps", torch.zeros(total, GRID, GRID, dtype=batch["pixel_values"].dtype))
        whole.setdefault("gaze_mask", torch.zeros(size, dtype=torch.bool))
        for name in ("input_ids", "attention_mask"):
            whole[name] = torch.cat([whole[name], whole[name].new_zeros(total, length - whole[name].shape[1])], dim=1)
        whole["sentence_to_image"] = whole["sentence_to_image"] + images
        images += size
        for name, value in whole.items():
            columns.setdefault(name, []).append(value)
    return {name: torch.cat(column) for name, column in columns.items()}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def largest_difference(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """Largest difference of an entry, relative to the norm of all of `others` where that is above 1."""
    assert some.keys() == others.keys()
    norm = torch.sqrt(sum(value.double().square().sum() for value in others.values())).clamp(min=1)
    return max(float((value - others[name]).abs().max() / norm) for name, value in some.items())
