"""Images, reports and recordings -> the inputs of `EgmaModel`."""

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin
from transformers.utils import logging

from .gaze_egma import (
    Span,
    compose,
    fixation_table,
    maps_on_images,
    packed_gaze,
    square_frame,
    window_table,
)
from .image_processing_egma import VALUE_SETTINGS, EgmaImageProcessor, frame_values, warp_frames
from .pictures_egma import picture_list
from .towers_egma import text_positions_of

logger = logging.get_logger(__name__)

UNLIMITED = 10**9  # tokens; a tokenizer without a limit states 1e30
TOKENIZER_LOCK = threading.Lock()  # a fast tokenizer keeps what a call asks for while it works
GAZE_DEFAULTS = {"sigma": 0.05, "lead": 0.0}


class EgmaProcessorKwargs(ProcessingKwargs, total=False):
    """Packed sentences are padded to the longest one and come as tensors."""

    _defaults = {  # type: ignore[misc]  # noqa: RUF012
        "text_kwargs": {"padding": True, "truncation": True},
        "common_kwargs": {"return_tensors": "pt"},
    }


class EgmaProcessor(ProcessorMixin):
    """Image processor, tokenizer and gaze in one.

    Args:
        image_processor: an `EgmaImageProcessor`.
        tokenizer: the text encoder's tokenizer.
        grid_size: G, patches along each side of the model's frame (`EgmaConfig.grid_size`).
        gaze_kwargs: `sigma`, the width of a fixation as a fraction of the frame's side where the recording has no
            width of its own, and `lead`, the seconds by which the eyes run ahead of speech.
    """

    valid_processor_kwargs = EgmaProcessorKwargs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        grid_size: int = 7,
        gaze_kwargs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = set(gaze_kwargs or {}) - set(GAZE_DEFAULTS)
        if unknown:
            raise ValueError(f"gaze_kwargs has no {', '.join(sorted(unknown))}; expected {', '.join(GAZE_DEFAULTS)}")
        self.grid_size = grid_size
        self.gaze_kwargs = GAZE_DEFAULTS | (gaze_kwargs or {})
        self.truncated_sentences = 0
        super().__init__(image_processor, tokenizer, **kwargs)
        if tokenizer is not None:
            stated = tokenizer.init_kwargs.get("max_length")
            tokenizer.model_max_length = min(tokenizer.model_max_length, stated or UNLIMITED)
            # SigLIP's gives no mask
            tokenizer.model_input_names = list(dict.fromkeys([*tokenizer.model_input_names, "attention_mask"]))
            _settle(tokenizer)

    @classmethod
    def for_model(
        cls,
        config: PreTrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        gaze_kwargs: dict[str, float] | None = None,
        max_length: int | None = None,
    ) -> Self:
        """The processor that fits a model: frame size, patch grid and length of text come from its `EgmaConfig`.

        Args:
            max_length: tokens of a sentence, where they shall be fewer than tokenizer and text encoder allow.

        Raises:
            ValueError: a tokenizer of another vocabulary.
        """
        images = EgmaImageProcessor(size={"height": config.image_side, "width": config.image_side})
        processor = cls(images, copy.deepcopy(tokenizer), grid_size=config.grid_size, gaze_kwargs=gaze_kwargs)
        return processor.fit(config, max_length)

    def fit(self, config: PreTrainedConfig, max_length: int | None = None) -> Self:
        """Cut sentences where the model of `config` ends, or at `max_length`; `max_length` of this object says where.

        Raises:
            ValueError: the tokenizer, the frame or the patch grid is of another model.
        """
        limits = (self.tokenizer.model_max_length, text_positions_of(config.text_config), max_length)
        self.tokenizer.model_max_length = min(limit for limit in limits if limit is not None)
        if self.tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no padding token; sentences of different length make no batch")
        largest, vocabulary = max(self.tokenizer.get_vocab().values()), getattr(config.text_config, "vocab_size", None)
        if vocabulary is not None and largest >= vocabulary:
            raise ValueError(
                f"the tokenizer counts to {largest}, expected at most {vocabulary - 1}: the text encoder knows "
                f"{vocabulary} entries"
            )
        if config.pooling == "tower" and self.tokenizer.pad_token_id != config.text_config.pad_token_id:
            own = f"{config.text_config.pad_token_id}, the text_config's, with which the model fills sentences up"
            raise ValueError(f"the tokenizer pads with {self.tokenizer.pad_token_id}, expected {own}")
        size, side = self.image_processor.size, config.image_side
        height, width = size.get("height"), size.get("width")
        if (height, width, self.grid_size) != (side, side, config.grid_size):
            raise ValueError(
                f"the processor makes pictures of {height} x {width} px for a grid of {self.grid_size}, expected "
                f"{side} x {side} px and {config.grid_size}, which are the model's"
            )
        return self

    @property
    def max_length(self) -> int | None:
        """Tokens that are kept of a sentence; None: all."""
        limit = self.tokenizer.model_max_length
        return int(limit) if limit < UNLIMITED else None

    def is_cut(self, sentences: Sequence[str], max_length: int | None = None) -> list[bool]:
        """Whether each of the sentences has more tokens than are kept of it (`max_length`, or this object's)."""
        limit = max_length or self.max_length or UNLIMITED
        with TOKENIZER_LOCK:
            ids = self.tokenizer(list(sentences), verbose=False)["input_ids"] if sentences else []
        return [len(tokens) > limit for tokens in ids]

    def token_lists(self, sentences: Sequence[str]) -> tuple[dict[str, list[list[int]]], list[bool]]:
        """Tokens of sentences as a call makes them, before they are padded, and whether `max_length` cut each."""
        with TOKENIZER_LOCK:
            tokens = self.tokenizer(list(sentences), truncation=True, max_length=self.max_length)
            _settle(self.tokenizer)
        return dict(tokens), self._cut(sentences, self.max_length, max(map(len, tokens["input_ids"])))

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, without what the last call left in the tokenizer."""
        _settle(self.tokenizer)
        return super().save_pretrained(*args, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "sentence_to_image", "gaze_heatmaps", "gaze_mask"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        gaze: Sequence[Mapping[str, Any] | None] | None = None,
        spans: Sequence[Sequence[Span]] | None = None,
        frame_affines: Sequence[Tensor] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare a batch.

        Args:
            images: B images, in any form that `pictures_egma.as_picture` takes.
            text: prompts, or one list of sentences an image (reports).
            gaze: one recording an image, None where there is none: columns `x`, `y` in fractions of the image and
                `start`, `duration` in seconds, with the optional columns of `gaze_egma.gaze_matrix`.
            spans: one list an image: `(start, end)` seconds of every sentence, None for an untimed one.
            frame_affines: augmentation, one (2, 3) map of frame fractions an image (`gaze_egma.frame_affine`,
                `frame_crop`); image and gaze move together.
            kwargs: settings of the tokenizer and the image processor.

        Returns:
            `pixel_values` (B, 3, H, W), `input_ids` and `attention_mask` (N, L); for reports also
            `sentence_to_image` (N,); with gaze also `gaze_heatmaps` (N, G, G) and `gaze_mask` (B,). How many
            sentences `max_length` cut is added to `truncated_sentences` and logged.

        Raises:
            ValueError: inputs that do not fit each other, or a recording that `gaze_matrix` refuses.
        """
        if images is None and text is None:
            raise ValueError("EgmaProcessor needs images, text or both")
        reports = _reports(text)
        if reports is not None:
            text = [sentence for report in reports for sentence in report]
        if images is not None:
            names = ("do_rescale", "do_convert_rgb", "input_data_format")
            images = picture_list(images, **{name: self._image_setting(name, kwargs) for name in names})
        _check_counts(images, reports, gaze, spans)
        if frame_affines is not None and (images is None or len(frame_affines) != len(images)):
            raise ValueError(
                f"got {len(images or [])} images but {len(frame_affines)} frame_affines, expected one each"
            )
        if frame_affines is None:
            batch = self._images_and_text(images, text, **kwargs)
        else:
            batch = self._images_and_text(images, text, **self._without_values(kwargs))
            warped = warp_frames(torch.as_tensor(batch["pixel_values"]), torch.stack(list(frame_affines)))
            settings = {name: self._image_setting(name, kwargs) for name in VALUE_SETTINGS}
            batch["pixel_values"] = frame_values(warped, settings)
        if reports is not None:
            batch["sentence_to_image"] = _sentence_rows(reports)
        if gaze is not None and images is not None and spans is not None:
            geometry = self.geometry([image.size for image in images], **kwargs)
            if frame_affines is not None:
                geometry = compose(torch.stack(list(frame_affines)), geometry)
            recordings = fixation_table(gaze), window_table(spans, self.gaze_kwargs["lead"]), geometry
            batch["gaze_heatmaps"], batch["gaze_mask"] = packed_gaze(
                *recordings, batch["sentence_to_image"], self.grid_size, self.gaze_kwargs["sigma"]
            )
        return batch

    def post_process_similarity_map(self, maps: Tensor, target_sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Patch-grid maps -> maps at image size, with the padding of the square frame taken off.

        Args:
            maps: (B, N, G, G), as `EgmaModel.get_similarity_map` gives them.
            target_sizes: (height, width) of every image in pixels.

        Returns:
            B tensors (N, height, width).
        """
        if len(maps) != len(target_sizes):
            raise ValueError(f"expected a target size for each of the {len(maps)} images, got {len(target_sizes)}")
        return [
            maps_on_images(image_maps[None], [(width, height)], height, width)[0]
            for image_maps, (height, width) in zip(maps, target_sizes, strict=True)
        ]

    def _images_and_text(self, images: Any, text: Any, **kwargs: Any) -> BatchFeature:
        if text is not None and not isinstance(text, str) and len(text) == 0:
            batch = {} if images is None else super().__call__(images=images, **kwargs)
            # all reports of the batch are empty: no sentence, of length 1
            empty = torch.zeros(0, 1, dtype=torch.long)
            return BatchFeature(dict(batch) | {"input_ids": empty, "attention_mask": empty.clone()})
        if text is None:
            return super().__call__(images=images, **kwargs)
        settings = dict(kwargs.pop("text_kwargs", None) or {})
        asked = (settings.pop("max_length", None), kwargs.pop("max_length", None), self.max_length)
        settings["max_length"] = min((one for one in asked if one is not None), default=None)
        with TOKENIZER_LOCK:
            batch = super().__call__(images=images, text=text, text_kwargs=settings, **kwargs)
            _settle(self.tokenizer)
        if (kwargs | settings).get("truncation", True):
            sentences = [text] if isinstance(text, str) else list(text)
            length = np.asarray(batch["input_ids"]).shape[-1]
            self.truncated_sentences += sum(self._cut(sentences, settings["max_length"], length))
        return batch

    def _cut(self, sentences: Sequence[str], limit: int | None, longest: int) -> list[bool]:
        """`is_cut` of sentences of which the longest has so many tokens left; the first cut one is logged."""
        if limit is None or longest < limit:
            return [False] * len(sentences)
        cut = self.is_cut(sentences, limit)
        if any(cut):
            logger.warning_once(f"sentences of more than {limit} tokens are cut; `truncated_sentences` counts them")
        return cut

    def _without_values(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Settings of a call whose pictures stay 0 to 255, to be warped before their values are made."""
        raw = {"do_rescale": False, "do_normalize": False}
        plain = {name: value for name, value in kwargs.items() if name not in raw}
        return plain | {"images_kwargs": (plain.get("images_kwargs") or {}) | raw}

    def _image_setting(self, name: str, kwargs: dict[str, Any]) -> Any:
        """A setting of the image processor as this call has it: flat, under `images_kwargs`, or its own."""
        given = kwargs | (kwargs.get("images_kwargs") or {})
        return given.get(name, getattr(self.image_processor, name, None))

    def geometry(self, sizes: Sequence[tuple[float, float]], **kwargs: Any) -> Tensor:
        """Image fractions -> frame fractions, (B, 2, 3), for images of (width, height); `kwargs` as those of a call.

        Raises:
            ValueError: an image processor whose geometry gaze cannot follow.
        """
        pads = self._image_setting("do_pad_square", kwargs)
        if pads is None:
            raise ValueError(
                f"{type(self.image_processor).__name__} does not say how it places an image in the frame; gaze needs "
                "an EgmaImageProcessor"
            )
        if self._image_setting("do_center_crop", kwargs) or self._image_setting("do_pad", kwargs):
            raise ValueError(
                "gaze cannot follow do_center_crop and do_pad; crop by frame_affines (gaze_egma.frame_crop)"
            )
        return torch.stack([square_frame(*size) if pads else square_frame(1, 1) for size in sizes])


def _settle(tokenizer: PreTrainedTokenizerBase) -> None:
    """Take out what the last call, or the file, set: it would be saved, and cut what is not said to be cut."""
    for name in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"):
        tokenizer.init_kwargs.pop(name, None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def _reports(text: Any) -> list[list[str]] | None:
    """The reports when `text` is nested, None when it is flat."""
    if text is None or isinstance(text, str) or not text or not any(isinstance(item, list | tuple) for item in text):
        return None
    for row, report in enumerate(text):
        if not isinstance(report, list | tuple) or not all(isinstance(sentence, str) for sentence in report):
            raise ValueError(f"text {row} is {report!r}, expected a list of sentences as in the other reports")
    return [list(report) for report in text]


def _sentence_rows(reports: list[list[str]]) -> Tensor:
    counts = torch.tensor([len(report) for report in reports], dtype=torch.long)
    return torch.repeat_interleave(torch.arange(len(reports)), counts)


def _check_counts(
    images: list[Any] | None, reports: list[list[str]] | None, gaze: Sequence[Any] | None, spans: Any
) -> None:
    if reports is not None and images is None:
        raise ValueError("reports (a list of sentences an image) need images; pass flat text for prompts alone")
    if reports is not None and images is not None and len(reports) != len(images):
        raise ValueError(f"got {len(images)} images but {len(reports)} reports, expected one report an image")
    if gaze is None:
        return
    if images is None or reports is None:
        raise ValueError("gaze needs images and their reports (a list of sentences an image)")
    if spans is None:
        raise ValueError("gaze needs spans: the (start, end) seconds of every sentence, None for an untimed one")
    for name, given in (("gaze", gaze), ("spans", spans)):
        if len(given) != len(images):
            raise ValueError(f"got {len(images)} images but {name} for {len(given)}")
    for row, (report, sentence_spans) in enumerate(zip(reports, spans, strict=True)):
        if len(report) != len(sentence_spans):
            raise ValueError(f"report {row} has {len(report)} sentences but {len(sentence_spans)} spans")
