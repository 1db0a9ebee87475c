"""Where a sentence ends, the same at every door, and tokenizers that do not fit."""

import copy

import pytest
from transformers import AutoProcessor, AutoTokenizer, RobertaConfig
from transformers.image_utils import SizeDict

from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor

NO_LIMIT = 10**30  # what a tokenizer without a limit states


@pytest.fixture
def without_limit(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = NO_LIMIT
    return tokenizer


@pytest.mark.parametrize(
    ("stated", "positions", "asked", "expected"),
    [(NO_LIMIT, 32, None, 32), (NO_LIMIT, 32, 20, 20), (10, 32, 20, 10), (512, 32, 64, 32), (16, 512, None, 16)],
)
def test_a_sentence_ends_at_the_smallest_limit_here_and_when_loaded(
    tmp_path, tiny_config, without_limit, stated, positions, asked, expected
):
    tiny_config.text_config.max_position_embeddings = positions
    without_limit.model_max_length = stated
    processor = EgmaProcessor.for_model(tiny_config, without_limit, max_length=asked)
    processor.save_pretrained(tmp_path)
    assert without_limit.model_max_length == stated
    for one in (processor, AutoProcessor.from_pretrained(tmp_path)):
        assert one.max_length == expected
        for given in ({}, {"max_length": 1000}, {"text_kwargs": {"max_length": 1000}}):
            one.truncated_sentences = 0
            assert one(text=["no " * 600, "clear"], **given)["input_ids"].shape == (2, expected)
            assert one.truncated_sentences == 1
        assert one(text=["no " * 600], max_length=5)["input_ids"].shape == (1, 5)
        assert one.is_cut(["no " * (expected - 2), "no " * (expected - 1)]) == [False, True] and one.is_cut([]) == []
    assert len(AutoTokenizer.from_pretrained(tmp_path)("no " * 600, truncation=True)["input_ids"]) == expected


def test_roberta_counts_its_positions_after_the_padding_token(tiny_config, without_limit):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    roberta = RobertaConfig(**text, vocab_size=64, max_position_embeddings=30)
    config = EgmaConfig(vision_config=tiny_config.vision_config, text_config=roberta)
    batch = EgmaProcessor.for_model(config, without_limit)(text=["no " * 600])
    assert batch["input_ids"].shape == (1, 28)
    assert EgmaModel(config).eval().encode_text(**batch).isfinite().all()


def test_a_call_leaves_nothing_in_the_tokenizer_or_its_file(processor, tmp_path):
    processor.save_pretrained(tmp_path / "before")
    processor(text=["clear"], max_length=5, padding="max_length")
    backend = processor.tokenizer.backend_tokenizer
    assert backend.truncation is None and backend.padding is None
    processor.tokenizer(["clear"], truncation=True, max_length=4, padding=True)
    processor.save_pretrained(tmp_path / "after")
    for path in (tmp_path / "before").glob("*.json"):
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()


def test_a_limit_in_other_peoples_tokenizer_file_is_kept_and_counted(tiny_config, without_limit, tmp_path):
    without_limit(["clear"], truncation=True, max_length=9, padding=True)
    without_limit.save_pretrained(tmp_path)
    processor = EgmaProcessor.for_model(tiny_config, AutoTokenizer.from_pretrained(tmp_path))
    assert processor(text=["no " * 40])["input_ids"].shape == (1, 9) and processor.truncated_sentences == 1
    assert processor.max_length == 9


def test_what_is_not_cut_is_not_counted(processor):
    assert processor(text=["no " * 40], truncation=False)["input_ids"].shape == (1, 42)
    assert processor.truncated_sentences == 0


def _padless(tokenizer):
    tokenizer.pad_token = None


def _wordy(tokenizer):
    tokenizer.add_tokens([f"word{number}" for number in range(40)])


@pytest.mark.parametrize(
    ("change", "said"),
    [(_padless, "the tokenizer has no padding token"), (_wordy, r"counts to \d+, expected at most 63")],
)
def test_a_tokenizer_that_the_text_encoder_cannot_follow_is_refused(tiny_config, without_limit, change, said):
    change(without_limit)
    with pytest.raises(ValueError, match=said):
        EgmaProcessor.for_model(tiny_config, without_limit)


@pytest.mark.parametrize("size", [{"height": 224, "width": 224}, {"height": 112, "width": 56}, {"shortest_edge": 112}])
def test_a_frame_of_another_model_is_refused(processor, tiny_config, size):
    processor.image_processor.size = SizeDict(**size)
    with pytest.raises(ValueError, match="expected 112 x 112 px and 7, which are the model's"):
        processor.fit(tiny_config)


def test_a_grid_of_another_model_is_refused(processor, tiny_config):
    processor.grid_size = 14
    with pytest.raises(ValueError, match="for a grid of 14, expected 112 x 112 px and 7"):
        processor.fit(tiny_config)
