"""Compiled training against eager: the one slow test of compilation."""

import pytest
import torch
from torch._dynamo.utils import counters

from egma.training.devices import make_module
from egma.training.step import TrainingModule

from .batches import gradients, largest_difference, make_batch, small_model

# of other lengths and numbers of sentences, in the same bucket; no two sizes are equal by chance
BATCHES = [([3, 1, 2, 1, 4], 6), ([2, 2, 1, 3, 1], 9)]


@pytest.mark.timeout(600)
def test_compiled_gradients_are_those_of_eager_and_lengths_of_a_bucket_share_a_program(record_difference) -> None:
    model = small_model(torch.float32).train()
    compiled = make_module(model, torch.device("cpu"), compiled=True)
    programs = []
    for number, (counts, length) in enumerate(BATCHES):
        batch = make_batch(counts, number, torch.float32, length=length)
        eager = small_model(torch.float32).train()
        expected, _ = TrainingModule(eager)(batch)
        expected.backward()
        model.zero_grad()
        loss, _ = compiled(batch)
        loss.backward()
        difference = largest_difference(gradients(model), gradients(eager))
        record_difference("compiled gradients to eager, float32", difference)
        assert difference < 1e-5 and float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        programs.append(counters["stats"]["unique_graphs"])
    # the objective may be compiled once more for sizes that change; the encoders may not
    assert programs[1] - programs[0] <= 1
