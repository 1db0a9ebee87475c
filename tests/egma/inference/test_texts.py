"""Distinct sentences in blocks of like length, against each sentence encoded alone."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, BertConfig, ModernBertConfig, RobertaConfig

from egma.inference.texts import REAL_FRACTION, distinct_texts, encode_blocks, length_blocks, text_inputs

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
SENTENCES = [[5, 6, 7], [5], [5, 6, 7], [9, 8, 7, 6, 5, 6, 7, 8], [5], [5, 6], [6, 5], [5, 6, 7, 8, 9, 10, 11, 12, 13]]


def tokens_of(sentences: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, sentences), default=1)
    ids = torch.zeros(len(sentences), longest, dtype=torch.long)
    for row, sentence in enumerate(sentences):
        ids[row, : len(sentence)] = torch.tensor(sentence)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


# --- which are encoded


def test_equal_sentences_are_one_row_and_short_ones_come_first() -> None:
    found = distinct_texts(tokens_of(SENTENCES))
    assert found["text_lengths"] == [1, 2, 2, 3, 8, 9]
    rows = found["input_ids"][found["sentence_index"]]
    assert torch.equal(rows, tokens_of(SENTENCES)["input_ids"])
    assert torch.equal(found["attention_mask"], (found["input_ids"] != 0).long())


def test_a_difference_in_mask_or_types_is_a_difference() -> None:
    ids = torch.tensor([[5, 6], [5, 6], [5, 6]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    assert len(distinct_texts({"input_ids": ids, "attention_mask": mask})["input_ids"]) == 2
    types = torch.tensor([[0, 0], [0, 0], [0, 1]])
    found = distinct_texts({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    assert len(found["token_type_ids"]) == 3


def test_padding_on_the_left_is_kept() -> None:
    found = distinct_texts(
        {"input_ids": torch.tensor([[0, 0, 5], [5, 6, 7]]), "attention_mask": torch.tensor([[0, 0, 1], [1, 1, 1]])}
    )
    assert found["text_lengths"] == [3, 3]


def test_no_sentence_is_one_empty_block() -> None:
    found = distinct_texts(tokens_of([]))
    assert len(found["input_ids"]) == len(found["sentence_index"]) == 0 and found["text_lengths"] == []
    assert length_blocks([]) == [(0, 0, 1)]
    assert length_blocks([], blocks=2) == [(0, 0, 1)] * 2


# --- blocks


def padded_tokens(lengths: list[int], blocks: list[tuple[int, int, int]]) -> int:
    assert [row for start, stop, _ in blocks for row in range(start, stop)] == list(range(len(lengths)))
    for start, stop, length in blocks:
        assert start == stop or length >= max(lengths[start:stop])
    return sum((stop - start) * length for start, stop, length in blocks)


def least_tokens(lengths: list[int], count: int) -> int:
    """By trying every way to cut."""
    cuts = itertools.combinations(range(1, len(lengths)), min(count, len(lengths)) - 1)
    bounds = ([0, *cut, len(lengths)] for cut in cuts)
    return min(sum((b - a) * max(lengths[a:b]) for a, b in itertools.pairwise(one)) for one in bounds)


lengths = st.lists(st.integers(1, 30), min_size=1, max_size=9).map(sorted)


@given(lengths, st.integers(1, 4))
def test_blocks_encode_least(some: list[int], count: int) -> None:
    blocks = length_blocks(some, blocks=count)
    assert len(blocks) == count
    assert padded_tokens(some, blocks) == least_tokens(some, count)


@given(lengths)
def test_blocks_are_as_few_as_leave_little_padding(some: list[int]) -> None:
    count = len(length_blocks(some))
    assert sum(some) >= REAL_FRACTION * padded_tokens(some, length_blocks(some))
    assert count == 1 or sum(some) < REAL_FRACTION * least_tokens(some, count - 1)


@given(lengths, st.sampled_from([8, 16]), st.integers(30, 40))
def test_lengths_are_rounded_up_to_what_the_encoder_has_places_for(some: list[int], multiple: int, limit: int) -> None:
    blocks = length_blocks(some, multiple, limit)
    padded_tokens(some, blocks)
    assert all(length % multiple == 0 or length == limit for start, stop, length in blocks if start < stop)
    assert all(length <= limit for _, _, length in blocks)


# --- what they are encoded to


def towers() -> list[Any]:
    small = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 0}
    return [BertConfig(**small), RobertaConfig(**small), ModernBertConfig(**small, cls_token_id=1, sep_token_id=2)]


@pytest.mark.parametrize("config", towers(), ids=lambda config: config.model_type)
@pytest.mark.parametrize("filler", [None, 0])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_embeddings_are_those_of_each_sentence_alone(
    record_difference: Any, config: Any, filler: int | None, dtype: torch.dtype
) -> None:
    tower = AutoModel.from_config(config).to(dtype).eval()

    def encode(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return (states * attention_mask[..., None]).sum(dim=1) / attention_mask.sum(dim=1)[:, None]

    batch = distinct_texts(tokens_of(SENTENCES))
    blocks = length_blocks(batch["text_lengths"], 1 if filler is None else 16, 40)
    found = encode_blocks(encode, text_inputs(batch), blocks, filler)[batch["sentence_index"]]
    alone = torch.cat([encode(**tokens_of([sentence])) for sentence in SENTENCES])
    difference = float((found - alone).detach().abs().max())
    record_difference(f"sentences in blocks to each alone, {str(dtype).split('.')[1]}", difference)
    assert difference < TOLERANCE[dtype]
