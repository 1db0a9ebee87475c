"""MGCA, a model to compare with: two encoders, and a global and a local head over each.

Source: Wang et al., "Multi-Granularity Cross-modal Alignment for Generalized Medical Visual Representation Learning",
NeurIPS 2022 (arXiv 2210.06044), and its code (HKU-MedAI/MGCA). `egma convert` makes a folder of the authors' weights.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec

from modeling_egma.towers_egma import patch_tokens, tower_from_config


class MgcaConfig(PreTrainedConfig):
    """A ViT, a BERT, and the widths of every head: hidden and last."""

    model_type = "mgca"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }
    vision_config: PreTrainedConfig | dict | None = None  # type: ignore[type-arg]
    text_config: PreTrainedConfig | dict | None = None  # type: ignore[type-arg]
    head_widths: list[int] | tuple[int, ...] = (2048, 128)


class Head(nn.Sequential):
    """Tokens (B, L, width) -> (B, L, last), of length 1."""

    def __init__(self, width: int, hidden: int, last: int) -> None:
        norms = nn.BatchNorm1d(hidden), nn.BatchNorm1d(last, affine=False)
        super().__init__(nn.Linear(width, hidden), norms[0], nn.ReLU(), nn.Linear(hidden, last), norms[1])

    def forward(self, tokens: Tensor) -> Tensor:
        return normalize(super().forward(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]), dim=-1)


class MgcaModel(PreTrainedModel):
    """The global space and the local one side by side: an image meets a sentence in the first, a patch in the second.

    A sentence's local half is the mean of its words; a word is the sum of its pieces, and the last token counts as one,
    as in the authors' alignment.
    """

    config_class = MgcaConfig
    continues: Tensor  # (vocabulary,) whether an entry goes on with the word before

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        towers = {"img": config.vision_config, "text": config.text_config}
        self.vision_model = cast(Any, tower_from_config(towers["img"]))
        self.vision_model.pooler = lambda tokens: tokens[:, 0]
        self.text_model = tower_from_config(towers["text"])
        widths = {f"{name}_{of}": tower.hidden_size for name, tower in towers.items() for of in ("global", "local")}
        self.heads = nn.ModuleDict({name: Head(width, *config.head_widths) for name, width in widths.items()})
        self.register_buffer("continues", torch.zeros(config.text_config.vocab_size, dtype=torch.bool))
        self.post_init()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, 2 D): the class token's, and zeros."""
        whole = self.heads["img_global"](self.vision_model(pixel_values=pixel_values).pooler_output[:, None])[:, 0]
        return pad(whole, (0, whole.shape[-1]))

    def get_patch_features(self, pixel_values: Tensor) -> Tensor:
        """(B, P, 2 D): zeros, and the patch's."""
        patches = self.heads["img_local"](patch_tokens(self.vision_model, pixel_values)[0])
        return pad(patches, (patches.shape[-1], 0))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, 2 D): the first token's, and the words'."""
        tokens = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        is_inner = attention_mask.bool()
        is_inner[:, 0] = False
        word = (is_inner & ~self.continues[input_ids]).cumsum(dim=1)
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        pieces = (word[:, None] == places) & is_inner[:, None]
        words = self.heads["text_local"](pieces.to(tokens.dtype) @ tokens) * pieces.any(dim=-1, keepdim=True)
        both = self.heads["text_global"](tokens[:, :1])[:, 0], normalize(words.sum(dim=1), dim=-1)
        return torch.cat(both, dim=-1)


AutoConfig.register(MgcaConfig.model_type, MgcaConfig, exist_ok=True)
AutoModel.register(MgcaConfig, MgcaModel, exist_ok=True)
