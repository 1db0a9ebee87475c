"""What a run asks of accelerate and the device: precision, compilation, the optimiser, and what the device can do."""

import gc
import math
import resource
import sys
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dataset_scripts.schema import UserError
from egma.training.arguments import TrainingSettings
from egma.training.step import TrainingModule
from modeling_egma import EgmaModel

# dense bf16 products a second, from the makers' data sheets; the longest name that fits is taken
PEAK_FLOPS = {
    "A100": 312e12,
    "A10G": 70e12,
    "A40": 149.7e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165.2e12,
    "V100": 125e12,
}
# of CUDA, in the dimension over which attention runs through its batch
GRID_LIMIT = 65_535
AUTOMATIC_TRACKERS = ("all", "none")
UNASKED = "sdpa_unasked"


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """accelerate as it was launched, with the trackers of the settings.

    Raises:
        UserError: fp16 without an accelerator, which would silently be float32; an unknown tracker.
    """
    trackers: Any = [name.strip() for name in settings.report_to.split(",")]
    if settings.report_to in AUTOMATIC_TRACKERS:
        trackers = {"all": "all", "none": None}[settings.report_to]
    try:
        accelerator = Accelerator(log_with=trackers, project_dir=settings.output)
    except ValueError as error:
        raise UserError(f"report_to is '{settings.report_to}': {error}") from None
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("fp16 needs an accelerator; on a CPU use --mixed_precision bf16 or no")
    if settings.tf32 and accelerator.device.type != "cuda":
        raise UserError("tf32 needs an NVIDIA GPU of the Ampere generation or later; leave it out here")
    torch.backends.cuda.matmul.allow_tf32 = settings.tf32
    torch.backends.cudnn.allow_tf32 = settings.tf32
    return accelerator


def prepare_sharding(accelerator: Accelerator, model: EgmaModel) -> None:
    """What FSDP must know of the model; nothing without FSDP. A layer of either tower is a unit of its own.

    A scalar cannot be sharded. The logit scale stays whole; the join of processes adds its gradient up on each.
    Precision is autocast's, as with DDP: casting every input would round the gaze maps.

    Raises:
        UserError: FSDP's first version, or its loading on one process, which would lose the scalar.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is None:
        return
    if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading:
        raise UserError(
            "FSDP here needs fsdp_version: 2 and fsdp_cpu_ram_efficient_loading: false; configs/accelerate/fsdp.yaml "
            "has them"
        )
    if plugin.transformer_cls_names_to_wrap is None:
        present = {type(module).__name__ for module in model.modules()}
        plugin.transformer_cls_names_to_wrap = sorted(present & set(model._no_split_modules or ()))
    model.logit_scale.data = model.logit_scale.data.to(accelerator.device)
    plugin.ignored_modules = [nn.ParameterList([model.logit_scale])]
    plugin.mixed_precision_policy = None


def check_windows(vision_config: Any, settings: TrainingSettings, device: torch.device) -> None:
    """Raise UserError where a window tower's first stage has more windows than a GPU's attention kernel takes."""
    if device.type != "cuda" or not isinstance(getattr(vision_config, "window_size", None), int):
        return
    windows = math.ceil(vision_config.image_size / vision_config.patch_size / vision_config.window_size) ** 2
    images = settings.micro_batch_size or settings.batch_size
    if images * windows > GRID_LIMIT:
        raise UserError(
            f"{images} images of {windows} attention windows at a time, expected at most {GRID_LIMIT} windows on this "
            f"device; --micro_batch_size {GRID_LIMIT // windows} keeps the batch"
        )


def make_module(model: EgmaModel, device: torch.device, compiled: bool = False) -> TrainingModule:
    """What is trained; where it is `compiled`, the encoders are for the buckets of their input's shape."""
    if device.type == "cuda":
        ask_of_no_mask(model.text_model)
    module = TrainingModule(model, buckets=compiled)
    if compiled:
        model.vision_model.compile(dynamic=False)
        model.text_model.compile(dynamic=False)
        model.objective = torch.compile(model.objective, dynamic=True)  # type: ignore[method-assign]
    return module


def ask_of_no_mask(encoder: PreTrainedModel) -> None:
    """PyTorch's attention with the mask as it is given.

    transformers asks first whether anything is masked, and the host waits for a GPU's answer.
    """
    if encoder.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(UNASKED, sdpa_attention_forward)
    AttentionMaskInterface.register(UNASKED, _whole_mask)
    encoder.set_attn_implementation(UNASKED)


def _whole_mask(*given: Any, **settings: Any) -> Any:
    return sdpa_mask(*given, **settings | {"allow_is_bidirectional_skip": False})


def make_optimizer(model: nn.Module, settings: TrainingSettings, device: torch.device) -> torch.optim.AdamW:
    """AdamW, fused where the device has it."""
    groups = parameter_groups(model, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=device.type == "cuda" or None)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: not on norms, biases and the logit scale."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        # apart, as FSDP leaves scalars whole and one group is updated in one go
        {"params": [p for p in parameters if p.ndim == 0], "weight_decay": 0.0},
    ]


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 operations a second that the device's maker states; None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = [part for part in PEAK_FLOPS if part in name]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def memory_gigabytes(device: torch.device) -> float:
    """Largest memory so far: allocated on a GPU, resident in this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def part_processes(accelerator: Accelerator) -> None:
    """End the group of processes; the caller holds none of the prepared modules any more.

    `DistributedDataParallel` keeps the group alive. When it is let go of after the group, the group's threads are
    waited for while Python waits, too, and they may wait for Python: the process hangs when all is done.
    """
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()
