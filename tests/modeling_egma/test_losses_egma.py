"""The objective against loops over scalars, its symmetries, and its behaviour at the edges."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from modeling_egma import losses_egma as losses

from . import naive_objective as naive

TOLERANCE = 1e-8
SCALE = 1 / 0.07
MAXIMUM = math.log(100)


@dataclass
class Batch:
    patches: torch.Tensor
    sentences: torch.Tensor
    rows: torch.Tensor
    heatmaps: torch.Tensor | None
    mask: torch.Tensor | None

    @property
    def packed(self):
        return self.patches, self.sentences, self.rows

    @property
    def gaze(self):
        return self.heatmaps, self.mask

    def nested(self, values):
        """Packed rows -> one list a report, as the naive reference takes them."""
        return [[values[n] for n in range(len(self.rows)) if self.rows[n] == k] for k in range(len(self.patches))]


def make_batch(counts, cells=4, width=3, seed=0, dtype=torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=dtype)

    heatmaps = rand(sum(counts), cells) ** 4
    return Batch(
        patches=F.normalize(rand(len(counts), cells, width) - 0.5, dim=-1),
        sentences=F.normalize(rand(sum(counts), width) - 0.5, dim=-1),
        rows=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        heatmaps=heatmaps / heatmaps.amax(dim=-1, keepdim=True),
        mask=torch.ones(len(counts), dtype=torch.bool),
    )


def negative_similarities() -> Batch:
    batch = make_batch((3, 2))
    return replace(batch, patches=batch.patches.abs(), sentences=-batch.sentences.abs())


def identical_patches() -> Batch:
    batch = make_batch((3, 2))
    batch.patches[:, 1] = batch.patches[:, 0]
    return batch


def identical_sentences() -> Batch:
    batch = make_batch((3, 2))
    batch.sentences[1] = batch.sentences[0]
    return batch


def constant_map() -> Batch:
    batch = make_batch((3, 2))
    batch.patches[0] = batch.patches[0, :1]
    return batch


def shuffled_order() -> Batch:
    batch = make_batch((3, 1, 4), seed=5)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    return replace(batch, sentences=batch.sentences[order], rows=batch.rows[order], heatmaps=batch.heatmaps[order])


CASES = {
    "three reports": make_batch((3, 2, 4)),
    "one-sentence reports": make_batch((1, 1, 1)),
    "very different lengths": make_batch((1, 9, 2)),
    "all similarities negative": negative_similarities(),
    "identical patches": identical_patches(),
    "identical sentences": identical_sentences(),
    "constant map": constant_map(),
    "image without sentences": make_batch((2, 0, 3)),
    "no gaze at all": replace(make_batch((3, 2)), heatmaps=None, mask=None),
    "gaze of nobody": replace(make_batch((3, 2)), mask=torch.zeros(2, dtype=torch.bool)),
    "gaze for some images": replace(make_batch((3, 2, 2)), mask=torch.tensor([True, False, True])),
    "shuffled order": shuffled_order(),
    "one image": make_batch((3,)),
    "one image, one sentence": make_batch((1,)),
    "no sentence": make_batch((0, 0)),
    "many patches": make_batch((2, 3), cells=9, width=5, seed=3),
}

TERMS = {
    "contrastive": lambda batch, scale: losses.contrastive_alignment_loss(*batch.packed, scale),
    "gaze": lambda batch, scale: losses.gaze_alignment_loss(*batch.packed, *batch.gaze, scale),
    "mapping": lambda batch, scale: losses.cross_modality_mapping_loss(*batch.packed, *batch.gaze, scale),
}


def naive_term(name, batch, scale):
    images, reports = list(batch.patches), batch.nested(batch.sentences)
    if name == "contrastive":
        return naive.contrastive(images, reports, scale)
    recorded = batch.mask if batch.mask is not None else [False] * len(images)
    maps = batch.nested(batch.heatmaps) if batch.heatmaps is not None else [None] * len(images)
    return getattr(naive, name)(images, reports, maps, recorded, scale)


def with_gradients(function, batch, scale=SCALE):
    """Value of `function` and its gradients towards patches, sentences and scale."""
    leaves = [batch.patches.clone(), batch.sentences.clone(), torch.tensor(scale, dtype=batch.patches.dtype)]
    for leaf in leaves:
        leaf.requires_grad_()
    value = function(replace(batch, patches=leaves[0], sentences=leaves[1]), leaves[2])
    if not value.requires_grad:
        return value, tuple(torch.zeros_like(leaf) for leaf in leaves)
    return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


def tied_sum(gradient, vectors):
    """Gradients (K, D) summed over equal vectors: at a tie of a maximum only the sum is determined."""
    same = (vectors[:, None] == vectors[None]).all(dim=-1).to(gradient.dtype)
    return same @ gradient


def difference(a, b):
    return float((a - b).abs().max()) if a.numel() else 0.0


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("case", CASES)
def test_term_equals_loops_over_scalars(case, term, record_difference):
    batch = CASES[case]
    value, gradients = with_gradients(TERMS[term], batch)
    naive_value, naive_gradients = with_gradients(lambda b, scale: naive_term(term, b, scale), batch)
    value_error = difference(value, naive_value)
    vectors = (batch.patches.flatten(0, 1), batch.sentences)
    gradient_error = difference(gradients[2], naive_gradients[2])
    for fast, slow, vector in zip(gradients[:2], naive_gradients[:2], vectors, strict=True):
        fast, slow = (tied_sum(gradient.reshape(vector.shape), vector) for gradient in (fast, slow))
        gradient_error = max(gradient_error, difference(fast, slow))
    record_difference("loss values to loops over scalars", value_error)
    record_difference("loss gradients to loops over scalars", gradient_error)
    assert value_error < TOLERANCE
    assert gradient_error < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_instance_logits_equal_loops_over_scalars(case, record_difference):
    batch = CASES[case]
    expected = naive.instance_logits(list(batch.patches), batch.nested(batch.sentences), SCALE)
    for fast, slow in zip(losses.late_interaction_logits(*batch.packed, SCALE), expected, strict=True):
        error = difference(fast, torch.tensor(slow, dtype=torch.float64))
        record_difference("loss values to loops over scalars", error)
        assert error < TOLERANCE


@pytest.mark.parametrize(("threshold", "weight"), [(0.0, 0.0), (0.5, 1.0), (1.0, 0.3)])
def test_gaze_settings_mean_what_the_loops_say(threshold, weight):
    batch = CASES["three reports"]
    fast = losses.gaze_alignment_loss(*batch.packed, *batch.gaze, SCALE, threshold, weight)
    maps, reports = batch.nested(batch.heatmaps), batch.nested(batch.sentences)
    slow = naive.gaze(list(batch.patches), reports, maps, batch.mask, SCALE, threshold, weight)
    assert abs(float(fast - slow)) < TOLERANCE


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_mapping_threshold_means_what_the_loops_say(threshold):
    batch = CASES["three reports"]
    fast = losses.cross_modality_mapping_loss(*batch.packed, *batch.gaze, SCALE, threshold)
    maps, reports = batch.nested(batch.heatmaps), batch.nested(batch.sentences)
    slow = naive.mapping(list(batch.patches), reports, maps, batch.mask, SCALE, threshold)
    assert abs(float(fast - slow)) < TOLERANCE


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, 2, 3), (0, 1, 0)])
def test_total_is_the_weighted_sum_and_its_gradient_reaches_the_log_scale(tiny_model, weights, record_difference):
    model = tiny_model.double()
    for name, weight in zip(TERMS, weights, strict=True):
        setattr(model.config, f"{name}_weight", weight)
    batch = CASES["gaze for some images"]
    loss, components = model.objective(*batch.packed, *batch.gaze)
    (gradient,) = torch.autograd.grad(loss, model.logit_scale)
    log_scale = model.logit_scale.detach().clone().requires_grad_()
    terms = {name: naive_term(name, batch, log_scale.exp()) for name in TERMS}
    expected = sum(weight * terms[name] for name, weight in zip(TERMS, weights, strict=True))
    (expected_gradient,) = torch.autograd.grad(expected, log_scale)
    record_difference("loss values to loops over scalars", difference(loss.detach(), expected.detach()))
    record_difference("loss gradients to loops over scalars", difference(gradient, expected_gradient))
    assert torch.allclose(loss, expected, rtol=0, atol=TOLERANCE)
    assert torch.allclose(gradient, expected_gradient, rtol=0, atol=TOLERANCE)
    assert set(components) == {name for name, weight in zip(TERMS, weights, strict=True) if weight}
    assert all(difference(value.detach(), terms[name].detach()) < TOLERANCE for name, value in components.items())


@pytest.mark.parametrize("unweighted", TERMS)
def test_a_term_of_weight_0_is_not_computed(tiny_model, monkeypatch, unweighted):
    """Nor is what only it needs: an input that would spoil it does nothing."""

    def refused(*_arguments):
        raise AssertionError(f"{unweighted} was computed")

    setattr(tiny_model.config, f"{unweighted}_weight", 0)
    monkeypatch.setattr(losses, f"_{unweighted}", refused)
    batch = make_batch((3, 2), dtype=torch.float32)
    loss, components = tiny_model.objective(*batch.packed, *batch.gaze)
    assert set(components) == TERMS.keys() - {unweighted} and torch.isfinite(loss)


def test_without_any_weight_the_loss_is_a_zero_on_the_graph(tiny_model):
    for name in TERMS:
        setattr(tiny_model.config, f"{name}_weight", 0)
    loss, components = tiny_model.objective(*make_batch((3, 2), dtype=torch.float32).packed)
    loss.backward()
    assert components == {} and float(loss.detach()) == 0 and float(tiny_model.logit_scale.grad) == 0


def test_multi_label_cross_entropy_equals_loops_and_skips_masked_entries():
    logits = 5 * torch.randn(4, 3, 6, dtype=torch.float64)
    labels, mask = torch.rand(4, 3, 6) > 0.5, torch.rand(4, 3, 6) > 0.3
    mask[0, 0] = False
    labels[1], labels[2] = True, False
    fast = losses.multi_label_cross_entropy(logits, labels, mask)
    for a in range(4):
        for b in range(3):
            kept = [i for i in range(6) if mask[a, b, i]]
            slow = naive.mlce([logits[a, b, i] for i in kept], [labels[a, b, i] for i in kept])
            assert abs(float(fast[a, b] - slow)) < TOLERANCE


def test_masked_out_infinity_leaves_value_and_gradient_alone():
    logits = torch.tensor([1.0, -2.0, torch.inf], requires_grad=True)
    labels, mask = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    loss = losses.multi_label_cross_entropy(logits, labels, mask)
    loss.backward()
    assert torch.equal(loss, losses.multi_label_cross_entropy(logits[:2], labels[:2]))
    assert torch.isfinite(logits.grad).all() and logits.grad[2] == 0


@pytest.mark.parametrize("num_reports", [1, 2, 5])
def test_logits_of_other_numbers_of_reports_than_images(num_reports):
    images, reports = make_batch((1, 1, 1)), make_batch((2,) * num_reports, seed=4)
    fast = losses.late_interaction_logits(images.patches, reports.sentences, reports.rows, SCALE, num_reports)
    slow = naive.instance_logits(list(images.patches), reports.nested(reports.sentences), SCALE)
    for a, b in zip(fast, slow, strict=True):
        assert a.shape == (3, num_reports)
        assert difference(a, torch.tensor(b, dtype=torch.float64)) < TOLERANCE


@pytest.mark.parametrize("term", TERMS)
def test_gradients_pass_gradcheck(term):
    batch = make_batch((2, 3), seed=7)
    leaves = (batch.patches.requires_grad_(), batch.sentences.requires_grad_(), torch.tensor(5.0).double())

    def function(patches, sentences, scale):
        return TERMS[term](replace(batch, patches=patches, sentences=sentences), scale)

    assert torch.autograd.gradcheck(function, (*leaves[:2], leaves[2].requires_grad_()))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(term, dtype):
    batch = CASES["three reports"]
    half = replace(batch, patches=batch.patches.to(dtype), sentences=batch.sentences.to(dtype))
    single = replace(half, patches=half.patches.float(), sentences=half.sentences.float())
    value = TERMS[term](half, SCALE)
    assert value.dtype == torch.float32
    assert torch.equal(value, TERMS[term](single, SCALE))


@pytest.mark.parametrize("term", TERMS)
def test_a_long_report_beside_it_does_not_change_a_report(term):
    """Per-image terms of a batch average the terms of each image alone: padding of short reports takes no part."""
    batch, counts = make_batch((2, 11, 3)), (2, 11, 3)
    if term == "contrastive":
        short = [losses.late_interaction_logits(*batch.packed, SCALE)[side][:, [0, 2]] for side in (0, 1)]
        without = batch.rows != 1
        rows = batch.rows[without] // 2
        alone = losses.late_interaction_logits(batch.patches, batch.sentences[without], rows, SCALE, num_reports=2)
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(short, alone, strict=True))
        return
    alone = []
    for image in range(len(counts)):
        mine = batch.rows == image
        one = Batch(
            batch.patches[image : image + 1], batch.sentences[mine], batch.rows[mine] * 0, batch.heatmaps[mine],
            batch.mask[:1],
        )  # fmt: skip
        alone.append(TERMS[term](one, SCALE))
    assert torch.allclose(TERMS[term](batch, SCALE), torch.stack(alone).mean(), rtol=0, atol=1e-12)


def test_mapping_of_a_one_sentence_report_contributes_nothing():
    batch = make_batch((1, 3))
    second = batch.rows == 1
    alone = Batch(
        batch.patches[1:], batch.sentences[second], batch.rows[second] - 1, batch.heatmaps[second], batch.mask[1:]
    )
    assert torch.allclose(TERMS["mapping"](batch, SCALE), TERMS["mapping"](alone, SCALE))


@pytest.mark.parametrize("term", ["gaze", "mapping"])
def test_heat_maps_of_images_without_gaze_are_ignored(term):
    batch = CASES["gaze for some images"]
    spoiled = batch.heatmaps.clone()
    spoiled[batch.rows == 1] = torch.nan
    expected, expected_gradients = with_gradients(TERMS[term], batch)
    value, gradients = with_gradients(TERMS[term], replace(batch, heatmaps=spoiled))
    assert torch.equal(value, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))


@pytest.mark.parametrize("term", TERMS)
def test_a_term_with_nobody_to_average_is_a_zero_on_the_graph(term):
    value, gradients = with_gradients(TERMS[term], CASES["no sentence"])
    assert value == 0
    assert all((gradient == 0).all() for gradient in gradients)
    patches = CASES["no sentence"].patches.clone().requires_grad_()
    assert TERMS[term](replace(CASES["no sentence"], patches=patches), SCALE).requires_grad


@pytest.mark.parametrize("term", ["gaze", "mapping"])
def test_heat_maps_without_a_mask_are_refused(term):
    batch = make_batch((2, 2))
    with pytest.raises(ValueError, match="gaze_heatmaps and gaze_mask go together"):
        TERMS[term](replace(batch, mask=None), SCALE)


def test_square_and_flat_heat_maps_give_the_same_loss():
    batch = make_batch((2, 3), cells=9)
    square = replace(batch, heatmaps=batch.heatmaps.unflatten(1, (3, 3)))
    for term in ("gaze", "mapping"):
        assert torch.equal(TERMS[term](batch, SCALE), TERMS[term](square, SCALE))


COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**20)


@given(COUNTS, SEEDS)
def test_permuting_sentences_changes_no_term(counts, seed):
    batch = make_batch(counts, seed=seed)
    order = torch.randperm(len(batch.rows), generator=torch.Generator().manual_seed(seed))
    other = replace(batch, sentences=batch.sentences[order], rows=batch.rows[order], heatmaps=batch.heatmaps[order])
    for term in TERMS.values():
        assert torch.allclose(term(batch, SCALE), term(other, SCALE), rtol=0, atol=1e-10)


@given(COUNTS, SEEDS)
def test_permuting_images_with_their_reports_changes_no_term(counts, seed):
    batch = make_batch(counts, seed=seed)
    batch.mask = torch.rand(len(counts), generator=torch.Generator().manual_seed(seed)) > 0.3
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    place = torch.argsort(order)
    other = replace(batch, patches=batch.patches[order], mask=batch.mask[order], rows=place[batch.rows])
    for term in TERMS.values():
        assert torch.allclose(term(batch, SCALE), term(other, SCALE), rtol=0, atol=1e-10)


@given(COUNTS, SEEDS)
def test_permuting_patches_with_their_heat_changes_no_term(counts, seed):
    batch = make_batch(counts, seed=seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    other = replace(batch, patches=batch.patches[:, order], heatmaps=batch.heatmaps[:, order])
    for term in TERMS.values():
        assert torch.allclose(term(batch, SCALE), term(other, SCALE), rtol=0, atol=1e-10)


@given(COUNTS, SEEDS, st.sampled_from([1e-4, 1.0, 14.3, 100.0]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_extreme_batches_give_finite_losses_and_gradients_and_nothing_negative(counts, seed, scale, dtype):
    batch = make_batch(counts, seed=seed, dtype=torch.float32)
    pick = torch.Generator().manual_seed(seed)
    for vectors in (batch.patches.flatten(0, 1), batch.sentences):
        choice = torch.randint(0, 4, (len(vectors),), generator=pick)
        vectors[choice == 0] = torch.tensor([1.0, 0, 0])
        vectors[choice == 1] = torch.tensor([-1.0, 0, 0])
        vectors[choice == 2] = 0.0
    batch.heatmaps[torch.rand(len(batch.rows), generator=pick) < 0.3] = 0.0
    batch.mask = torch.rand(len(counts), generator=pick) > 0.3
    batch = replace(batch, patches=batch.patches.to(dtype), sentences=batch.sentences.to(dtype))
    for term in TERMS.values():
        value, gradients = with_gradients(term, batch, scale)
        assert torch.isfinite(value) and value >= -1e-4
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def descend(term, batch, steps=60):
    """Embeddings after some steps of gradient descent on one term."""
    patches, sentences = batch.patches.clone().requires_grad_(), batch.sentences.clone().requires_grad_()
    optimizer = torch.optim.Adam([patches, sentences], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        unit = replace(batch, patches=F.normalize(patches, dim=-1), sentences=F.normalize(sentences, dim=-1))
        term(unit, SCALE).backward()
        optimizer.step()
    return replace(batch, patches=F.normalize(patches, dim=-1), sentences=F.normalize(sentences, dim=-1))


def test_gaze_term_puts_looked_at_patches_above_zero_and_the_others_below():
    batch = make_batch((2, 2), cells=9, width=16)
    trained = descend(TERMS["gaze"], batch)
    similarity = (trained.sentences[:, None] * trained.patches[batch.rows]).sum(dim=-1)
    looked_at = batch.heatmaps > 0.1
    assert (similarity[looked_at] > 0).all()
    assert (similarity[~looked_at] < 0).all()


def test_contrastive_term_makes_the_own_report_the_best():
    trained = descend(TERMS["contrastive"], make_batch((2, 3, 1), width=16))
    image_logits, text_logits = losses.late_interaction_logits(*trained.packed, SCALE)
    assert torch.equal(image_logits.argmax(dim=1), torch.arange(3))
    assert torch.equal(text_logits.argmax(dim=0), torch.arange(3))


def without_equal_texts(logits, ids):
    """Cross-entropy of each row with its own column, other columns of the same id left out; the mean."""
    terms = []
    for k, row in enumerate(logits):
        taken = [value for m, value in enumerate(row) if m == k or ids[m] != ids[k]]
        terms.append(naive.log_sum_exp(taken) - row[k])
    return naive.mean(terms)


def test_reports_of_the_same_text_are_not_each_others_negatives():
    batch, ids = make_batch((2, 1, 3, 2)), torch.tensor([5, 8, 5, 9])
    images, texts = naive.instance_logits(list(batch.patches), batch.nested(batch.sentences), SCALE)
    columns = [list(column) for column in zip(*texts, strict=True)]
    expected = (without_equal_texts(images, ids) + without_equal_texts(columns, ids)) / 2
    got = losses.contrastive_alignment_loss(*batch.packed, SCALE, ids)
    assert abs(float(got - expected)) < TOLERANCE
    assert abs(float(got - TERMS["contrastive"](batch, SCALE))) > 1e-3
    distinct = losses.contrastive_alignment_loss(*batch.packed, SCALE, torch.arange(4))
    assert torch.equal(distinct, TERMS["contrastive"](batch, SCALE))


def test_equal_sentences_of_a_report_are_not_each_others_negatives():
    """With all sentences of a report equal, nothing is left to tell apart and the text side of the term is 0."""
    batch = make_batch((3, 2))
    diagonal = TERMS["mapping"](batch, SCALE)
    assert torch.equal(
        losses.cross_modality_mapping_loss(*batch.packed, *batch.gaze, SCALE, 2 / 7, torch.arange(5)), diagonal
    )
    equal = losses.cross_modality_mapping_loss(*batch.packed, *batch.gaze, SCALE, 2 / 7, torch.tensor([1, 1, 1, 2, 2]))
    image_side = losses.cross_modality_mapping_loss(
        *batch.packed, *batch.gaze, SCALE, 2 / 7, torch.tensor([1, 1, 1, 1, 1])
    )
    assert equal < diagonal and torch.equal(equal, image_side)


@pytest.mark.parametrize(("log_scale", "gradient", "expected"), [
    (3.0, 1.0, 1.0), (3.0, -1.0, 1.0), (MAXIMUM, 1.0, 1.0), (MAXIMUM, -1.0, 0.0), (6.0, 1.0, 1.0), (6.0, -1.0, 0.0),
])  # fmt: skip
def test_beyond_its_cap_the_scale_only_comes_back(log_scale, gradient, expected):
    """A gradient above 0 makes descent go down; through the cap goes that one alone."""
    leaf = torch.tensor(log_scale, requires_grad=True)
    scale = losses.CappedScale.apply(leaf)
    scale.backward(torch.tensor(gradient))
    value = torch.tensor(min(log_scale, MAXIMUM)).exp()
    assert torch.equal(scale.detach(), value)
    assert torch.equal(leaf.grad, expected * gradient * value)
