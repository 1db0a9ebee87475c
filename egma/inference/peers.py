"""Other models on the same rows: what `AutoModel` loads of CLIP's or SigLIP's kind, seen as the protocols see EGMA."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from dataset_scripts.schema import UserError
from egma.inference.embeddings import inference
from egma.inference.mgca import MgcaConfig
from egma.inference.models import LOADING_ERRORS, reason_of, require_model
from modeling_egma.towers_egma import encoder_faults, patch_tokens, pooled_alone, text_positions

# by the type of model, as trained: sentences of any length with a mask over what fills them up, or all of the longest
# length without one. SigLIP 2 of one image size has SigLIP's type; a tokenizer does not say which of both it is for
MASKED = ("clip", "clipseg", "metaclip_2", "altclip", "chinese_clip", "vision-text-dual-encoder", "mgca")
FILLED = ("siglip",)
SQUARES = (MgcaConfig.model_type,)  # whose own pictures are padded, too
NAFLEX = ("siglip2", "siglip2_vision_model")
SAME = 1e-4  # largest difference of an embedding with and without others beside it
TRIED_SIDES, TRIED_TEXTS = (40, 64), ("clear", "no pleural effusion is seen")


class Peer(nn.Module):
    """One vector an image and one a sentence, in one space; patches where the model's own projection takes a token.

    Patches go as an `EgmaModel` that starts from the same model lets them (`pooled_alone`).
    """

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

    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W), or (B, 6, H, W) with the padded picture second, of which the patches are (`PeerProcessor`)."""
        own, framed = pixel_values[:, :3], pixel_values[:, -3:]
        if not self.has_text:
            # without a text tower there is no common space; what it sees is for the linear probe
            return normalize(self._pooled(own).float(), dim=-1), None
        return normalize(_vector(self.model.get_image_features(pixel_values=own)), dim=-1), self._patches(framed)

    def _patches(self, pixel_values: Tensor) -> Tensor | None:
        """(B, P, D); None where no token has a way into the common space."""
        if hasattr(self.model, "get_patch_features"):
            return normalize(self.model.get_patch_features(pixel_values=pixel_values).float(), dim=-1)
        vision = self.model.vision_model
        is_clip = hasattr(self.model, "visual_projection") and hasattr(vision, "post_layernorm")
        if not (is_clip or hasattr(vision, "head")):
            return None
        tokens, _ = patch_tokens(vision, pixel_values)
        patches = self.model.visual_projection(tokens) if is_clip else pooled_alone(vision, tokens)
        return normalize(patches.float(), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        return normalize(_vector(features), dim=-1)

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """`last_hidden_state` (B, 1, width): the pooled feature before projection, which the linear probe reads."""
        return BaseModelOutputWithPooling(last_hidden_state=cast(Any, self._pooled(pixel_values[:, :3])[:, None]))

    def _pooled(self, pixel_values: Tensor) -> Tensor:
        vision = getattr(self.model, "vision_model", self.model)
        output = vision(pixel_values=pixel_values)
        pooled = getattr(output, "pooler_output", None)
        pooled = output.last_hidden_state.mean(dim=1) if pooled is None else pooled
        return cast(Tensor, pooled.flatten(1))


class PeerProcessor:
    """Image processor and tokenizer of a peer, called as EGMA's processor is.

    Args:
        length: tokens of a sentence, at most.
        kind: type of the peer's model.

    With a tokenizer images come twice, in 6 channels: as the model's own processor makes them, which may cut or
    squeeze, and padded to a square before and not cut, the frame that maps are taken back from.
    """

    def __init__(self, image_processor: Any, tokenizer: Any | None, length: int, kind: str, name: str) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.length, self.is_filled, self.is_square, self.name = length, kind in FILLED, kind in SQUARES, name

    def __call__(
        self, images: Sequence[Any] | None = None, text: Sequence[str] | None = None, return_tensors: str = "pt"
    ) -> Mapping[str, Tensor]:
        if images is not None:
            padded = [ImageOps.pad(image, (max(image.size),) * 2) for image in images]
            own = self._pixels(padded if self.is_square else images)
            views = [own] if self.tokenizer is None else [own, self._pixels(padded, is_whole=True)]
            return {"pixel_values": torch.cat(views, dim=1)}
        if self.tokenizer is None:
            raise UserError(f"{self.name} has no text tower; of the tasks it can only take linear_probe")
        assert text is not None
        tokens = dict(
            self.tokenizer(
                list(text),
                padding="max_length" if self.is_filled else "longest",
                truncation=True,
                max_length=self.length,
                return_attention_mask=True,
                return_token_type_ids=False,
                return_tensors=return_tensors,
            )
        )
        if self.is_filled:
            # a mask of ones hides nothing, which is how a model was trained that had none
            tokens["attention_mask"] = torch.ones_like(tokens["input_ids"])
        return tokens

    def _pixels(self, images: Sequence[Any], is_whole: bool = False) -> Tensor:
        changes: dict[str, Any] = {}
        if is_whole and getattr(self.image_processor, "do_center_crop", False):
            size = {side: self.image_processor.crop_size[side] for side in ("height", "width")}
            changes = {"do_center_crop": False, "do_resize": True, "size": size}
        return cast(Tensor, self.image_processor(images=list(images), return_tensors="pt", **changes)["pixel_values"])


def load_peer(name: str) -> tuple[Peer, PeerProcessor]:
    """A Hub id or a folder, computing in float32; safetensors only, no code of the repository is run.

    Raises:
        UserError: it cannot be loaded whole, is of a kind whose input is not known here, or gives an image or a
            sentence another embedding when others stand beside it.
    """
    require_model(name)
    try:
        model = _load(name)
        peer, kind = Peer(model).eval(), model.config.model_type
        _check_kind(name, kind, peer.has_text)
        image_processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False) if peer.has_text else None
        length = 0 if tokenizer is None else text_positions(model.text_model) or 0
        if tokenizer is not None and kind not in FILLED:
            length = min(length or tokenizer.model_max_length, tokenizer.model_max_length)
        processor = PeerProcessor(image_processor, tokenizer, length, kind, name)
        _check_alone(peer, processor)
    except UserError:
        raise
    except (*LOADING_ERRORS, IndexError, ImportError) as error:
        reason = reason_of(error)
        raise UserError(f"{name}: no model of CLIP's or SigLIP's kind can be loaded from it ({reason})") from error
    return peer, processor


