"""EGMA models: two encoders, one embedding space, gaze-guided alignment of patches and sentences."""

import copy
import math
from dataclasses import dataclass
from inspect import Signature, signature
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_egma import EgmaConfig, EgmaTextConfig, EgmaVisionConfig
from .interaction_egma import ONE_PROCESS, OneProcess
from .labels_egma import check_gaze, checked_rows, classification_labels
from .losses_egma import MAX_LOGIT_SCALE, CappedScale, alignment_objective, similarity_maps
from .matching_egma import pooled_cosines
from .towers_egma import (
    check_length,
    check_patches,
    entry_modules,
    filled,
    patch_tokens,
    pooled_alone,
    projection,
    selected_states,
    sized_frames,
    takes_token_types,
    text_positions,
    tower_config,
    tower_from_config,
    tower_from_pretrained,
    whole_parts,
    width,
)


@dataclass
class EgmaOutput(ModelOutput):
    """Output of `EgmaModel`; B images, N sentences, P patches, D dimensions.

    Args:
        loss: scalar, when asked for.
        loss_components: those of `contrastive`, `gaze` and `mapping` whose weight is not 0, each an unweighted scalar;
            with the loss.
        logits_per_image: (B, N) score of every image with every sentence (`config.zero_shot_score`), scaled.
        logits_per_text: (N, B), its transpose.
        image_embeds: (B, D), L2-normalised projection of the mean patch token.
        text_embeds: (N, D), L2-normalised.
        patch_embeds: (B, P, D), L2-normalised, row by row from the top left.
        vision_model_output, text_model_output: what `get_image_features` and `get_text_features` give.
    """

    loss: Tensor | None = None
    loss_components: dict[str, Tensor] | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    patch_embeds: Tensor | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None
    text_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


class EgmaPreTrainedModel(PreTrainedModel):
    """Weight initialisation and capabilities shared by all EGMA models."""

    config_class = EgmaConfig
    base_model_prefix = "egma"
    main_input_name = "pixel_values"
    input_modalities: str | tuple[str, ...] = ("image", "text")  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, from safetensors alone: a pickle beside them, or in their place, is not read.

        Raises:
            OSError: there is no safetensors file.
            ValueError: `use_safetensors=False`.
        """
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError("EGMA models are read from safetensors only; a pickle can run code")
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        logit_scale = getattr(module, "logit_scale", None)
        if isinstance(logit_scale, nn.Parameter):
            init.constant_(logit_scale, float(self.config.logit_scale_init_value))

    def enable_input_require_grads(self) -> None:
        """Make the encoders' inputs carry gradients, for adapters on frozen, checkpointed encoders."""
        hook = _require_output_grads
        towers = [getattr(self, name) for name in ("vision_model", "text_model") if hasattr(self, name)]
        entries = [module for tower in towers for module in entry_modules(tower)]
        self._require_grads_hooks = [module.register_forward_hook(hook) for module in entries]
        self._require_grads_hook = self._require_grads_hooks[0]


