"""Configuration of EGMA models."""

import copy
import difflib
import math
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import logging

logger = logging.get_logger(__name__)

# whose encoders have a pooling that was trained into a common space
POOLING_FAMILIES = ("clip", "siglip")
# written by transformers or the Hub, not by a person
FOREIGN_FIELDS = {
    "architectures",
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


@strict
class EgmaConfig(PreTrainedConfig):
    """Settings of an EGMA model: two encoders, the projection and the objective of `docs/method.md`.

    Args:
        vision_config: any transformers vision backbone with a token grid; Swin-Tiny when None.
        text_config: any BERT-like transformers text encoder; BERT-base when None.
        projection_dim: D, width of the shared embedding space.
        logit_scale_init_value: initial value of the learned logarithm of the logit scale.
        pooling: how tokens become one vector: `"mean"`, the paper's; `"tower"`, CLIP's or SigLIP's own, as they start.
        logit_bias: what is added to scores, which no term of the objective has (SigLIP).
        vision_stage: 1-based stage of a hierarchical backbone whose tokens are aligned; the last one when None.
        hidden_layers: 1-based layers of a plain ViT whose patch tokens are added to the last layer's, each after the
            final norm; the last layer alone when None.
        text_layers: how many of the last text layers are averaged (at most what there is), or which of the hidden
            states, the embeddings being 0 (MedCLIP: [1, 2, -1]).
        contrastive_weight, gaze_weight, mapping_weight: weights of the three terms of the objective.
        gaze_sentence_weight: share of sentence-to-patch in the gaze term; the rest is patch-to-sentence.
        gaze_label_threshold: a cell counts as looked at above this fraction of its map's maximum.
        mapping_threshold: min-max scaled similarities below it are suppressed in the cross mapping.
        interaction: how the contrastive term compares images and text: `"filip"`, with whole reports by late
            interaction, as the paper does; `"cabs"`, with sentences that weigh the patches which are pooled.
        gaze_target: what the gaze term wants: `"labels"`, the paper's; `"soft"`, the map itself as a distribution.
        mapping: `"within"` the report, the paper's; `"batch"`, gazed patches against all sentences of the batch.
        zero_shot_score: what `logits_per_image` holds, `"pooled"`, `"late_interaction"` or `"cabs"`.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value out of range or of the wrong type.
    """

    model_type = "egma"
    # what `Trainer` shall not gather as predictions
    keys_to_ignore_at_inference = ["loss_components", "vision_model_output", "text_model_output"]  # noqa: RUF012
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="swin"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }

    vision_config: PreTrainedConfig | dict | None = None  # type: ignore[type-arg]
    text_config: PreTrainedConfig | dict | None = None  # type: ignore[type-arg]
    projection_dim: int = 512
    logit_scale_init_value: float | int = math.log(1 / 0.07)
    pooling: Literal["mean", "tower"] = "mean"
    logit_bias: float | int = 0.0
    vision_stage: int | None = None
    hidden_layers: list[int] | None = None
    text_layers: int | list[int] = 4
    contrastive_weight: float | int = 1.0
    gaze_weight: float | int = 1.0
    mapping_weight: float | int = 1.0
    gaze_sentence_weight: float | int = 0.5
    gaze_label_threshold: float | int = 0.1
    mapping_threshold: float | int = 2 / 7
    interaction: Literal["filip", "cabs"] = "filip"
    gaze_target: Literal["labels", "soft"] = "labels"
    mapping: Literal["within", "batch"] = "within"
    zero_shot_score: Literal["pooled", "late_interaction", "cabs"] = "pooled"
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        _warn_of_unknown_fields(kwargs, known=self.__dataclass_fields__)
        if not __name__.startswith("transformers_modules."):
            # the pipeline of this package is registered; the one beside the weights is for those who lack it
            kwargs.pop("custom_pipelines", None)
        try:
            super().__post_init__(**kwargs)
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            # a tower's configuration trips over what it does not check
            raise ValueError(f"EgmaConfig: vision_config or text_config makes no encoder ({error!r})") from error
        for name, config in (("", self), ("vision_config.", self.vision_config), ("text_config.", self.text_config)):
            dtype = getattr(config, "dtype", None)
            known = dtype is None or isinstance(dtype, str | torch.dtype)
            _check(known, f"{name}dtype", dtype, "the name of a torch type")

    def validate_architecture(self) -> None:
        """Check the fields against each other; called at construction."""
        _check(self.projection_dim >= 1, "projection_dim", self.projection_dim, "a whole number >= 1")
        self._check_text_layers()
        self._check_hidden_layers()
        for name in ("contrastive_weight", "gaze_weight", "mapping_weight"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value >= 0, name, value, "a finite number >= 0")
        for name in ("gaze_sentence_weight", "gaze_label_threshold", "mapping_threshold"):
            _check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")
        for name in ("logit_scale_init_value", "logit_bias"):
            _check(math.isfinite(getattr(self, name)), name, getattr(self, name), "a finite number")
        if self.pooling == "tower":
            for half, tower in (("vision", self.vision_config), ("text", self.text_config)):
                kind = getattr(tower, "model_type", None)
                known = [f"{family}_{half}_model" for family in POOLING_FAMILIES]
                _check(kind in known, f"the {half}_config of pooling 'tower'", kind, " or ".join(known))
        if self.vision_stage is not None:
            stages = len(getattr(self.vision_config, "depths", ()))
            expected = f"a stage from 1 to {stages}" if stages else "None: this vision backbone has no stages"
            _check(1 <= self.vision_stage <= stages, "vision_stage", self.vision_stage, expected)

    def _check_text_layers(self) -> None:
        layers = self.text_layers
        if isinstance(layers, int):
            _check(layers >= 1, "text_layers", layers, "a whole number >= 1, or a list of hidden states")
            return
        count = int(getattr(self.text_config, "num_hidden_layers", 0))
        known = bool(layers) and all(-count - 1 <= layer <= count for layer in layers)
        _check(known, "text_layers", layers, f"a number of layers, or hidden states from {-count - 1} to {count}")

    def _check_hidden_layers(self) -> None:
        layers = self.hidden_layers
        if layers is None:
            return
        if hasattr(self.vision_config, "depths"):
            _check(False, "hidden_layers", layers, "None: the stages of this vision backbone have grids of their own")
        last = int(getattr(self.vision_config, "num_hidden_layers", 0))
        known = 0 < len(layers) == len(set(layers)) and all(1 <= layer < last for layer in layers)
        _check(known, "hidden_layers", layers, f"layers from 1 to {last - 1}, each once, below the last one")

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As in transformers; the folder of a whole model also configures one of its towers."""
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config.get("model_type") == EgmaConfig.model_type:
            config = config | {"model_type": cls.model_type}
        return config, kwargs

    @property
    def vision_tower_config(self) -> PreTrainedConfig:
        """Configuration of the vision tower as it is built: without the stages after `vision_stage`."""
        assert isinstance(self.vision_config, PreTrainedConfig)
        stages = self.vision_stage
        if stages is None or stages == len(self.vision_config.depths):
            return self.vision_config
        fields = copy.deepcopy(self.vision_config.to_dict())
        for name in ("hidden_size", "stage_names", "out_features", "out_indices", "num_layers"):
            fields.pop(name, None)
        for name in ("depths", "num_heads", "hidden_sizes", "layer_depths"):
            if isinstance(fields.get(name), list | tuple):
                fields[name] = list(fields[name])[:stages]
        fields.pop("model_type", None)
        tower = type(self.vision_config)(**fields)
        tower._attn_implementation = self.vision_config._attn_implementation
        return tower

    @property
    def image_side(self) -> int:
        """Side of the square frame in pixels: the vision backbone's own size."""
        return _side(self.vision_config, "image_size")

    @property
    def grid_size(self) -> int:
        """G, patches along each side of the square frame."""
        return cells_along(self.vision_tower_config, self.image_side)


