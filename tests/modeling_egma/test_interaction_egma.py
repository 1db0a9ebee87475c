"""The objective tile by tile: the same values, and nothing kept for the backward pass but inputs."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_egma import interaction_egma as interaction
from modeling_egma import losses_egma as losses
from modeling_egma import matching_egma

from . import test_losses_egma as terms
from .test_losses_egma import (
    CASES,
    SCALE,
    TERMS,
    TOLERANCE,
    difference,
    make_batch,
    naive_term,
    tied_sum,
    with_gradients,
)


@pytest.mark.parametrize("tile_bytes", [1, 400, 3000])
@pytest.mark.parametrize("case", CASES)
def test_tiles_equal_loops_over_scalars(case, tile_bytes, monkeypatch, record_difference):
    monkeypatch.setattr(interaction, "CPU_TILE_BYTES", tile_bytes)
    batch = CASES[case]
    value, gradients = with_gradients(TERMS["contrastive"], batch)
    naive_value, naive_gradients = with_gradients(lambda b, scale: naive_term("contrastive", b, scale), batch)
    error = difference(value, naive_value) + difference(gradients[2], naive_gradients[2])
    vectors = (batch.patches.flatten(0, 1), batch.sentences)
    for fast, slow, vector in zip(gradients[:2], naive_gradients[:2], vectors, strict=True):
        fast, slow = (tied_sum(gradient.reshape(vector.shape), vector) for gradient in (fast, slow))
        error = max(error, difference(fast, slow))
    record_difference("tiled late interaction to loops over scalars", error)
    assert error < TOLERANCE


def test_tiles_pass_gradcheck(monkeypatch):
    monkeypatch.setattr(interaction, "CPU_TILE_BYTES", 200)
    terms.test_gradients_pass_gradcheck("contrastive")


def bytes_kept_for_backward(function, leaves):
    """Bytes of the distinct storages that autograd keeps, the leaves' own apart."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = function()
    own = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    return value, sum(size for pointer, (_, size) in kept.items() if pointer not in own)


@pytest.mark.parametrize("counts", [(2, 3), tuple(1 + k % 8 for k in range(64))], ids=["few", "many"])
def test_late_interaction_keeps_its_inputs_alone(counts):
    batch = make_batch(counts, cells=49, width=32, dtype=torch.float32)
    leaves = [batch.patches.requires_grad_(), batch.sentences.requires_grad_()]
    reports = interaction.lay_out(batch.rows, len(counts), torch.device("cpu"))
    _, kept = bytes_kept_for_backward(lambda: interaction.late_interaction(*leaves, reports), leaves)
    assert kept == 0


def test_the_contrastive_term_keeps_no_similarity_whatever_the_tile(monkeypatch, record_difference):
    counts = tuple(1 + k % 8 for k in range(64))
    batch = make_batch(counts, cells=49, width=32, dtype=torch.float32)
    leaves = [batch.patches.requires_grad_(), batch.sentences.requires_grad_(), torch.tensor(SCALE).requires_grad_()]

    def run(tile_bytes):
        monkeypatch.setattr(interaction, "CPU_TILE_BYTES", tile_bytes)
        function = lambda: losses.contrastive_alignment_loss(*batch.packed, leaves[2])  # noqa: E731
        value, kept = bytes_kept_for_backward(function, leaves)
        return value.detach(), kept, torch.autograd.grad(value, leaves)

    whole, whole_bytes, whole_gradients = run(2**40)
    tiled, tiled_bytes, tiled_gradients = run(2**16)
    # logits of 64 x 64 and what the cross-entropies keep of them; the similarities would be 49 x 8 times as much
    assert whole_bytes == tiled_bytes < 16 * 64 * 64 * 4
    assert abs(float(whole - tiled)) < 1e-6
    error = max(difference(a, b) for a, b in zip(whole_gradients, tiled_gradients, strict=True))
    record_difference("tiled late interaction to one tile, float32 gradients", error)
    assert error < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_mapping_of_one_image_at_a_time_equals_loops_over_scalars(case, monkeypatch, record_difference):
    monkeypatch.setattr(matching_egma, "TILE_BYTES", 1)
    terms.test_term_equals_loops_over_scalars(case, "mapping", record_difference)