class EgmaModel(EgmaPreTrainedModel):
    """Image and text encoder in one embedding space, with the EGMA objective (METHOD "Encoders", "EGF", "EGM")."""

    def __init__(self, config: EgmaConfig) -> None:
        super().__init__(config)
        vision_config, text_config = config.vision_tower_config, config.text_config
        assert isinstance(text_config, PreTrainedConfig)
        self.vision_model = tower_from_config(vision_config)
        self.text_model = tower_from_config(text_config)
        self.text_positions = text_positions(self.text_model)
        self.takes_token_types = takes_token_types(self.text_model)
        self.visual_projection = projection(config, vision_config)
        self.text_projection = projection(config, text_config)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    @classmethod
    def from_vision_text_pretrained(cls, vision_id: str, text_id: str, **config: Any) -> Self:
        """Start from two pretrained encoders, each a Hub id or a local folder with safetensors weights.

        Of a whole model (CLIP, SigLIP) its encoder of images or of text is taken.

        As after `from_pretrained`, the model is in evaluation mode; its weights are in torch's default dtype.

        Args:
            config: fields of `EgmaConfig`.

        Raises:
            ValueError: weights that do not fill their encoder, or a vision encoder without a grid of patches.
        """
        vision_config, text_config = tower_config(vision_id, "vision"), tower_config(text_id, "text")
        egma_config = EgmaConfig(vision_config=vision_config, text_config=text_config, **config)
        model, stages = cls(egma_config), egma_config.vision_stage
        model.vision_model = tower_from_pretrained(vision_id, egma_config.vision_tower_config, "vision", stages)
        model.text_model = tower_from_pretrained(text_id, text_config, "text")
        check_patches(model)
        return model.eval()

    @classmethod
    def from_whole_pretrained(cls, model_id: str, **config: Any) -> Self:
        """Start from a whole CLIP, SigLIP or SigLIP 2: before any training `logits_per_image` is what it gives.

        A NaFlex SigLIP 2 becomes the SigLIP of the square of its `num_patches`.

        Raises:
            ValueError: another kind of model, or weights that do not fill it.
        """
        fields, parts = whole_parts(model_id)
        model = cls(EgmaConfig(**fields, **config))
        for name, weights in parts.items():
            getattr(model, name).load_state_dict(weights)
        check_patches(model)
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the saved folder also opens as `AutoModelForZeroShotImageClassification`."""
        if self._auto_class is not None:
            # a relative import, so that its file travels with this one
            from .pipeline_egma import STOCK_TASKS, TASK, EgmaGroundingPipeline

            zero_shot = "AutoModelForZeroShotImageClassification"
            own = {zero_shot: "modeling_egma.EgmaModel"}
            self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), **own}
            stock = "zero-shot-image-classification"
            tasks = {TASK: (EgmaGroundingPipeline, "AutoModel"), stock: (STOCK_TASKS[stock], zero_shot)}
            self.config.custom_pipelines = {
                task: {"impl": f"pipeline_egma.{pipeline.__name__}", "pt": [auto_class], "type": "multimodal"}
                for task, (pipeline, auto_class) in tasks.items()
            }
        return super().save_pretrained(save_directory, *args, **kwargs)

    @can_return_tuple
    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode images (B, 3, H, W).

        Returns:
            `last_hidden_state` (B, P, width), the patch tokens before projection; `pooler_output` (B, D), the
            projected mean token, or what `config.pooling` says, not normalised.
        """
        tokens, output = patch_tokens(self.vision_model, pixel_values, self.config.hidden_layers, **kwargs)
        pooled = output.pooler_output if self.config.pooling == "tower" else tokens.mean(dim=1)
        return _with_pooling(tokens, self.visual_projection(pooled), output)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode sentences (N, L); N may be 0.

        Args:
            token_type_ids: (N, L), passed on to an encoder that has them; another one has no use for them.

        Returns:
            `last_hidden_state` (N, L, width), the mean of the last `config.text_layers` layers; `pooler_output`
            (N, D), the projected mean over real tokens, not normalised; `hidden_states` when asked for. With
            `config.pooling` `"tower"` both are as the encoder itself makes them.
        """
        check_length(input_ids, self.text_positions)
        # not `len`, which would fix the number of sentences in an exported graph
        if input_ids.shape[0] == 0:
            # encoders refuse an empty batch; the result hangs on the graph all the same
            alone = self.get_text_features(input_ids.new_zeros(1, max(input_ids.shape[1], 1)), **kwargs)
            return cast(BaseModelOutputWithPooling, tree_map(lambda rows: None if rows is None else rows[:0], alone))
        asked = kwargs.pop("output_hidden_states", self.text_model.config.output_hidden_states)
        if token_type_ids is not None and self.takes_token_types:
            kwargs["token_type_ids"] = token_type_ids
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        kwargs |= {"return_dict": True, "output_hidden_states": True}
        if self.config.pooling == "tower":
            ids, mask = filled(self.config.text_config, input_ids, attention_mask, self.text_positions)
            output = self.text_model(input_ids=ids, attention_mask=mask, **kwargs)
            tokens = output.last_hidden_state[:, : input_ids.shape[1]]
            output.hidden_states = selected_states(output.hidden_states, asked)
            return _with_pooling(tokens, self.text_projection(output.pooler_output), output)
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        chosen, states = self.config.text_layers, output.hidden_states
        layers = states[1:][-chosen:] if isinstance(chosen, int) else [states[layer] for layer in chosen]
        tokens = torch.stack(tuple(layers)).mean(dim=0)
        real = attention_mask[..., None].to(tokens.dtype)
        pooled = (tokens * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        output.hidden_states = selected_states(states, asked)
        return _with_pooling(tokens, self.text_projection(pooled), output)

    def encode_images(self, pixel_values: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> L2-normalised pooled (B, D) and patch (B, P, D) embeddings, float32 or better."""
        return self._image_embeds(self.get_image_features(pixel_values, return_dict=True, **kwargs))

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Sentences (N, L), N may be 0, -> L2-normalised embeddings (N, D), float32 or better."""
        features = self.get_text_features(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        return _normalised(features.pooler_output)

    def get_similarity_map(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        image_size: int | None = None,
    ) -> Tensor:
        """Where every sentence looks in every image: cosines on the patch grid of the square frame, (B, N, G, G).

        Args:
            image_size: side of the frames that the encoder shall see, for a finer grid; its position embeddings are
                interpolated, and frames of another size resized.

        Raises:
            ValueError: a map is not finite (any place in it would be taken for its peak); no whole number of patches.
        """
        if image_size is not None:
            pixel_values = sized_frames(self.config, pixel_values, image_size)
        _, patches = self.encode_images(pixel_values)
        sentences = self.encode_text(input_ids, attention_mask, token_type_ids)
        return similarity_maps(patches, sentences)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        sentence_to_image: Tensor | None = None,
        gaze_heatmaps: Tensor | None = None,
        gaze_mask: Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Any,
    ) -> EgmaOutput:
        """Score images against sentences and, in training, compute the objective.

        Args:
            pixel_values: (B, 3, H, W).
            input_ids, attention_mask, token_type_ids: (N, L).
            sentence_to_image: (N,) image row of every sentence; None for flat prompts, as CLIP takes them.
            gaze_heatmaps: (N, G, G) in [0, 1], the gaze matrix of every sentence; with `gaze_mask`.
            gaze_mask: (B,) bool, this image has gaze; neither argument: no image has gaze.
            return_loss: whether to compute the loss; None: whenever `sentence_to_image` is given. With flat prompts
                the loss takes sentence k for image k.

        Raises:
            ValueError: an input is missing, or shapes do not fit each other or the model's patch grid.
        """
        if pixel_values is None or input_ids is None:
            raise ValueError("EgmaModel needs both pixel_values and input_ids; see get_image_features for one of them")
        vision = self.get_image_features(pixel_values, return_dict=True, **kwargs)
        text = self.get_text_features(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        (image_embeds, patch_embeds), text_embeds = self._image_embeds(vision), _normalised(text.pooler_output)
        loss, components = None, None
        if return_loss or (return_loss is None and sentence_to_image is not None):
            sentence_to_image = checked_rows(sentence_to_image, patch_embeds, text_embeds)
            check_gaze(gaze_heatmaps, gaze_mask, patch_embeds, text_embeds)
            loss, components = self.objective(patch_embeds, text_embeds, sentence_to_image, gaze_heatmaps, gaze_mask)
        logits_per_image = self._zero_shot_logits(image_embeds, patch_embeds, text_embeds)
        return EgmaOutput(
            loss=loss,
            loss_components=components,
            logits_per_image=logits_per_image,
            logits_per_text=logits_per_image.T,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            patch_embeds=patch_embeds,
            vision_model_output=vision,
            text_model_output=text,
        )

    # transformers' Trainer asks this default whether a batch without labels has a loss; ours has one where it can
    forward.__signature__ = Signature(
        [p.replace(default=True) if p.name == "return_loss" else p for p in signature(forward).parameters.values()]
    )

    def objective(
        self,
        patch_embeds: Tensor,
        text_embeds: Tensor,
        sentence_to_image: Tensor,
        gaze_heatmaps: Tensor | None = None,
        gaze_mask: Tensor | None = None,
        report_ids: Tensor | None = None,
        sentence_ids: Tensor | None = None,
        join: OneProcess = ONE_PROCESS,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss and its unweighted terms (METHOD "Total"), in float32 or better under any autocast.

        A term of weight 0 is not computed and is not among the terms.

        Args:
            report_ids, sentence_ids: (B,) and (N,), equal for equal texts, which then are not each other's negatives.
            join: how the batches of several processes meet; loss and terms are those of the joined batch.
        """
        scale = self._scale().to(patch_embeds.dtype)
        packed, gaze = (patch_embeds, text_embeds, sentence_to_image), (gaze_heatmaps, gaze_mask)
        with torch.autocast(patch_embeds.device.type, enabled=False):
            return alignment_objective(self.config, *packed, *gaze, scale, report_ids, sentence_ids, join)

    def _image_embeds(self, features: BaseModelOutputWithPooling) -> tuple[Tensor, Tensor]:
        tokens = cast(Tensor, features.last_hidden_state)
        own = pooled_alone(self.vision_model, tokens) if self.config.pooling == "tower" else tokens
        patches = self.visual_projection(own)
        return _normalised(cast(Tensor, features.pooler_output)), _normalised(patches)

    def _scale(self) -> Tensor:
        cap = max(math.log(MAX_LOGIT_SCALE), float(self.config.logit_scale_init_value))
        return CappedScale.apply(self.logit_scale, cap)

    def _zero_shot_logits(self, image_embeds: Tensor, patch_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        with torch.autocast(image_embeds.device.type, enabled=False):
            if self.config.zero_shot_score == "pooled":
                cosines = image_embeds @ text_embeds.T
            elif self.config.zero_shot_score == "cabs":
                cosines = pooled_cosines(patch_embeds, text_embeds, self._scale().to(patch_embeds.dtype))
            else:
                cosines = (text_embeds @ patch_embeds.mT).amax(dim=-1)
            return cosines * self._scale().to(cosines.dtype) + self.config.logit_bias


class EgmaVisionModel(EgmaPreTrainedModel):
    """The image half of an `EgmaModel`, loaded from the same folder: `pipeline("image-feature-extraction")`."""

    config_class = EgmaVisionConfig
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [r"^text_", r"^logit_scale"]  # noqa: RUF012

    def __init__(self, config: EgmaVisionConfig) -> None:
        super().__init__(config)
        self.vision_model = tower_from_config(config.vision_tower_config)
        self.visual_projection = projection(config, config.vision_tower_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    forward = EgmaModel.get_image_features


class EgmaTextModel(EgmaPreTrainedModel):
    """The text half of an `EgmaModel`, loaded from the same folder: `pipeline("feature-extraction")`."""

    config_class = EgmaTextConfig
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _keys_to_ignore_on_load_unexpected = [r"^vision_model", r"^visual_projection", r"^logit_scale"]  # noqa: RUF012

    def __init__(self, config: EgmaTextConfig) -> None:
        super().__init__(config)
        assert isinstance(config.text_config, PreTrainedConfig)
        self.text_model = tower_from_config(config.text_config)
        self.text_positions = text_positions(self.text_model)
        self.takes_token_types = takes_token_types(self.text_model)
        self.text_projection = projection(config, config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    forward = EgmaModel.get_text_features


class EgmaForImageClassification(EgmaPreTrainedModel):
    """The vision encoder with a linear head on the mean patch token before projection (linear probe, fine-tuning)."""

    input_modalities = ("image",)
    # an EgmaModel folder may be loaded; its other half is not needed
    _keys_to_ignore_on_load_unexpected = [r"^text_", r"^visual_projection", r"^logit_scale"]  # noqa: RUF012

    def __init__(self, config: EgmaConfig) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.vision_model = tower_from_config(config.vision_tower_config)
        self.classifier = nn.Linear(width(config.vision_tower_config), self.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Classify images (B, 3, H, W).

        Args:
            labels: (B,) class indices, or (B, num_labels) 0/1 for several findings an image, of any number type; with
                one label also (B,) 0/1. `config.problem_type` overrides what their shape says.

        Raises:
            ValueError: labels of another shape or range.
        """
        if pixel_values is None:
            raise ValueError("EgmaForImageClassification needs pixel_values")
        tokens, output = patch_tokens(self.vision_model, pixel_values, self.config.hidden_layers, **kwargs)
        logits = self.classifier(tokens.mean(dim=1))
        loss = None
        if labels is not None:
            # a copy, so that what this batch is taken for is not saved as what the model is for
            config: Any = copy.copy(self.config)
            labels, config.problem_type = classification_labels(labels, logits, config.problem_type)
            loss = self.loss_function(labels, logits, config)
        return ImageClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=getattr(output, "attentions", None),
        )


def _with_pooling(tokens: Tensor, pooled: Tensor, output: Any) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(
        last_hidden_state=tokens,
        pooler_output=pooled,
        hidden_states=output.hidden_states,
        # a convolutional backbone has none
        attentions=getattr(output, "attentions", None),
    )


def _normalised(embeds: Tensor) -> Tensor:
    return F.normalize(embeds.to(torch.promote_types(embeds.dtype, torch.float32)), dim=-1)


def _require_output_grads(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_(True)