@strict
class EgmaVisionConfig(EgmaConfig):
    """Settings of `EgmaVisionModel`: those of the whole model."""

    model_type = "egma_vision_model"


@strict
class EgmaTextConfig(EgmaConfig):
    """Settings of `EgmaTextModel`: those of the whole model."""

    model_type = "egma_text_model"


def cells_along(tower: PreTrainedConfig, side: int) -> int:
    """Patches of a vision backbone along a side of so many pixels."""
    cells = side // _side(tower, "patch_size")
    # every stage after the first halves the resolution
    for _ in range(len(getattr(tower, "depths", None) or [0]) - 1):
        cells = (cells + 1) // 2
    return cells


def _side(tower: Any, name: str) -> int:
    """A length of the vision backbone along both axes; ResNet and PVT state none (`towers_egma.tower_config`)."""
    size = getattr(tower, name, None)
    sides = {size} if isinstance(size, int) else set(size or ())
    known = len(sides) == 1 and all(isinstance(side, int) and side >= 1 for side in sides)
    _check(known, f"{name} of the vision backbone ('{tower.model_type}')", size, "a side in pixels, in its config.json")
    return int(sides.pop())


def _check(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise ValueError(f"EgmaConfig: {name} is {value!r}, expected {expected}")


def _warn_of_unknown_fields(given: dict[str, Any], known: dict[str, Any]) -> None:
    for name in given:
        if name.startswith("_") or name in FOREIGN_FIELDS or name in known:
            continue
        nearest = difflib.get_close_matches(
            name, [field for field in known if not field.startswith("_")], n=1, cutoff=0
        )
        logger.warning(f"EgmaConfig has no field '{name}'; did you mean '{nearest[0]}'?")
