"""Fully sharded weights on two processes: gradients, a step, and a checkpoint, against one process."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, init_device_mesh

from dataset_scripts.schema import UserError
from egma.inference.texts import distinct_texts, length_blocks
from egma.training.cached import cached_step
from egma.training.checkpoint import load_checkpoint, save_checkpoint
from egma.training.devices import parameter_groups, prepare_sharding
from egma.training.step import TrainingModule, whole_step

from .batches import gradients, joined, largest_difference, make_batch, small_model
from .test_gather import spawn

STATE = {"step": 1, "best_step": 1, "settings": {}}


def batches() -> list[dict[str, torch.Tensor]]:
    """The first one's sentences have one length."""
    first = make_batch([3, 1, 4], 0, torch.float64)
    first["attention_mask"].fill_(1)
    return [first, make_batch([2, 2, 1], 1, torch.float64, length=9)]


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """What accelerate wraps each for itself, as the towers say."""
    plugin = prepared_plugin(model)
    assert plugin.transformer_cls_names_to_wrap == ["BertEmbeddings", "BertLayer", "SwinStage"]
    return [module for module in model.modules() if type(module).__name__ in plugin.transformer_cls_names_to_wrap]


def prepared_plugin(model: torch.nn.Module, version: int = 2, one_process_loads: bool = False) -> SimpleNamespace:
    plugin = SimpleNamespace(
        fsdp_version=version, cpu_ram_efficient_loading=one_process_loads, transformer_cls_names_to_wrap=None
    )
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin), distributed_type=DistributedType.FSDP, device=torch.device("cpu")
    )
    prepare_sharding(accelerator, model)
    return plugin


def make_step(model: torch.nn.Module) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=0.01, foreach=True)
    optimizer.step()
    return optimizer


def whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: (value.full_tensor() if isinstance(value, DTensor) else value) for name, value in tensors.items()}


def shard(model: torch.nn.Module, mesh: Any) -> torch.nn.Module:
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(TrainingModule(model), mesh=mesh, ignored_params={model.logit_scale})


def shard_in_process(rank: int, folder: str, world: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    accelerator, out = Accelerator(), Path(folder)
    mesh = init_device_mesh("cpu", (world,))
    for micro in (None, 2):
        model = small_model(torch.float64).train()
        module = shard(model, mesh)
        batch = batches()[rank]
        # one process has one length of text, the other several, and both gather the layers' weights as often
        batch |= distinct_texts(batch)
        assert (len(length_blocks(batch["text_lengths"])) > 1) == (rank == 1)
        if micro is None:
            whole_step(accelerator, module, [batch])
        else:
            cached_step(accelerator, module, batch, micro)
        found = whole(gradients(model))
        norm = accelerator._clip_grad_norm_dtensor_aware(list(model.parameters()), 1.0)
        optimizer = make_step(model)
        after = whole({name: value.detach() for name, value in model.named_parameters()})
        if rank == 0:
            save_file({"norm": norm.reshape(1), **found}, out / f"gradients-{micro}.safetensors")
            save_file(after, out / f"weights-{micro}.safetensors")
    checkpoint = save_checkpoint(accelerator, out, model, optimizer, dict(STATE))
    other = small_model(torch.float64)
    shard(other, mesh)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other_optimizer = torch.optim.AdamW(parameter_groups(other, 0.1), lr=0.5, foreach=True)
    # the second process lies on a machine without the folder
    load_checkpoint(accelerator, checkpoint if rank == 0 else Path("nowhere"), other, other_optimizer, {})
    for (name, here), there in zip(other.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(*whole({"here": here.detach(), "there": there.detach()}).values()), name
        for entry, value in optimizer.state[there].items():
            pair = whole({"there": value, "here": other_optimizer.state[here][entry]})
            assert torch.equal(*pair.values()), (name, entry)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spawn(shard_in_process, tmp_path_factory.mktemp("sharded"), 2)


@pytest.mark.parametrize("micro", [None, 2])
def test_a_sharded_step_is_that_of_one_process(sharded: Path, record_difference, micro: int | None) -> None:
    model = small_model(torch.float64).train()
    loss, _ = TrainingModule(model)(joined(batches()))
    loss.backward()
    found = load_file(sharded / f"gradients-{micro}.safetensors")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    assert float(found.pop("norm")) == pytest.approx(float(norm), rel=1e-10)
    difference = largest_difference(found, gradients(model))
    record_difference("gradients of two sharded processes to one, float64", difference)
    assert difference < 1e-12
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    make_step(model)
    after = load_file(sharded / f"weights-{micro}.safetensors")
    assert largest_difference(after, {name: value.detach() for name, value in model.named_parameters()}) < 1e-8


def test_a_sharded_checkpoint_holds_whole_tensors(sharded: Path) -> None:
    saved = load_file(sharded / "checkpoint-1" / "model.safetensors")
    after = load_file(sharded / "weights-2.safetensors")
    assert saved["logit_scale"].shape == () and all(torch.equal(saved[name], value) for name, value in after.items())


@pytest.mark.parametrize(("version", "one_process_loads"), [(1, False), (2, True)])
def test_other_forms_of_fsdp_are_refused(version: int, one_process_loads: bool) -> None:
    model = small_model(torch.float32)
    with pytest.raises(UserError, match="fsdp_version: 2"):
        prepared_plugin(model, version, one_process_loads)
    plugin = prepared_plugin(model)
    assert [id(p) for m in plugin.ignored_modules for p in m.parameters()] == [id(model.logit_scale)]
