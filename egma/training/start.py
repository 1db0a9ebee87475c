"""The model and processor that a run starts from."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoImageProcessor, AutoTokenizer, BaseImageProcessor, BertTokenizer, set_seed
from transformers.utils import logging

from dataset_scripts.schema import UserError, naming
from egma.inference.models import LOADING_ERRORS, load_whole_model, require_findable
from egma.training.arguments import TrainingSettings
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from modeling_egma.pictures_egma import as_picture
from modeling_egma.towers_egma import check_patches

logger = logging.get_logger(__name__)

STATISTICS_IMAGES = 200
SMALLEST_DEVIATION = 0.01
NAME_READINGS = 5
# of the image processor that a vision backbone was trained with; the frame is ours
TOWER_PREPROCESSING = ("image_mean", "image_std", "resample", "do_normalize", "rescale_factor")
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_model(settings: TrainingSettings, rows: Dataset) -> tuple[EgmaModel, Any]:
    """Load or make the model; weights that are new depend on `settings.seed` alone.

    Raises:
        UserError: a model that cannot be had, or a configuration that contradicts itself.
    """
    set_seed(settings.seed)
    try:
        if settings.model:
            model, processor = _from_egma(settings)
        elif settings.start_from or settings.vision_model:
            model, processor = _from_others(settings)
        else:
            model, processor = _from_config(settings, rows)
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise UserError(f"cannot build the model: {' '.join(str(error).split())}") from error
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model, processor


def _gaze_kwargs(settings: TrainingSettings) -> dict[str, float]:
    given = {"sigma": settings.gaze_sigma, "lead": settings.gaze_lead_seconds}
    return {name: value for name, value in given.items() if value is not None}


def _from_egma(settings: TrainingSettings) -> tuple[EgmaModel, Any]:
    assert settings.model
    model, processor = load_whole_model(settings.model, settings.model_fields, settings.max_length)
    processor.gaze_kwargs |= _gaze_kwargs(settings)
    return model, processor


def _from_others(settings: TrainingSettings) -> tuple[EgmaModel, Any]:
    """From a whole CLIP or SigLIP, or from two towers."""
    vision, text = settings.start_from or settings.vision_model, settings.start_from or settings.text_model
    assert vision and text
    require_findable(vision)
    require_findable(text)
    tokenizer, fields = AutoTokenizer.from_pretrained(text), settings.model_fields
    if settings.start_from:
        model = EgmaModel.from_whole_pretrained(vision, **fields)
        # SigLIP 2's configuration states SigLIP's
        model.config.text_config.pad_token_id = tokenizer.pad_token_id
    else:
        model = EgmaModel.from_vision_text_pretrained(vision, text, **fields)
    processor = EgmaProcessor.for_model(model.config, tokenizer, _gaze_kwargs(settings), settings.max_length)
    _take_grey_values(processor.image_processor, vision)
    return model, processor


def _take_grey_values(images: Any, name: str) -> None:
    """What the vision encoder `name` was trained with, but for the frame."""
    try:
        stock = AutoImageProcessor.from_pretrained(name).to_dict()
    except OSError:
        logger.warning(f"{name} has no image processor; grey values are normalised to [-1, 1]")
        return
    except (ImportError, ValueError):
        # one of torchvision's, as DINOv3's, or of a class that is gone: its file says it all the same
        stock, _ = BaseImageProcessor.get_image_processor_dict(name)
    for field in TOWER_PREPROCESSING:
        if stock.get(field) is not None:
            setattr(images, field, stock[field])


def _from_config(settings: TrainingSettings, rows: Dataset) -> tuple[EgmaModel, Any]:
    tokenizer = train_tokenizer(rows, settings.vocabulary_size, settings.max_length)
    fields = settings.model_fields
    text_config = dict(fields.pop("text_config", None) or {})
    text_config |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = EgmaConfig(text_config=text_config, **fields)
    processor = EgmaProcessor.for_model(config, tokenizer, _gaze_kwargs(settings), settings.max_length)
    mean, deviation = grey_statistics(rows)
    processor.image_processor.image_mean, processor.image_processor.image_std = [mean] * 3, [deviation] * 3
    model = EgmaModel(config)
    check_patches(model)
    return model, processor


def grey_statistics(rows: Dataset) -> tuple[float, float]:
    """Mean and standard deviation of the grey values, from 0 to 1, of evenly spaced images of the split."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, num=min(len(rows), STATISTICS_IMAGES)).astype(int))
    images, greys = rows.select_columns(["image"]), []
    for place in chosen.tolist():
        with naming(f"row {place} of the training split"):
            greys.append(np.asarray(as_picture(images[place]["image"]).convert("L")).ravel())
    grey = np.concatenate(greys) / 255
    return round(float(grey.mean()), 4), max(round(float(grey.std()), 4), SMALLEST_DEVIATION)


def train_tokenizer(rows: Dataset, vocabulary_size: int, max_length: int) -> BertTokenizer:
    """A WordPiece vocabulary learned from the training split's sentences.

    Raises:
        UserError: there is no text to learn from.
    """
    reports = [[one["text"] for one in row["sentences"]] for row in rows.select_columns(["sentences"])]
    if not any(reports):
        raise UserError("the training split has no sentence; a new text encoder has nothing to learn words from")
    return BertTokenizer(vocab=_vocabulary(reports, vocabulary_size), model_max_length=max_length)


def _vocabulary(reports: Sequence[Sequence[str]], size: int) -> dict[str, int]:
    """The characters that occur, so that any word of them can be spelled, then the most frequent words.

    A word that may be somebody's name or number is none of them: in fewer than NAME_READINGS readings, and never
    written in small letters.
    The library's WordPiece learner breaks ties by the order of a hash map: two runs would differ.
    """
    splitter, counts, readings, small = pre_tokenizers.BertPreTokenizer(), Counter[str](), Counter[str](), set[str]()
    lowered, cased = (normalizers.BertNormalizer(lowercase=one, strip_accents=True) for one in (True, False))
    for report in reports:
        words, written = (
            [word for text in report for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
            for normalizer in (lowered, cased)
        )
        counts.update(words)
        readings.update(set(words))
        small.update(word for word in written if word.islower() and word.isalpha())
    characters = sorted({character for word in counts for character in word})
    known = (word for word in counts if word in small or readings[word] >= NAME_READINGS)
    words = sorted(known, key=lambda word: (-counts[word], word))
    entries = dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{one}" for one in characters), *words])
    return {entry: index for index, entry in enumerate(list(entries)[:size])}
