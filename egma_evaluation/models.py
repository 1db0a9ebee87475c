"""Any EGMA model by its name, or a sentence on why it cannot be had."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.schema import UserError


def load_model(name: str) -> tuple[Any, Any]:
    """The model, on a GPU if there is one, and its processor.

    Raises:
        UserError: nothing to load, another kind of model, or weights that do not fill it.
    """
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):  # no id on the Hub
        raise UserError(f"{name}: no such folder; expected one with an EGMA model")
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "egma":
            raise UserError(f"{name}: a model of type '{config.model_type}'; expected an EGMA model")
        model, loading = AutoModel.from_pretrained(name, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        source = "it" if Path(name).is_dir() else "the Hub, and no such folder is here"
        raise UserError(f"{name}: no EGMA model can be loaded from {source} ({reason})") from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UserError(
            f"{name}: the weights lack {len(loading['missing_keys'])} tensors of the model, such as {missing}"
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor
