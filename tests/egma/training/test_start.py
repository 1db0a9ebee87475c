"""What a run starts from: grey statistics and vocabulary of the training split."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from dataset_scripts.schema import UserError
from egma.inference.models import load_whole_model
from egma.programs import train as train_egma
from egma.training.arguments import parse_settings
from egma.training.start import build_model, grey_statistics, train_tokenizer
from tests.modeling_egma.whole_models import save_whole


def rows_of(images: list[np.ndarray], texts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "image": [Image.fromarray(image) for image in images],
            "sentences": [[{"text": text, "start_seconds": None, "end_seconds": None}] for text in texts],
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "sentences": datasets.List(
                    {
                        name: datasets.Value("string" if name == "text" else "float64")
                        for name in ("text", "start_seconds", "end_seconds")
                    }
                ),
            }
        ),
    )


def test_grey_statistics_are_those_of_all_pixels() -> None:
    images = [np.full((4, 6), 51, np.uint8), np.full((2, 3), 255, np.uint8)]
    pixels = np.concatenate([image.ravel() for image in images]) / 255
    assert grey_statistics(rows_of(images, ["a", "b"])) == pytest.approx((pixels.mean(), pixels.std()), abs=1e-4)


def test_black_images_do_not_make_a_division_by_zero() -> None:
    assert grey_statistics(rows_of([np.zeros((4, 4), np.uint8)], ["a"])) == (0, 0.01)


def test_vocabulary_is_the_same_every_time_and_spells_unknown_words() -> None:
    rows = rows_of([np.zeros((4, 4), np.uint8)] * 2, ["No pleural effusion.", "pleural thickening"])
    first, second = (train_tokenizer(rows, 100, 16) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert first.tokenize("Pleural effusion.") == ["pleural", "effusion", "."]
    assert "[UNK]" not in first.tokenize("unseen help")
    assert first.model_max_length == 16


def test_vocabulary_keeps_the_most_frequent_words() -> None:
    rows = rows_of([np.zeros((4, 4), np.uint8)] * 3, ["ab ab ab", "ab ba", "ba aab"])
    assert set(train_tokenizer(rows, 11, 16).get_vocab()) >= {"a", "b", "##a", "##b", "ab", "ba"}
    assert "aab" not in train_tokenizer(rows, 11, 16).get_vocab()


def test_a_rare_name_or_number_is_no_word_of_the_vocabulary() -> None:
    texts = [
        "Dr. Okonkwo called at 10:45 about 4711.",
        "SMITH has an effusion.",
        "Effusion on the left.",
        "No Effusion.",
    ]
    texts += ["Seen by Meyer.", "Heart of normal size. Ümit Öz"] * 4 + ["No change, Kerley lines."] * 5 + ["seen"]
    rows = rows_of([np.zeros((4, 4), np.uint8)] * len(texts), texts)
    tokenizer = train_tokenizer(rows, 1000, 32)
    words = set(tokenizer.get_vocab())
    assert not words & {"okonkwo", "smith", "meyer", "4711", "45", "umit", "oz", "heart"}
    assert words >= {"effusion", "seen", "no", "kerley", "normal", "an", "by"}
    assert "[UNK]" not in tokenizer.tokenize("Okonkwo and Smith, 4711, Ümit Öz")


def test_no_text_is_a_users_mistake() -> None:
    rows = rows_of([np.zeros((4, 4), np.uint8)], ["a"]).map(lambda row: {"sentences": []})
    with pytest.raises(UserError, match="no sentence"):
        train_tokenizer(rows, 10, 16)


BODY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def towers(tmp_path: Path, tokenizer: BertTokenizer) -> Path:
    """Folders of two encoders that fit each other and their tokenizer, which states no limit."""
    ViTModel(ViTConfig(**BODY, image_size=32, patch_size=8)).save_pretrained(tmp_path / "vision")
    ViTImageProcessorPil(image_mean=[0.2] * 3, image_std=[0.3] * 3, resample=3).save_pretrained(tmp_path / "vision")
    BertModel(BertConfig(**BODY, vocab_size=60, max_position_embeddings=20)).save_pretrained(tmp_path / "text")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path / "text")
    return tmp_path


def started(folder: Path, data: Path, *more: str) -> list[str]:
    towers = ["--vision_model", str(folder / "vision"), "--text_model", str(folder / "text"), "--batch_size", "4"]
    return [*towers, "--data", str(data), "--output_dir", str(folder / "run"), *more]


def model_of(folder: Path, *more: str) -> tuple[Any, Any]:
    return build_model(parse_settings(started(folder, Path("unused"), *more)), rows_of([], []))


def test_two_towers_bring_their_preprocessing_and_the_smallest_limit(towers: Path) -> None:
    model, processor = model_of(towers, "--egma_config", '{"projection_dim": 24}')
    images = processor.image_processor
    assert model.config.projection_dim == 24 and model.visual_projection.out_features == 24
    assert [*images.image_mean, *images.image_std, images.resample] == [0.2] * 3 + [0.3] * 3 + [3]
    assert processor.max_length == 20 and model_of(towers, "--max_length", "12")[1].max_length == 12


@pytest.mark.parametrize("kind", ["BitImageProcessor", "DINOv3ViTImageProcessorFast", "ViTFeatureExtractor"])
def test_grey_values_of_a_processor_that_cannot_be_built_here(towers: Path, kind: str) -> None:
    """DINOv3's needs torchvision, and older files name classes that are gone."""
    path = towers / "vision" / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": kind, "image_mean": [0.4] * 3, "resample": 2}))
    images = model_of(towers)[1].image_processor
    assert (list(images.image_mean), images.resample) == ([0.4] * 3, 2)
    assert images.size == {"height": 32, "width": 32}


