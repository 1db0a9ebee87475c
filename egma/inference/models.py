"""Any EGMA model by its name, whole and fitting its processor, or a sentence on why it cannot be had."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor
from transformers.utils import CONFIG_NAME

from dataset_scripts.schema import UserError
from modeling_egma import EgmaModel
from modeling_egma.towers_egma import check_patches, loading_faults

# what transformers raises over a folder that is not as it should be
LOADING_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(SafetensorError, StrictDataclassError),
)


def load_model(name: str | Path) -> tuple[Any, Any]:
    """The model, on a GPU if there is one, and its processor, as `load_whole_model` gives them."""
    model: Any
    model, processor = load_whole_model(name)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor


def load_whole_model(
    name: str | Path,
    changes: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> tuple[EgmaModel, Any]:
    """An `EgmaModel` with all of its weights, in evaluation mode on the CPU, and the processor that fits it.

    Args:
        name: a folder or a Hub id.
        changes: fields of its `EgmaConfig` that shall be others.
        max_length: tokens of a sentence, where they shall be fewer than the processor keeps.
        dtype: of the weights, `"auto"` as they were stored; small updates vanish in the few bits of half precision.

    Raises:
        UserError: nothing to load, another kind of model, an adapter, weights that do not fill it, or a processor of
            another model.
    """
    name = str(name)
    require_model(name)
    if (Path(name) / "adapter_config.json").is_file():
        raise _adapter(name)
    try:
        config = AutoConfig.from_pretrained(name)
        _check_kind(name, config)
        if changes:
            config = type(config).from_dict(config.to_dict() | dict(changes))
        model, loading = EgmaModel.from_pretrained(
            name, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
        processor = AutoProcessor.from_pretrained(name)
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise UserError(f"{name}: no EGMA model can be loaded from it ({reason_of(error)})") from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise _adapter(name)
    if faults := loading_faults(loading):
        raise UserError(f"{name}: the weights do not fill an EGMA model: {faults}")
    try:
        check_patches(model)
        processor = processor.fit(config, max_length)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{name}: {reason_of(error)}") from error
    _check_grey_values(name, processor)
    return model, processor


def require_findable(name: str) -> None:
    """Raise UserError for a name that means a folder, where there is none: the Hub is not asked for `runs/typo`."""
    folder = Path(name)
    no_id = name.startswith((".", "/", "~")) or name.count("/") > 1
    if folder.is_dir() or (not no_id and _is_cached(name)):
        return
    if no_id or ("/" in name and folder.parent.is_dir()):
        hint = ", or an id on the Hub, OWNER/NAME" if no_id else f", or one that `hf download {name}` has fetched"
        raise UserError(f"{name}: no such folder; expected one with a model{hint}")


def _is_cached(name: str) -> bool:
    with suppress(ValueError):  # no id at all
        return isinstance(try_to_load_from_cache(name, CONFIG_NAME), str)
    return False


def require_model(name: str) -> None:
    """Nothing is loaded yet; the Hub is asked once, where the loaders would try for half a minute.

    Raises:
        UserError: neither a folder, nor a model on the Hub or in its cache.
    """
    require_findable(name)
    if Path(name).is_dir() or _is_cached(name):
        return
    if name.count("/") != 1:
        raise UserError(f"{name}: no such folder; expected one with a model, or an id on the Hub, OWNER/NAME")
    try:
        get_hf_file_metadata(hf_hub_url(name, CONFIG_NAME))
    except Exception as error:  # the HTTP library below the Hub's has exceptions of its own
        raise UserError(f"{name}: no such folder, and no such model on the Hub ({reason_of(error)})") from error


def _check_grey_values(name: str, processor: Any) -> None:
    """A picture goes through the image processor as its file sets it, and comes out as numbers."""
    try:
        with np.errstate(all="ignore"):
            pixels = processor(images=[Image.new("L", (8, 8), 128)])["pixel_values"]
    except LOADING_ERRORS as error:
        raise UserError(f"{name}: its image processor takes no picture: {reason_of(error)}") from error
    if not bool(torch.as_tensor(pixels).isfinite().all()):
        raise UserError(f"{name}: its image processor makes no numbers of a picture; expected an image_std above 0")


def _check_kind(name: str, config: Any) -> None:
    if config.model_type != "egma":
        raise UserError(f"{name}: a model of type '{config.model_type}'; expected an EGMA model")
    kinds = config.architectures or [EgmaModel.__name__]
    if EgmaModel.__name__ not in kinds:
        raise UserError(f"{name}: holds an {', '.join(kinds)}; expected a whole EgmaModel, images and text")


def _adapter(name: str) -> UserError:
    return UserError(
        f"{name}: an adapter, which is no model without its base; expected a whole EgmaModel: load base and adapter, "
        "`merge_and_unload()` them, and save that"
    )


def reason_of(error: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
