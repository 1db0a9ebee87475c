"""Encoders of other people: built, loaded with nothing left to chance, and what they can take."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.siglip import SiglipTextConfig, SiglipTextModel, SiglipVisionConfig

from .configuration_egma import cells_along

# the only half of CLIP's and SigLIP's that AutoModel does not build by itself
AutoModel.register(SiglipTextConfig, SiglipTextModel, exist_ok=True)

SHOWN_NAMES = 3
# what a model computes itself, and what only stands in for masked input
NOT_WEIGHTS = r"(.*\.)?(position_ids|token_type_ids|relative_position_index|inv_freq|num_batches_tracked|mask_token)"
UNUSED_POOLER = r"(.*\.)?pooler\..*"
FINAL_NORM = r"(layer)?norm\..*"
# where the final layer norm of the backbones lies whose last_hidden_state comes before it
FINAL_NORMS = {
    **dict.fromkeys(
        (f"{kin}_vision_model" for kin in ("altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "mlcd")),
        "post_layernorm",
    ),
    **dict.fromkeys(("convnext", "convnextv2"), "layernorm"),
    **dict.fromkeys(("beit", "data2vec-vision"), "pooler.layernorm"),
}
# of the others that have one
OWN_NORMS = ("layernorm", "norm", "post_layernorm")
# of a ResNet or PVT, which take pictures of any size: what they were trained with, and the stride of their first stage
SUPPLIED = {"image_size": 224, "patch_size": 4}
ATTENTION_ROWS = 65_535  # that a GPU's attention kernel takes at a time
WHOLE = ("clip", "siglip", "siglip2")
HALVES = {"vision": "vision_config", "text": "text_config"}
POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


def tower_from_config(config: PreTrainedConfig) -> PreTrainedModel:
    # both towers and the projections share one dtype, whatever the towers' checkpoints were saved in
    return AutoModel.from_config(config, dtype=torch.get_default_dtype(), **_without_pooler(config))


def tower_config(model_id: str, half: str) -> PreTrainedConfig:
    """Configuration of an encoder, or of the encoder that is the `"vision"` or `"text"` half of a whole model."""
    config = AutoConfig.from_pretrained(model_id)
    config = half_config(config, half) if _is_whole(config) else config
    for name, length in SUPPLIED.items() if half == "vision" else ():
        if getattr(config, name, None) is None:
            setattr(config, name, length)
    return config


def tower_from_pretrained(model_id: str, config: PreTrainedConfig, half: str, stages: int | None = None) -> Any:
    """An encoder with its own weights, every one of them.

    Args:
        config: as `tower_config` gives it of the `half`.
        stages: the first ones that are kept of a hierarchical encoder; None: all.

    Raises:
        ValueError: the checkpoint does not fill the encoder, or has more layers than it.
    """
    if _is_whole(AutoConfig.from_pretrained(model_id)):
        tower = tower_from_config(config)
        missing, unexpected = tower.load_state_dict(half_weights(_whole(model_id), half), strict=False)
        info = {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": ()}
    else:
        tower, info = _loaded(model_id, config=config, **_without_pooler(config))
    if faults := encoder_faults(tower, info, stages):
        raise ValueError(f"{model_id}: the weights do not fill a '{config.model_type}' encoder: {faults}")
    return tower


def whole_parts(model_id: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """A whole model of the types `WHOLE`: fields of the `EgmaConfig` that scores as it does, and weights by part.

    Raises:
        ValueError: another kind of model, or a checkpoint that does not fill it.
    """
    kind = AutoConfig.from_pretrained(model_id).model_type
    if kind not in WHOLE:
        raise ValueError(f"{model_id}: a '{kind}'; expected a whole model of type {', '.join(WHOLE)}")
    source = _whole(model_id)
    vision, text = (half_config(source.config, half) for half in HALVES)
    parts = {f"{half}_model": half_weights(source, half) for half in HALVES}
    for name in ("visual_projection", "text_projection") if hasattr(source, "visual_projection") else ():
        parts[name] = getattr(source, name).state_dict()
    fields = {
        "vision_config": vision,
        "text_config": text,
        "projection_dim": source.visual_projection.out_features if kind == "clip" else width(vision),
        "pooling": "tower",
        "logit_scale_init_value": float(source.logit_scale),
        "logit_bias": float(getattr(source, "logit_bias", 0)),
    }
    return fields, parts


def half_config(config: PreTrainedConfig, half: str) -> PreTrainedConfig:
    """Configuration of one encoder of a whole model; a NaFlex SigLIP 2 becomes the SigLIP of its own square."""
    own: PreTrainedConfig = getattr(config, HALVES[half])
    fields = own.to_dict()
    fields.pop("model_type")
    if own.model_type == "siglip2_vision_model":
        return SiglipVisionConfig(**fields, image_size=math.isqrt(own.num_patches) * own.patch_size)
    return SiglipTextConfig(**fields) if own.model_type == "siglip2_text_model" else own


def half_weights(whole: Any, half: str) -> dict[str, Tensor]:
    """Weights of one encoder of a whole model, for the configuration that `half_config` gives."""
    weights: dict[str, Tensor] = getattr(whole, f"{half}_model").state_dict()
    patches = weights.get("embeddings.patch_embedding.weight")
    if patches is not None and patches.ndim == 2:  # NaFlex: of pixels in the order row, column, channel
        side = whole.config.vision_config.patch_size
        weights["embeddings.patch_embedding.weight"] = patches.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)
    return weights


def encoder_faults(tower: PreTrainedModel, info: Mapping[str, Any], stages: int | None = None) -> str:
    """`loading_faults` without what an encoder may lack (a pooler) and its checkpoint may hold (heads over it)."""
    own = {name.partition(".")[0] for name in tower.state_dict()}

    def is_expected(kind: str, name: str) -> bool:
        if kind == "unexpected_keys" and name.partition(".")[0] not in own:
            return True
        if stages is not None and _is_after(name, stages):
            return True
        is_unused = bool(re.fullmatch(UNUSED_POOLER, name)) and not _normalises_in_pooler(tower.config)
        return is_unused or (stages is not None and bool(re.fullmatch(FINAL_NORM, name)))

    return loading_faults(info, is_expected)


def loading_faults(info: Mapping[str, Any], is_expected: Callable[[str, str], bool] = lambda kind, name: False) -> str:
    """What is wrong with a load, in words; empty when every weight is there and none is left over.

    Args:
        info: as `from_pretrained(..., output_loading_info=True, ignore_mismatched_sizes=True)` gives it.
        is_expected: whether a name may be among those of a kind (`missing_keys`, `unexpected_keys`).
    """
    said = []
    for kind, verb in (("missing_keys", "lack"), ("unexpected_keys", "hold unknown"), ("mismatched_keys", "misshape")):
        keys = {key if isinstance(key, str) else key[0]: key for key in info[kind]}
        names = [name for name in sorted(keys) if not re.fullmatch(NOT_WEIGHTS, name) and not is_expected(kind, name)]
        if names:
            shown = [name if keys[name] == name else _misshapen(*keys[name]) for name in names[:SHOWN_NAMES]]
            said.append(f"they {verb} {len(names)} tensors, such as {', '.join(shown)}")
    return "; ".join(said)


def width(config: PreTrainedConfig) -> int:
    """Width of an encoder's tokens.

    Raises:
        ValueError: the configuration is of no single encoder.
    """
    sizes = getattr(config, "hidden_sizes", None)
    found = sizes[-1] if sizes else getattr(config, "hidden_size", None)
    if found is None:
        raise ValueError(f"a '{config.model_type}' states no hidden_size; expected an encoder of images or text alone")
    return int(found)


def text_positions(tower: nn.Module) -> int | None:
    """Tokens that a text encoder has places for, special ones included; None: it states no limit.

    RoBERTa and its kin start counting after the padding token's id.
    """
    limits = [getattr(tower.config, "max_position_embeddings", None)]
    for name, module in tower.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(module, nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - before)
    known = [limit for limit in limits if limit is not None and limit > 0]
    return min(known) if known else None


def text_positions_of(config: PreTrainedConfig) -> int | None:
    """`text_positions` of the encoder that `config` describes, which is not given any memory."""
    with torch.device("meta"):
        return text_positions(tower_from_config(config))


def takes_token_types(tower: nn.Module) -> bool:
    """Whether a text encoder can be told of several kinds of tokens."""
    return "token_type_ids" in inspect.signature(tower.forward).parameters


def check_length(input_ids: Tensor, positions: int | None) -> None:
    """Raise ValueError for sentences that the text encoder has no places for."""
    if positions is not None and input_ids.shape[-1] > positions:
        raise ValueError(
            f"a sentence of {input_ids.shape[-1]} tokens; the text encoder has {positions} positions: cut it, as "
            "EgmaProcessor does, or call the tokenizer with truncation=True"
        )


@torch.no_grad()
def check_patches(model: Any) -> None:
    """The vision encoder gives `grid_size ** 2` tokens of a picture as the processor makes it, twice the same.

    Raises:
        ValueError: it refuses such a picture (channels, size), gives other tokens, or draws at random (masking).
    """
    config, was_training = model.config, model.training
    side, kind = config.image_side, config.vision_config.model_type
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(model.device)
    what = f"a picture of 3 channels and {side} x {side} px"
    model.eval()
    try:
        first, second = (model.get_image_features(picture).last_hidden_state for _ in range(2))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the vision encoder ('{kind}') does not take {what}: {reason}") from error
    finally:
        model.train(was_training)
    if first.shape[1] != config.grid_size**2:
        raise ValueError(
            f"the vision encoder ('{kind}') gives {first.shape[1]} tokens for {what}, expected {config.grid_size**2}: "
            f"a grid of {config.grid_size} x {config.grid_size} patches"
        )
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(f"the vision encoder ('{kind}') gives other tokens at the second look at {what}")


def final_norm(tower: PreTrainedModel) -> nn.Module | None:
    """The layer norm that an encoder's last_hidden_state still lacks; None: it has been through its own.

    A BEiT normalises either in its encoder or in its pooler.
    """
    place = FINAL_NORMS.get(tower.config.model_type)
    return None if place is None else attrgetter(place)(tower)


def patch_tokens(
    vision_model: PreTrainedModel, pixel_values: Tensor, layers: Sequence[int] | None = None, **kwargs: Any
) -> tuple[Tensor, Any]:
    """Patch tokens (B, P, width) after the backbone's final layer norm, without class and register tokens.

    Position embeddings are interpolated for frames of another size than the backbone's own.

    Args:
        layers: 1-based ones whose tokens are added to the last one's, each after the final norm: their mean.

    Raises:
        ValueError: a layer has other tokens than the last one, or the backbone has no final norm.
    """
    config, name = vision_model.config, "interpolate_pos_encoding"
    is_own = config.image_size in (pixel_values.shape[-1], [*pixel_values.shape[-2:]], (*pixel_values.shape[-2:],))
    if not is_own:
        _reset_windows(vision_model)
        kwargs |= {name: True} if name in inspect.signature(vision_model.forward).parameters else {}
    asked = kwargs.get("output_hidden_states", config.output_hidden_states)
    kwargs |= {"return_dict": True} | ({"output_hidden_states": True} if layers else {})
    output = vision_model(pixel_values.to(vision_model.dtype), **kwargs)
    if not is_own:
        _reset_windows(vision_model)
    is_map = output.last_hidden_state.ndim == 4
    tokens = output.last_hidden_state.flatten(2).mT if is_map else output.last_hidden_state
    norm = final_norm(vision_model)
    tokens = tokens if norm is None else norm(tokens)
    if layers:
        tokens = _with_layers(vision_model, tokens, [output.hidden_states[layer] for layer in layers])
        output.hidden_states = selected_states(output.hidden_states, asked)
    if not is_map:
        cells = cells_along(config, pixel_values.shape[-2]) * cells_along(config, pixel_values.shape[-1])
        tokens = tokens[:, tokens.shape[1] - cells :]
    return tokens, output


def _with_layers(vision_model: PreTrainedModel, tokens: Tensor, states: list[Tensor]) -> Tensor:
    own = [getattr(vision_model, name) for name in OWN_NORMS if hasattr(vision_model, name)]
    norm, kind = final_norm(vision_model) or next(iter(own), None), vision_model.config.model_type
    if norm is None or any(state.shape != tokens.shape for state in states):
        shapes = {tuple(state.shape[1:]) for state in states}
        raise ValueError(
            f"hidden_layers of a '{kind}': tokens of {', '.join(map(str, shapes))}, expected {tuple(tokens.shape[1:])} "
            "as of the last layer, and a final norm for them"
        )
    return torch.stack([*map(norm, states), tokens]).mean(dim=0)


def pooled_alone(vision_model: Any, tokens: Tensor) -> Tensor:
    """Patch tokens (B, P, width) -> each as the encoder's own pooling makes it of that patch alone.

    CLIP's stay what they are, as the class token does; SigLIP's go through value and output projections of its
    attention pool and what follows (Zhou, Loy & Dai, "Extract Free Dense Labels from CLIP", ECCV 2022).
    """
    if not hasattr(vision_model, "head"):
        return tokens
    rows = tokens.flatten(0, 1)[:, None].split(ATTENTION_ROWS)
    return torch.cat([vision_model.head(some) for some in rows]).unflatten(0, tokens.shape[:2])


def projection(config: Any, tower: PreTrainedConfig) -> nn.Module:
    """From an encoder's width into the common space, where SigLIP's own pooling is already."""
    if config.pooling == "tower" and tower.model_type.startswith("siglip"):
        return nn.Identity()
    return nn.Linear(width(tower), config.projection_dim, bias=False)


def filled(config: PreTrainedConfig, input_ids: Tensor, mask: Tensor, positions: int | None) -> tuple[Tensor, Tensor]:
    """A SigLIP reads every sentence filled up to all of its positions, without a mask; others take it as it is."""
    if not config.model_type.startswith("siglip") or positions is None:
        return input_ids, mask
    ids = nn.functional.pad(
        input_ids.masked_fill(mask == 0, config.pad_token_id),
        (0, positions - input_ids.shape[-1]),
        value=config.pad_token_id,
    )
    return ids, torch.ones_like(ids)


def sized_frames(config: Any, frames: Tensor, side: int) -> Tensor:
    """Frames (B, C, H, W) at `side` x `side` px.

    Raises:
        ValueError: `side` is no multiple of what one of the model's patches spans.
    """
    span = config.image_side // config.grid_size
    if side < span or side % span:
        raise ValueError(f"image_size is {side}, expected a multiple of {span}: what a patch of the model spans")
    return nn.functional.interpolate(frames.float(), (side, side), mode="bilinear", antialias=True)


def selected_states(
    states: tuple[Tensor, ...], asked: bool | int | list[int] | None
) -> tuple[Tensor | None, ...] | None:
    """What `output_hidden_states` asks for: all, none, or those of its numbers, with None for the others."""
    if asked is None or isinstance(asked, bool):
        return states if asked else None
    kept = [number % len(states) for number in ([asked] if isinstance(asked, int) else asked)]
    return tuple(state if number in kept else None for number, state in enumerate(states))


def entry_modules(tower: nn.Module) -> list[nn.Module]:
    """The modules through which an encoder's input enters: token embeddings, or the patch convolution."""
    kinds = (nn.Embedding, nn.Conv2d)
    return [next(module for module in tower.modules() if isinstance(module, kinds))]