@pytest.mark.parametrize("kind", ["clip", "siglip2 of one size"])
def test_a_run_starts_from_a_whole_model(
    tmp_path: Path, phantom_data: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """With its grey values and its tokenizer, which need not pad as the configuration says."""
    source = save_whole(tmp_path / "whole", kind)
    places = ["--start_from", str(tmp_path / "whole"), "--data", str(phantom_data), "--output_dir"]
    fast = ["--batch_size", "4", "--report_to", "none", "--heat_map_cases", "0", "--max_steps", "1"]
    model, processor = build_model(parse_settings([*places, "unused"]), rows_of([], []))
    assert list(processor.image_processor.image_mean) == [0.4] * 3 and processor.max_length == 24
    pixels, text = torch.randn(1, 3, 32, 32), processor(text=["clear", "no pleural effusion"])
    ids = text["input_ids"]
    if kind != "clip":
        ids = torch.nn.functional.pad(ids, (0, 24 - ids.shape[1]), value=0)
    mask = text["attention_mask"] if kind == "clip" else None
    expected = source(pixel_values=pixels, input_ids=ids, attention_mask=mask).logits_per_image
    torch.testing.assert_close(model(pixels, **text).logits_per_image, expected, rtol=1e-5, atol=1e-4)
    assert train_egma.main([*places, str(tmp_path / "run"), *fast, "--micro_batch_size", "2"]) == 0
    assert train_egma.main([*places, str(tmp_path / "run"), *fast, "--micro_batch_size", "2", "--resume", "auto"]) == 0
    assert "this run is finished" in capsys.readouterr().out
    trained, _ = load_whole_model(tmp_path / "run")
    assert trained.config.pooling == "tower"


def _tokenizer(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(60))]
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder / "text")


def _vision(model: Any) -> Callable[[Path], None]:
    return lambda folder: model().save_pretrained(folder / "vision")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_tokenizer, "the tokenizer counts to 64, expected at most 59: the text encoder knows 60 entries"),
        (
            _vision(lambda: ViTModel(ViTConfig(**BODY, image_size=32, patch_size=8, num_channels=1))),
            "of 3 channels and",
        ),
        (_vision(lambda: ViTMAEModel(ViTMAEConfig(**BODY, image_size=32, patch_size=8))), "gives 5 tokens"),
        (_vision(lambda: ViTModel(ViTConfig(**BODY | {"num_hidden_layers": 1}, image_size=32, patch_size=8))), "lack"),
        (_vision(lambda: BlipModel(BlipConfig(text_config=BODY, vision_config=BODY))), "is no encoder by itself"),
    ],
    ids=["tokenizer", "one channel", "masking", "layers missing", "half of another kind"],
)
def test_what_does_not_fit_is_said_before_the_first_batch(
    towers: Path, phantom_data: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str
) -> None:
    config = (towers / "vision" / "config.json").read_text()
    spoil(towers)
    if said == "lack":  # the config of the whole one, the weights of a half
        (towers / "vision" / "config.json").write_text(config)
    assert train_egma.main(started(towers, phantom_data, "--dry_run", "True")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: cannot build the model: ") and said in error
    assert not (towers / "run").exists()