def test_mapping_of_some_images_at_a_time_passes_gradcheck(monkeypatch):
    monkeypatch.setattr(matching_egma, "TILE_BYTES", 1)
    terms.test_gradients_pass_gradcheck("mapping")


def test_mapping_in_tiles_keeps_its_arguments_alone(monkeypatch):
    batch = make_batch((2, 3, 4, 1), cells=64, width=8, dtype=torch.float32)
    leaves = [batch.patches.requires_grad_(), batch.sentences.requires_grad_(), torch.tensor(SCALE).requires_grad_()]
    kept, values = [], []
    for tile_bytes in (2**28, 1):
        monkeypatch.setattr(matching_egma, "TILE_BYTES", tile_bytes)
        function = lambda: losses.cross_modality_mapping_loss(*batch.packed, *batch.gaze, leaves[2])  # noqa: E731
        value, size = bytes_kept_for_backward(function, leaves)
        kept.append(size)
        values.append(torch.cat([one.flatten() for one in torch.autograd.grad(value, leaves)]))
    # four images: own cosines, logits and heat maps (4, 64) and the padded sentences, but no (64, 64) of patches
    assert kept[1] < 4 * (4 * 4 * 4 * 64) == 4 * 4 * 64 * 64 / 4 < kept[0] / 4
    assert difference(*values) < 1e-6


def test_mapping_of_large_grids_needs_little_memory():
    """24 images of 37 x 37 patches in a process of its own; at once they take 1.1 GiB."""
    program = """
import resource, torch
from modeling_egma.losses_egma import cross_modality_mapping_loss as mapping
torch.set_num_threads(1)
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = most()
patches = torch.nn.functional.normalize(torch.randn(24, 1369, 16), dim=-1).requires_grad_()
sentences = torch.nn.functional.normalize(torch.randn(120, 16), dim=-1).requires_grad_()
mapping(patches, sentences, torch.arange(120) // 5, None, None, 14.0).backward()
print(most() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5


def test_tiles_under_autocast_are_float32(tiny_model, monkeypatch):
    monkeypatch.setattr(interaction, "CPU_TILE_BYTES", 1)
    batch = make_batch((3, 2), cells=4, width=3, dtype=torch.float32)
    expected, _ = tiny_model.objective(*batch.packed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = tiny_model.objective(*batch.packed)
    assert value.dtype == torch.float32 and torch.equal(value, expected)


class Waits(TorchDispatchMode):
    """Operations that make the host wait for a device: their result decides a shape or is read."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "repeat_interleave")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        indices = args[1] if "index" in str(function) and isinstance(args[1], list | tuple) else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in indices)
        if by_mask or any(name in str(function) for name in self.NAMES):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def test_the_host_reads_the_lengths_of_reports_and_nothing_else(tiny_model, monkeypatch):
    laid_out = []
    original = losses.lay_out
    monkeypatch.setattr(losses, "lay_out", lambda *given: laid_out.append(1) or original(*given))
    batch = make_batch((3, 0, 2), dtype=torch.float32)
    batch.patches.requires_grad_()
    with Waits() as waits:
        loss, _ = tiny_model.objective(*batch.packed, *batch.gaze, torch.arange(3), torch.arange(5))
        loss.backward()
    assert waits.seen == [] and len(laid_out) == 1


def test_going_backward_under_autocast_is_the_same(tiny_model):
    batch = make_batch((3, 2), cells=4, width=3, dtype=torch.float32)
    patches, *rest = batch.packed
    patches = patches.clone().requires_grad_()
    expected = torch.autograd.grad(tiny_model.objective(patches, *rest)[0], patches)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(tiny_model.objective(patches, *rest)[0], patches)[0]
    assert torch.allclose(found, expected, atol=0.02) and found.dtype == torch.float32
