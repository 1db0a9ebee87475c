"""What the model gives beside embeddings, as SigLIP does: the towers' outputs, hidden states, token types."""

import inspect

import pytest
import torch
from transformers import BertConfig, DistilBertConfig, ModernBertConfig, RobertaConfig

from modeling_egma import EgmaConfig, EgmaModel

SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
SMALL |= {"intermediate_size": 32, "max_position_embeddings": 40}
TEXT_CONFIGS = [
    BertConfig(**SMALL),
    RobertaConfig(**SMALL, type_vocab_size=1),
    ModernBertConfig(**SMALL, cls_token_id=1, sep_token_id=2),
    DistilBertConfig(vocab_size=64, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=40),
]


@pytest.fixture
def inputs():
    return {"pixel_values": torch.randn(2, 3, 112, 112), "input_ids": torch.randint(5, 60, (3, 6))}


def test_output_holds_that_of_both_towers(tiny_model, inputs):
    output = tiny_model(**inputs)
    image = tiny_model.get_image_features(inputs["pixel_values"])
    text = tiny_model.get_text_features(inputs["input_ids"])
    for found, expected in ((output.vision_model_output, image), (output.text_model_output, text)):
        assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
        assert torch.equal(found.pooler_output, expected.pooler_output)
        assert found.hidden_states is None
    assert torch.equal(output.text_embeds, torch.nn.functional.normalize(text.pooler_output, dim=-1))


def test_hidden_states_are_given_when_asked_for(tiny_model, inputs):
    output = tiny_model(**inputs, output_hidden_states=True)
    expected = tiny_model.text_model(inputs["input_ids"], output_hidden_states=True).hidden_states
    found = output.text_model_output.hidden_states
    assert len(found) == len(expected) == 3
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(output.vision_model_output.hidden_states) == 4
    assert tiny_model.get_text_features(inputs["input_ids"]).hidden_states is None
    tiny_model.text_model.config.output_hidden_states = True
    assert len(tiny_model.get_text_features(inputs["input_ids"]).hidden_states) == 3
    assert tiny_model.get_text_features(inputs["input_ids"], output_hidden_states=False).hidden_states is None


@pytest.mark.parametrize(("asked", "kept"), [([0, -1], [0, 2]), (1, [1]), ([], [])])
def test_hidden_states_of_some_layers_keep_their_places(tiny_model, inputs, asked, kept):
    whole = tiny_model.get_text_features(inputs["input_ids"], output_hidden_states=True)
    some = tiny_model.get_text_features(inputs["input_ids"], output_hidden_states=asked)
    assert [n for n, state in enumerate(some.hidden_states) if state is not None] == kept
    assert all(torch.equal(some.hidden_states[n], whole.hidden_states[n]) for n in kept)
    assert torch.equal(some.pooler_output, whole.pooler_output)
    none = tiny_model.get_text_features(inputs["input_ids"][:0], output_hidden_states=asked)
    assert [n for n, state in enumerate(none.hidden_states) if state is not None] == kept


def test_tuples_hold_tuples(tiny_model, inputs):
    output = tiny_model(**inputs)
    plain = tiny_model(**inputs, return_dict=False)
    assert isinstance(plain[-1], tuple) and torch.equal(plain[-1][0], output.text_model_output.last_hidden_state)
    assert len(plain) == len(output.keys())


def test_no_sentence_gives_outputs_without_rows(tiny_model, inputs):
    none = torch.zeros(0, 4, dtype=torch.long)
    output = tiny_model(inputs["pixel_values"], none, output_hidden_states=True)
    assert output.text_embeds.shape == (0, 12) and output.logits_per_image.shape == (2, 0)
    assert [state.shape for state in output.text_model_output.hidden_states] == [(0, 4, 16)] * 3
    assert output.text_embeds.requires_grad


@pytest.mark.parametrize("text", TEXT_CONFIGS, ids=lambda config: config.model_type)
def test_token_types_go_to_a_tower_that_has_them(tiny_swin, inputs, text):
    model = EgmaModel(EgmaConfig(vision_config=tiny_swin.to_dict(), text_config=text.to_dict(), projection_dim=12))
    ids, types = inputs["input_ids"], torch.zeros_like(inputs["input_ids"])
    model.eval()
    assert torch.equal(model.encode_text(ids, None, types), model.encode_text(ids))
    if text.model_type == "bert":
        types[:, 3:] = 1
        assert not torch.allclose(model.encode_text(ids, None, types), model.encode_text(ids))


def test_the_loss_is_still_for_reports_alone_unless_asked_for(tiny_model, inputs):
    """Whatever the signature says to those who ask it."""
    assert inspect.signature(EgmaModel.forward).parameters["return_loss"].default is True
    square = inputs | {"input_ids": inputs["input_ids"][:2]}
    assert tiny_model(**square).loss is None and tiny_model(**square, return_loss=True).loss is not None
