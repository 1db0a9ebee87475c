"""What a run starts from: grey statistics and vocabulary of the training split."""

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_scripts.schema import UserError
from egma_training.start import grey_statistics, train_tokenizer


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
    assert first.tokenize("No pleural effusion.") == ["no", "pleural", "effusion", "."]
    assert "[UNK]" not in first.tokenize("unseen help")
    assert first.model_max_length == 16


def test_vocabulary_keeps_the_most_frequent_words() -> None:
    rows = rows_of([np.zeros((4, 4), np.uint8)] * 3, ["ab ab ab", "ab ba", "ba aab"])
    assert set(train_tokenizer(rows, 11, 16).get_vocab()) >= {"a", "b", "##a", "##b", "ab", "ba"}
    assert "aab" not in train_tokenizer(rows, 11, 16).get_vocab()


def test_no_text_is_a_users_mistake() -> None:
    rows = rows_of([np.zeros((4, 4), np.uint8)], ["a"]).map(lambda row: {"sentences": []})
    with pytest.raises(UserError, match="no sentence"):
        train_tokenizer(rows, 10, 16)
