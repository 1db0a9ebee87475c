"""Remembered tokens are those that the processor makes of all sentences of a batch."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from egma.inference.texts import distinct_texts
from egma.training import data
from egma.training.data import ReadingCollator

SENTENCES = [
    "no effusion",
    "the heart is normal in size",
    "no",
    "",
    "No effusion",
    "clear lungs " * 9,
    "small effusion",
]
batches = st.lists(st.lists(st.sampled_from(SENTENCES), max_size=8), min_size=1, max_size=4)


def expected_of(processor: Any, texts: list[str]) -> dict[str, Any]:
    before = processor.truncated_sentences
    made = dict(processor(text=texts))
    cut = processor.truncated_sentences - before
    rows = torch.zeros(len(texts), dtype=torch.long)
    return made | distinct_texts(made) | {"truncated_sentences": cut, "sentence_to_image": rows}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kept", [2, 2**15])
@given(made=batches)
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_tokens_are_the_processors(
    processor: Any, monkeypatch: pytest.MonkeyPatch, side: str, kept: int, made: list[list[str]]
) -> None:
    processor.tokenizer.padding_side = side
    processor.tokenizer.model_max_length = 10
    monkeypatch.setattr(data, "MOST_TEXTS", kept)
    remembered = ReadingCollator(processor)
    for texts in made:
        found, expected = remembered._tokens([texts]), expected_of(processor, texts)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
            else:
                assert found[name] == value, name


def test_a_sentence_is_tokenised_once(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    tokenise = processor.token_lists
    monkeypatch.setattr(processor, "token_lists", lambda texts: asked.append(texts) or tokenise(texts))
    remembered = ReadingCollator(processor)
    for texts in (["no effusion", "no", "no effusion"], ["no", "small effusion"], ["no", "no effusion"]):
        remembered._tokens([texts])
    assert asked == [["no effusion", "no"], ["small effusion"]]


def test_no_more_than_the_limit_is_remembered(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MOST_TEXTS", 3)
    remembered = ReadingCollator(processor)
    for number in range(9):
        remembered._tokens([[f"sentence {number}", "no"]])
        assert len(remembered.known) <= 3 and "no" in remembered.known
