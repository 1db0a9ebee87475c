"""Low-rank adapters of the encoders in a run, and their place in a finished model: its own weights.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022 (arXiv 2106.09685).
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from dataset_scripts.schema import UserError
from egma.training.frozen import blocks_of
from modeling_egma import EgmaModel

# peft's names of what it puts beside a layer, and of that layer
FIRST, SECOND, LAYER = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def add_adapters(model: EgmaModel, rank: int | None) -> list[str]:
    """Freeze both encoders, and let every linear layer of their blocks learn an update `B A` of `rank` (None: neither).

    `B` starts at 0 and the update is not scaled (alpha is the rank); the projections are trained as they are.

    Returns:
        A sentence on it.

    Raises:
        UserError: no peft here, or an encoder without linear layers in its blocks.
    """
    if rank is None:
        return []
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("lora_rank needs peft: pip install 'egma[lora]' brings it") from None
    count = 0
    for name, tower in (("vision", model.vision_model), ("text", model.text_model)):
        inside = {layer for block in blocks_of(tower) for layer in block.modules() if type(layer) is nn.Linear}
        paths = [path for path, layer in tower.named_modules() if layer in inside]
        if not paths:
            kind = tower.config.model_type
            raise UserError(f"lora_rank: the {name} encoder ('{kind}') has no linear layer in its blocks to adapt")
        pattern = "|".join(map(re.escape, paths))
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=pattern), tower)
        count += len(paths)
    return [f"adapters of rank {rank} beside {count} linear layers of the encoders are trained, which stay as they are"]


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model with adapters -> those of the same model without any: `W + B A`. Others stay as they are."""
    whole = {name: value for name, value in weights.items() if not name.endswith((FIRST, SECOND))}
    for name in weights:
        if name.endswith(SECOND):
            path = name.removesuffix(SECOND)
            whole[f"{path}{LAYER}weight"] = whole[f"{path}{LAYER}weight"] + weights[name] @ weights[path + FIRST]
    return {name.replace(LAYER, "."): value for name, value in whole.items()}
