"""Other models on the same rows: what `AutoModel` loads of CLIP's or SigLIP's kind, seen as the protocols see EGMA."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from dataset_scripts.schema import UserError
from modeling_egma.towers_egma import encoder_faults


class Peer(nn.Module):
    """One vector an image and one a sentence, in one space; no patch embeddings, so no maps and one score."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.config = SimpleNamespace(
            zero_shot_score="pooled", _commit_hash=getattr(model.config, "_commit_hash", None)
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def has_text(self) -> bool:
        return hasattr(self.model, "get_text_features")

    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, None]:
        if not hasattr(self.model, "get_image_features"):
            # without a text tower there is no common space; what it sees is for the linear probe
            return normalize(self._pooled(pixel_values).float(), dim=-1), None
        return normalize(_vector(self.model.get_image_features(pixel_values=pixel_values)), dim=-1), None

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        # a mask of ones only is what SigLIP was trained with: none
        if bool(attention_mask.all()):
            del inputs["attention_mask"]
        return normalize(_vector(self.model.get_text_features(**inputs)), dim=-1)

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """`last_hidden_state` (B, 1, width): the pooled feature before projection, which the linear probe reads."""
        return BaseModelOutputWithPooling(last_hidden_state=cast(Any, self._pooled(pixel_values)[:, None]))

    def _pooled(self, pixel_values: Tensor) -> Tensor:
        vision = getattr(self.model, "vision_model", self.model)
        output = vision(pixel_values=pixel_values)
        pooled = getattr(output, "pooler_output", None)
        pooled = output.last_hidden_state.mean(dim=1) if pooled is None else pooled
        return cast(Tensor, pooled.flatten(1))


class PeerProcessor:
    """Image processor and tokenizer of a peer, called as EGMA's processor is."""

    def __init__(self, image_processor: Any, tokenizer: Any | None, max_length: int | None, name: str) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.max_length, self.name = max_length, name

    def __call__(
        self, images: Sequence[Any] | None = None, text: Sequence[str] | None = None, return_tensors: str = "pt"
    ) -> Mapping[str, Tensor]:
        if images is not None:
            return cast(Mapping[str, Tensor], self.image_processor(images=list(images), return_tensors=return_tensors))
        if self.tokenizer is None:
            raise UserError(f"{self.name} has no text tower; of the tasks it can only take linear_probe")
        assert text is not None
        # models that were trained without a mask saw sentences filled to the same length
        has_mask = "attention_mask" in self.tokenizer.model_input_names
        tokens = dict(
            self.tokenizer(
                list(text),
                padding=True if has_mask else "max_length",
                truncation=True,
                max_length=self.max_length,
                return_tensors=return_tensors,
            )
        )
        tokens.setdefault("attention_mask", torch.ones_like(tokens["input_ids"]))
        return tokens


def load_peer(name: str) -> tuple[Peer, PeerProcessor]:
    """A Hub id or a folder; safetensors only, no code of the repository is run.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        model, loading = AutoModel.from_pretrained(
            name, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
        if faults := encoder_faults(model, loading):
            raise ValueError(f"the weights do not fill it: {faults}")
        peer = Peer(model)
        image_processor = AutoImageProcessor.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name) if peer.has_text else None
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name}: no model of CLIP's or SigLIP's kind can be loaded from it ({reason})") from error
    text_config = getattr(model.config, "text_config", None)
    return peer, PeerProcessor(image_processor, tokenizer, getattr(text_config, "max_position_embeddings", None), name)


def _vector(output: Any) -> Tensor:
    vector = output if isinstance(output, Tensor) else output.pooler_output
    return cast(Tensor, vector.float())