def _reset_windows(vision_model: Any) -> None:
    """A Swin keeps the windows of the smallest frame that it has seen: back to those of its configuration."""
    for blocks in (module for module in vision_model.modules() if isinstance(module, nn.ModuleList)):
        for place, block in enumerate(cast(Any, blocks)):
            if hasattr(block, "set_shift_and_window_size"):
                block.window_size = vision_model.config.window_size
                block.shift_size = place % 2 * (block.window_size // 2)


def _is_whole(config: PreTrainedConfig) -> bool:
    return all(isinstance(getattr(config, name, None), PreTrainedConfig) for name in HALVES.values())


def _whole(model_id: str) -> Any:
    model, info = _loaded(model_id)
    if faults := encoder_faults(model, info):
        raise ValueError(f"{model_id}: the weights do not fill a '{model.config.model_type}': {faults}")
    return model


def _loaded(model_id: str, **settings: Any) -> Any:
    # misshapen tensors are named; an earlier stage has a layer norm of its own
    settings |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    return AutoModel.from_pretrained(model_id, dtype=torch.get_default_dtype(), **settings)


def _misshapen(name: str, there: Any, here: Any) -> str:
    return f"{name} of {tuple(there)}, expected {tuple(here)}"


def _is_after(name: str, stages: int) -> bool:
    """Whether a tensor belongs to a stage after the first `stages`, or leads there."""
    match = re.search(r"\b(?:layers|stages|block)\.(\d+)\.", name)
    if match is None:
        return False
    return int(match[1]) >= stages or (int(match[1]) == stages - 1 and ".downsample." in name)


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    if type(config) not in AutoModel._model_mapping:
        raise ValueError(f"a '{config.model_type}' is no encoder by itself; expected one that AutoModel knows")
    parameters = inspect.signature(cast(type, AutoModel._model_mapping[type(config)])).parameters
    return {"add_pooling_layer": _normalises_in_pooler(config)} if "add_pooling_layer" in parameters else {}


def _normalises_in_pooler(config: PreTrainedConfig) -> bool:
    return FINAL_NORMS.get(config.model_type, "").startswith("pooler")
