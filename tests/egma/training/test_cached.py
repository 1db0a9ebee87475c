"""Cached gradients against the graph of the whole batch, with the same dropout."""

import pytest
import torch
from accelerate import Accelerator

from egma.inference.texts import distinct_texts
from egma.training.cached import cached_step, split
from egma.training.step import TrainingModule, whole_step
from modeling_egma.interaction_egma import ONE_PROCESS

from .batches import gradients, joined, largest_difference, make_batch, small_model

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.mark.parametrize("micro", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradient_is_that_of_the_whole_batch(
    accelerator: Accelerator, record_difference, micro: int, dtype: torch.dtype
) -> None:
    model, batch = small_model(dtype).eval(), make_batch([3, 0, 1, 5, 2, 2, 1], 3, dtype)
    loss, terms = whole_step(accelerator, TrainingModule(model), [batch])
    expected = gradients(model)
    model.zero_grad()
    cached_loss, cached_terms = cached_step(accelerator, TrainingModule(model), batch, micro)
    difference = largest_difference(gradients(model), expected)
    record_difference(f"cached gradients to the whole batch, {str(dtype).split('.')[1]}", difference)
    assert difference < TOLERANCE[dtype]
    assert abs(float(cached_loss - loss)) < TOLERANCE[dtype] * float(loss)
    assert all(torch.allclose(cached_terms[name], value, rtol=1e-5) for name, value in terms.items())


def test_dropout_is_the_same_in_both_passes(accelerator: Accelerator, record_difference) -> None:
    """The reference keeps the graph of every micro batch's one forward pass."""
    model = small_model(torch.float64, dropout=0.3).train()
    module, batch = TrainingModule(model), make_batch([3, 1, 2, 5, 2], 3, torch.float64)
    torch.manual_seed(5)
    patches, texts = zip(*(module(part, stage="embeddings") for part in split(batch, 3)), strict=True)
    loss, _ = module.objective(module.features(batch, torch.cat(patches), torch.cat(texts)), ONE_PROCESS)
    loss.backward()
    expected, state = gradients(model), torch.get_rng_state()
    model.zero_grad()
    torch.manual_seed(5)
    cached_step(accelerator, module, batch, 2)
    difference = largest_difference(gradients(model), expected)
    record_difference("cached gradients to the whole batch, dropout on, float64", difference)
    assert difference < 1e-10
    assert torch.equal(torch.get_rng_state(), state)
    model.zero_grad()
    torch.manual_seed(6)
    cached_step(accelerator, module, batch, 2)
    assert largest_difference(gradients(model), expected) > 1e-3


def test_less_is_kept_for_the_backward_pass(accelerator: Accelerator) -> None:
    """The largest tensor of a graph belongs to a micro batch, not to the batch."""
    model, batch = small_model(torch.float32).eval(), make_batch([2] * 16, 3, torch.float32)
    module = TrainingModule(model)
    alive, most = 0, 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal alive, most
            self.tensor, self.size = tensor, tensor.nbytes
            alive += self.size
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.size

    def bytes_kept(step: object, *args: object) -> int:
        nonlocal alive, most
        alive, most = 0, 0
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            step(accelerator, module, *args)
        return most

    whole = bytes_kept(whole_step, [batch])
    assert bytes_kept(cached_step, batch, 2) < whole / 4


def test_accumulation_is_the_mean_of_smaller_batches(accelerator: Accelerator) -> None:
    """Which is another gradient than that of the joined batch: fewer negatives."""
    model = small_model(torch.float64).eval()
    batches = [make_batch([3, 1, 2], 0, torch.float64), make_batch([2, 2, 4], 1, torch.float64)]
    sums = []
    for batch in batches:
        TrainingModule(model)(batch)[0].backward()
        sums.append(gradients(model))
        model.zero_grad()
    expected = {name: (sums[0][name] + sums[1][name]) / 2 for name in sums[0]}
    loss, terms = whole_step(accelerator, TrainingModule(model), batches)
    assert largest_difference(gradients(model), expected) < 1e-12
    assert loss == pytest.approx(float(sum(terms.values())))
    model.zero_grad()
    whole_step(accelerator, TrainingModule(model), [joined(batches)])
    assert largest_difference(gradients(model), expected) > 1e-3


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("is_distinct", [False, True])
def test_parts_give_the_batch_back(parts: int, is_distinct: bool) -> None:
    batch = make_batch([3, 0, 1, 4, 2], 3, torch.float64)
    batch |= distinct_texts(batch) if is_distinct else {}
    found = list(split(batch, parts))
    for name in ("pixel_values", "input_ids", "attention_mask"):
        assert torch.equal(torch.cat([part[name] for part in found]), batch[name])
    assert max(len(part["pixel_values"]) for part in found) == -(-5 // parts)
    assert max(len(part["input_ids"]) for part in found) == -(-len(batch["input_ids"]) // parts)
    lengths = [length for part in found for length in part.get("text_lengths", [])]
    assert lengths == batch.get("text_lengths", [])


def test_nonfinite_loss_shows_in_the_gradients(accelerator: Accelerator) -> None:
    """The device decides what is not finite: the host does not wait for the loss between the two passes."""
    model, batch = small_model(torch.float64).eval(), make_batch([2, 2], 3, torch.float64)
    batch["pixel_values"][1] = torch.nan
    loss, _ = cached_step(accelerator, TrainingModule(model), batch, 1)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert not torch.isfinite(loss) and gradients
    assert not torch.isfinite(torch.nn.utils.get_total_norm(gradients))