def _load(name: str) -> Any:
    settings: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
    model, loading = AutoModel.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True, **settings)
    faults = encoder_faults(model, loading)
    poolers = [key for key in loading["missing_keys"] if "pooler." in key]
    if poolers and hasattr(model, "get_text_features"):
        faults = faults or f"they lack {poolers[0]}"
    if faults:
        raise ValueError(f"the weights do not fill it: {faults}")
    # a pooler that nobody trained is left out, and the mean token taken
    return AutoModel.from_pretrained(name, add_pooling_layer=False, **settings) if poolers else model


def _check_kind(name: str, kind: str, has_text: bool) -> None:
    if kind in NAFLEX:
        raise UserError(f"{name}: a NaFlex model, whose images have sizes of their own; expected one of a fixed size")
    if has_text and kind not in (*MASKED, *FILLED):
        known = ", ".join((*MASKED, *FILLED))
        raise UserError(f"{name}: how a model of type '{kind}' was trained to read is not known here; expected {known}")


def _check_alone(peer: Peer, processor: PeerProcessor) -> None:
    """An embedding is of its image or sentence, not of what stands beside it, and the same every time."""
    pictures = [Image.fromarray(np.tri(side, dtype=np.uint8) * 255).convert("RGB") for side in TRIED_SIDES]

    def images(of: Sequence[Any]) -> Tensor:
        return peer.encode_images(processor(images=of)["pixel_values"])[0]

    def texts(of: Sequence[str]) -> Tensor:
        tokens = processor(text=of)
        return peer.encode_text(tokens["input_ids"], tokens["attention_mask"])

    tried: list[tuple[str, Any, Sequence[Any]]] = [("image", images, pictures)]
    tried += [("sentence", texts, TRIED_TEXTS)] if peer.has_text else []
    with inference(peer):
        for what, encode, items in tried:
            alone, beside = encode(items[:1])[0], encode(items)[0]
            # NaN is named later, with its image or text
            if not torch.allclose(alone, beside, rtol=0, atol=SAME, equal_nan=True):
                raise UserError(f"{processor.name}: one {what} has two embeddings, alone and with another beside it")


def _vector(output: Any) -> Tensor:
    vector = output if isinstance(output, Tensor) else output.pooler_output
    if vector is None or vector.ndim != 2:
        raise ValueError("it gives no single vector an image or a sentence")
    return cast(Tensor, vector.float())
