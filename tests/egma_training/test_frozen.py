"""What no gradient reaches is frozen by name; learned running statistics stay as they are."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from dataset_scripts.schema import UserError
from egma_training.arguments import TrainingSettings
from egma_training.cached import cached_step
from egma_training.devices import parameter_groups, part_processes
from egma_training.frozen import check_statistics, freeze_unreached, frozen_notes, split_statistics
from egma_training.step import TrainingModule, whole_step
from egma_training.watching import training_flops
from modeling_egma import EgmaModel
from tests.modeling_egma.tower_configs import BERT, CLIP_TEXT, VISION, config_of

from .batches import joined, largest_difference
from .test_gather import free_port

STEPS = 3
UNREACHED = {
    "dinov2": "vision_model.embeddings.mask_token",
    "dinov2_with_registers": "vision_model.embeddings.mask_token",
    "dinov3_vit": "vision_model.embeddings.mask_token",
    "siglip": "vision_model.head.probe",
}
# vision tower, text tower, fields of the configuration
PAIRS = {
    "dinov2 and two of the hidden states": ("dinov2", BERT, {"text_layers": [0, 1]}),
    "siglip and clip text": ("siglip", CLIP_TEXT, {}),
    "dinov3 and clip text": ("dinov3_vit", CLIP_TEXT, {"text_layers": 1}),
    "convnext without a gaze term": ("convnext", BERT, {"gaze_weight": 0, "text_layers": [0]}),
}
# pair, and readings of a micro batch
RUNS = [*((pair, None) for pair in PAIRS), ("dinov2 and two of the hidden states", 2)]


def batch_of(seed: int, size: int = 3, grid: int = 4, gaze: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2 * size, grid, grid, generator=generator)
    return {
        "pixel_values": torch.randn(size, 3, 64, 64, generator=generator),
        "input_ids": torch.randint(3, 58, (2 * size, 5), generator=generator),
        "attention_mask": torch.ones(2 * size, 5, dtype=torch.long),
        "sentence_to_image": torch.arange(size).repeat_interleave(2),
        "gaze_heatmaps": maps,
        "gaze_mask": torch.arange(size) < size * gaze - 1,
    }


def model_of(pair: str) -> EgmaModel:
    torch.manual_seed(0)
    vision, text, fields = PAIRS[pair]
    return EgmaModel(config_of(vision, text, **fields)).eval()


def grid_of(model: EgmaModel) -> int:
    return model.config.grid_size


def reached(model: EgmaModel, batch: dict[str, torch.Tensor]) -> set[str]:
    """By a whole training pass, backward as DDP sees it."""
    TrainingModule(model).train()(batch)[0].backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", VISION)
def test_exactly_what_a_training_pass_does_not_reach_is_frozen(kind: str) -> None:
    torch.manual_seed(0)
    model = EgmaModel(config_of(kind)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    frozen = freeze_unreached(model, 64, 64)
    assert torch.equal(torch.get_rng_state(), generator) and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained.isdisjoint(frozen) and trained == reached(model, batch_of(1, grid=grid_of(model)))
    assert (UNREACHED[kind] in frozen) if kind in UNREACHED else not any("vision" in name for name in frozen)


@pytest.mark.parametrize("pair", PAIRS)
def test_text_towers_and_weights_of_nought(pair: str) -> None:
    model = model_of(pair)
    frozen = freeze_unreached(model, 64, 64)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for gaze in (True, False):
        assert reached(model, batch_of(2, grid=grid_of(model), gaze=gaze)) == trained
    upper = [name for name, _ in model.named_parameters() if "text_model" in name and "layer.1." in name]
    if PAIRS[pair][2].get("text_layers") in ([0, 1], [0]):
        assert upper and set(upper) <= set(frozen)
    if PAIRS[pair][1] is CLIP_TEXT:
        assert "text_model.final_layer_norm.weight" in frozen
    assert "logit_scale" in trained
    said = frozen_notes(model, frozen)
    assert len(said) == bool(frozen) and all(f"{len(frozen)} parameters" in note for note in said)
    assert all(name in said[0] for name in frozen[:3])


def train_in_process(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    accelerator = Accelerator()
    for number, (pair, micro) in enumerate(RUNS):
        model = model_of(pair)
        freeze_unreached(model, 64, 64)
        optimizer = torch.optim.SGD(parameter_groups(model, 0.1), lr=0.01)
        module, optimizer = accelerator.prepare(TrainingModule(model), optimizer)
        for step in range(STEPS):
            batch = batch_of(10 * step + rank, grid=grid_of(model), gaze=step != 1)
            if micro is None:
                whole_step(accelerator, module, [batch])
            else:
                cached_step(accelerator, module, batch, micro)
            optimizer.step()
            optimizer.zero_grad()
        save_file(whole(model), Path(folder) / f"{number}-{rank}.safetensors")
    del module
    part_processes(accelerator)


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    # a DINOv3 may have a tensor of no registers
    return {name: value.clone().contiguous() for name, value in model.state_dict().items() if value.numel()}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(free_port())), ("OMP_NUM_THREADS", "1")):
            patch.setenv(name, value)
        mp.spawn(train_in_process, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize(("pair", "micro"), RUNS)
def test_two_processes_go_on_after_the_first_step_and_equal_one(
    two_processes: Path, pair: str, micro: int | None
) -> None:
    model = model_of(pair)
    frozen = freeze_unreached(model, 64, 64)
    start = whole(model)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1), lr=0.01)
    for step in range(STEPS):
        batches = [batch_of(10 * step + rank, grid=grid_of(model), gaze=step != 1) for rank in (0, 1)]
        TrainingModule(model)(joined(batches))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    there = [load_file(two_processes / f"{RUNS.index((pair, micro))}-{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(there[0][name], value) for name, value in there[1].items())
    assert all(torch.equal(there[0][name], start[name]) for name in frozen)
    assert largest_difference(there[0], whole(model)) < 1e-4
    assert any(not torch.equal(value, start[name]) for name, value in there[0].items())


# --- running statistics


def with_statistics(kind: str = "resnet", learned: bool = True, layer: type[nn.Module] | None = None) -> EgmaModel:
    torch.manual_seed(0)
    model = EgmaModel(config_of(kind)).eval()
    if layer is not None:
        model.text_model.embeddings.LayerNorm = layer
    if learned:
        for one in model.modules():
            if getattr(one, "running_mean", None) is not None:
                one.running_mean.uniform_(-0.2, 0.2)
                one.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("kind", ["resnet", "regnet"])
def test_micro_batches_give_the_whole_batchs_gradient_and_leave_the_statistics(kind: str) -> None:
    accelerator = Accelerator(cpu=True)
    batch = batch_of(3, size=8, grid=8)
    found, losses = [], []
    for micro in (None, 1, 3):
        model = with_statistics(kind)
        before = {name: value.clone() for name, value in model.named_buffers()}
        module = TrainingModule(model).train()
        assert module.training and model.text_model.training
        if micro is None:
            loss, _ = whole_step(accelerator, module, [batch])
        else:
            loss, _ = cached_step(accelerator, module, batch, micro)
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
        losses.append(float(loss))
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert any("normalization.weight" in name for name in found[0])
    for one, other in pairwise(found):
        assert largest_difference(one, other) < 1e-5
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)


def test_statistics_of_one_reading_are_no_statistics() -> None:
    """A batch of one and a batch of many give a reading the same embedding in training."""
    model = with_statistics()
    TrainingModule(model).train()
    model.text_model.eval()
    pixels = batch_of(0, size=4)["pixel_values"]
    together, alone = model.encode_images(pixels)[1][:1], model.encode_images(pixels[:1])[1]
    assert torch.allclose(together, alone, atol=1e-5)


def test_statistics_from_nothing_are_learned_by_whole_batches_of_one_process() -> None:
    model = with_statistics(learned=False)
    module = TrainingModule(model).train()
    assert not module.held
    module(batch_of(0, grid=8))
    tracked = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert tracked and all(int(layer.num_batches_tracked) == 1 and layer.running_mean.any() for layer in tracked)
    # decided when the run starts, not when it goes on
    module.train()
    assert all(layer.training for layer in tracked)
    assert len(TrainingModule(model).held) == len(tracked)


@pytest.mark.parametrize(
    ("options", "processes"), [({"micro_batch_size": 2}, 1), ({"gradient_checkpointing": True}, 1), ({}, 2)]
)
def test_statistics_from_nothing_are_refused_where_the_batch_is_not_seen_whole_and_once(
    options: dict[str, int], processes: int
) -> None:
    settings = TrainingSettings(data="data", output_dir="run", model="model", **options)
    with pytest.raises(UserError, match=r"vision_model\.embedder.*BatchNorm2d, one of \d+\) has no learned statistics"):
        check_statistics(with_statistics(learned=False), settings, processes)
    check_statistics(with_statistics(learned=True), settings, processes)
    check_statistics(EgmaModel(config_of("vit")), settings, processes)
    check_statistics(with_statistics(learned=False), TrainingSettings(data="d", output_dir="r", model="m"), 1)


def test_a_counter_alone_says_that_statistics_were_learned() -> None:
    model = with_statistics(learned=False)
    model.vision_model.embedder.embedder.normalization.num_batches_tracked += 1
    held, dependent = split_statistics(model)
    assert not dependent and len(held) == sum(isinstance(one, nn.BatchNorm2d) for one in model.modules())
    assert (
        "running statistics" in frozen_notes(model, [])[0] and f"{len(held)} BatchNorm2d" in frozen_notes(model, [])[0]
    )


@pytest.mark.parametrize(
    ("layer", "held", "dependent"),
    [
        (nn.BatchNorm1d(5), 0, 1),
        (nn.BatchNorm1d(5, track_running_stats=False), 0, 1),
        (nn.InstanceNorm1d(5), 0, 0),
        (nn.InstanceNorm1d(5, track_running_stats=True), 0, 1),
        (nn.SyncBatchNorm(5), 0, 1),
        (nn.LayerNorm(16), 0, 0),
    ],
)
def test_other_layers_with_state_and_towers_of_text(layer: nn.Module, held: int, dependent: int) -> None:
    model = with_statistics("vit", layer=layer)
    if getattr(layer, "running_mean", None) is not None:
        layer.reset_running_stats()
    found = split_statistics(model)
    assert (len(found[0]), len(found[1])) == (held, dependent)
    if getattr(layer, "running_mean", None) is not None:
        layer.running_mean.fill_(0.5)
        assert split_statistics(model) == ([layer], [])
        TrainingModule(model).train()
        assert not layer.training


def test_counting_operations_leaves_statistics_and_dropout_alone() -> None:
    model = with_statistics(learned=False)
    module = TrainingModule(model).train()
    before, generator = whole(model), torch.get_rng_state()
    assert training_flops(module, batch_of(0, grid=8)) > 0
    assert largest_difference(whole(model), before) == 0 and module.training
    assert torch.equal(torch.get_rng_state(), generator)
