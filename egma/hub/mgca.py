"""The authors' names of MGCA's tensors (ViT-B/16) by those of `egma.inference.mgca`, and how it sees and reads."""

import re
from typing import Any

import torch
from tokenizers import Regex, normalizers
from torch import Tensor
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast
from transformers.image_utils import PILImageResampling

from dataset_scripts.schema import UserError
from egma.inference.mgca import MgcaModel

SIGN, RESNET = "img_encoder_q.", "img_encoder_q.model.conv1.weight"
MAX_LENGTH = 112
RENAMED = (
    (r"^(img|text)_encoder_q\.(global|local)_embed\.head\.", r"heads.\1_\2."),
    (r"^text_encoder_q\.model\.", "text_model."), (r"^img_encoder_q\.model\.", "vision_model."),
    (r"^vision_model\.(cls_token|pos_embed|patch_embed)", r"vision_model.embeddings.\1"),
    (r"\.pos_embed$", ".position_embeddings"), (r"\.patch_embed\.proj\.", ".patch_embeddings.projection."),
    (r"^vision_model\.norm\.", "vision_model.layernorm."), (r"^vision_model\.blocks\.", "vision_model.encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.qkv\.", ".attention.attention.{}."), (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."),
)  # fmt: skip
# their sentences: numbers of a list away, lower case, words of letters, digits and underscores, ASCII alone
READ = (
    *(normalizers.Replace(Regex(r"[0-9]+\."), " "), normalizers.Lowercase()),
    *(normalizers.Replace(Regex(r"\W+"), " "), normalizers.Replace(Regex(r"[^\x00-\x7F]"), "")),
)


def renamed(name: str, value: Tensor) -> dict[str, Tensor]:
    """One of the authors' tensors by our names; none for a name that is not known."""
    target = name
    for pattern, replacement in RENAMED:
        target = re.sub(pattern, replacement, target)
    if "{}" in target:
        parts = torch.atleast_1d(value).tensor_split(3)
        return {target.format(kind): part for kind, part in zip(("query", "key", "value"), parts, strict=True)}
    found = {} if target == name else {target: value.squeeze(-1) if target.startswith("heads.") else value}
    if target.endswith(".word_embeddings.weight"):
        # kinds of tokens, which their BERT does without, and what `preparation` fills
        found |= {target.replace("word_", "token_type_"): torch.zeros_like(value[:1])}
        found["continues"] = torch.zeros(len(value), dtype=torch.bool)
    return found


def preparation(model: MgcaModel, tokenizer: Any, resample: PILImageResampling) -> list[Any]:
    """Theirs of evaluation; the model is told which tokens go on with a word.

    Image processor: the middle 224 of 256 pixels of a square, which `egma.inference.peers` makes, from -1 to 1.
    Tokenizer: `READ`, then at most 112 tokens.

    Raises:
        UserError: a tokenizer of another kind or of another vocabulary.
    """
    goes_on = [token.startswith("##") for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    if not tokenizer.is_fast or not any(goes_on) or len(goes_on) > len(model.continues):
        raise UserError(
            f"{tokenizer.name_or_path}: a tokenizer of {len(goes_on)} entries, {sum(goes_on)} of them with ##; "
            f"expected a fast WordPiece tokenizer of the {len(model.continues)} that the text encoder knows"
        )
    model.continues[: len(goes_on)] = torch.tensor(goes_on)
    reader, names = tokenizer.backend_tokenizer, tokenizer.special_tokens_map
    reader.normalizer = normalizers.Sequence([*READ, *filter(None, [reader.normalizer])])
    words = PreTrainedTokenizerFast(tokenizer_object=reader, model_max_length=MAX_LENGTH, **names)
    side = model.config.vision_config.image_size
    grey: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": resample}
    return [CLIPImageProcessorPil(size={"shortest_edge": side * 8 // 7}, crop_size=side, **grey), words]
