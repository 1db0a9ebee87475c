"""Other people's published weights into ours: MedCLIP's checkpoints (Swin or ResNet-50) and the EGMA authors' layout.

    python -m egma.hub.convert SOURCE --output DIR [--tokenizer ID]

Every tensor of SOURCE is used, dropped by a rule with a name, or an error. A `.bin` is read with torch's
`weights_only=True` and in no other way. The processor beside the model prepares pictures and text as the weights had
them.
"""

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, PreTrainedConfig, ResNetConfig, SwinConfig
from transformers.image_utils import PILImageResampling

from dataset_scripts.command_line import Parser, program
from dataset_scripts.schema import UserError
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from modeling_egma.towers_egma import loading_faults

TOKENIZER = "emilyalsentzer/Bio_ClinicalBERT"
# of both, from their repositories (RyanWangZf/MedCLIP, MoMarky/EGMA): grey values, frame, and tokens of a text
IMAGE_MEAN, IMAGE_STD = 0.5862785803043838, 0.27950088968644304
MAX_LENGTH = 77
HEAD_WIDTH = 64  # of BERT's attention; no tensor's shape tells it
IMAGE_SIZE = 224


class Layout(NamedTuple):
    """Whose checkpoint it is: which hidden states of the text are averaged, and how pictures are resized."""

    name: str
    text_layers: int | list[int]
    resample: PILImageResampling


MEDCLIP = Layout("MedCLIP", [1, 2, -1], PILImageResampling.BICUBIC)
AUTHORS_EGMA = Layout("the authors' EGMA", 4, PILImageResampling.BILINEAR)
ONLY_THE_AUTHORS = r"(.*\.)?word_local_atten_layer\..*|vision_model\.projection_head[12]\..*"

VISION, TEXT = "vision_model.model.", "text_model.model."
RENAMED = {
    "vision_model.projection_head.weight": "visual_projection.weight",
    "vision_model.model.fc.weight": "visual_projection.weight",
    "text_model.projection_head.weight": "text_projection.weight",
    "logit_scale": "logit_scale",
}
DROPPED = {
    "indices that the model computes": r".*\.(position_ids|relative_position_index)$",
    "projections of earlier stages, which no score uses": r"vision_model\.projection_head[12]\..*",
    "word-to-region attention, which the objective does not have": r"(.*\.)?word_local_atten_layer\..*",
    "the text encoder's unused pooler": r"text_model\.model\.pooler\..*",
    "a classifier's leftovers": r"(vision_model\.(model\.)?)?(classifier|head)\..*|vision_model\.model\.fc\.bias",
    "counters of batches": r".*\.num_batches_tracked$",
}
RESNET_RULES = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
)


def convert(source: Path, text_heads: int | None = None) -> tuple[EgmaModel, Layout, dict[str, list[str]]]:
    """The model, whose layout it had, and the dropped keys by rule.

    Args:
        text_heads: attention heads of the text encoder; None: one for each 64 of its width.

    Raises:
        UserError: a file that is no checkpoint, a key that no rule knows, or tensors that make no model.
    """
    tensors = {name.removeprefix("module."): value for name, value in read_tensors(source).items()}
    dropped: dict[str, list[str]] = {}
    kept: dict[str, Tensor] = {}
    unknown = []
    layout = AUTHORS_EGMA if any(re.fullmatch(ONLY_THE_AUTHORS, name) for name in tensors) else MEDCLIP
    is_resnet = f"{VISION}conv1.weight" in tensors
    for name, value in tensors.items():
        rule = next((title for title, pattern in DROPPED.items() if re.fullmatch(pattern, name)), None)
        target = None if rule is not None else _target(name, is_resnet)
        if rule is not None:
            dropped.setdefault(rule, []).append(name)
        elif target is None:
            unknown.append(name)
        else:
            kept[target] = value.reshape(()) if target == "logit_scale" else value.contiguous()
    lacking = {"visual_projection.weight", "text_projection.weight", "logit_scale"} - kept.keys()
    if unknown or lacking:
        raise UserError(
            f"{source}: no MedCLIP or EGMA checkpoint; "
            + (f"unknown keys {', '.join(unknown[:3])} ({len(unknown)} in all)" if unknown else "")
            + (f"{'; ' if unknown else ''}nothing for {', '.join(sorted(lacking))}" if lacking else "")
            + f"; expected {VISION}* of a Swin or a ResNet, {TEXT}* of a BERT, {', '.join(RENAMED)}"
        )
    config = _config(source, kept, is_resnet, text_heads)
    config.text_layers = layout.text_layers
    return _loaded(source, kept, config), layout, dropped


def processor_of(layout: Layout, config: PreTrainedConfig, tokenizer: Any) -> EgmaProcessor:
    """What the weights were trained with: a black square frame, one grey mean and deviation, sentences of 77 tokens.

    Raises:
        UserError: a tokenizer of another vocabulary.
    """
    try:
        processor = EgmaProcessor.for_model(config, tokenizer, max_length=MAX_LENGTH)
    except ValueError as error:
        raise UserError(str(error)) from error
    images = processor.image_processor
    images.image_mean, images.image_std, images.resample = [IMAGE_MEAN] * 3, [IMAGE_STD] * 3, layout.resample
    return processor


def read_tensors(source: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a `.bin` without running what is in it."""
    try:
        if source.suffix == ".safetensors":
            return load_file(source)
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises to read it unsafely
        kind = type(error).__name__
        raise UserError(
            f"{source}: not a checkpoint that can be read without running code ({kind}); expected a state dict written "
            "by torch.save or safetensors"
        ) from None
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{source}: expected names with tensors, found {type(found).__name__}")
    return dict(found)


def _target(name: str, is_resnet: bool) -> str | None:
    if name in RENAMED:
        return RENAMED[name]
    if name.startswith(TEXT):
        return f"text_model.{name.removeprefix(TEXT)}"
    if not name.startswith(VISION):
        return None
    inner = name.removeprefix(VISION)
    return f"vision_model.{_resnet_name(inner) if is_resnet else inner}"


def _resnet_name(name: str) -> str:
    """torchvision's name of a ResNet's tensor -> transformers'."""
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", name)
    name = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", name)
    for pattern, replacement in RESNET_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _config(source: Path, tensors: Mapping[str, Tensor], is_resnet: bool, text_heads: int | None) -> EgmaConfig:
    """What the tensors' shapes say."""
    try:
        return EgmaConfig(
            vision_config=_resnet_config(tensors) if is_resnet else _swin_config(tensors),
            text_config=_bert_config(tensors, text_heads),
            projection_dim=tensors["visual_projection.weight"].shape[0],
        )
    except KeyError as error:
        raise UserError(f"{source}: lacks {error} of a {'ResNet' if is_resnet else 'Swin'} or a BERT") from None


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    return max(found) + 1 if found else 0


def _swin_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = tensors["vision_model.embeddings.patch_embeddings.projection.weight"]
    layers = _count(tensors, r"vision_model\.encoder\.layers\.(\d+)\.")
    depths = [_count(tensors, rf"vision_model\.encoder\.layers\.{layer}\.blocks\.(\d+)\.") for layer in range(layers)]
    table = "vision_model.encoder.layers.{}.blocks.0.attention.self.relative_position_bias_table"
    offsets = tensors[table.format(0)].shape[0]
    heads = [tensors[table.format(layer)].shape[1] for layer in range(layers)]
    window = (round(offsets**0.5) + 1) // 2
    config = SwinConfig(
        image_size=IMAGE_SIZE, patch_size=patches.shape[-1], embed_dim=patches.shape[0], depths=depths, num_heads=heads,
        window_size=window,
    )  # fmt: skip
    return config.to_dict()


def _resnet_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = _count(tensors, r"vision_model\.encoder\.stages\.(\d+)\.")
    depths = [_count(tensors, rf"vision_model\.encoder\.stages\.{stage}\.layers\.(\d+)\.") for stage in range(stages)]
    last = "vision_model.encoder.stages.{}.layers.0.layer.2.convolution.weight"
    widths = [tensors[last.format(stage)].shape[0] for stage in range(stages)]
    embedding = tensors["vision_model.embedder.embedder.convolution.weight"].shape[0]
    config = ResNetConfig(embedding_size=embedding, hidden_sizes=widths, depths=depths, layer_type="bottleneck")
    # a ResNet takes any size; the frame is what the processor makes, its stride what a patch is
    return config.to_dict() | {"image_size": IMAGE_SIZE, "patch_size": 4}


def _bert_config(tensors: Mapping[str, Tensor], heads: int | None) -> dict[str, Any]:
    vocabulary, width = tensors["text_model.embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=_count(tensors, r"text_model\.encoder\.layer\.(\d+)\."),
        num_attention_heads=heads or max(1, width // HEAD_WIDTH),
        intermediate_size=tensors["text_model.encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=tensors["text_model.embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=tensors["text_model.embeddings.token_type_embeddings.weight"].shape[0],
    )
    return config.to_dict()


def _loaded(source: Path, tensors: dict[str, Tensor], config: EgmaConfig) -> EgmaModel:
    """Through a folder, as transformers knows the names of its models on disk."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model, info = EgmaModel.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    if faults := loading_faults(info):
        raise UserError(f"{source}: the weights do not fill the model that their shapes tell: {faults}")
    return model


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, help="a .bin, .pt, .pth or .safetensors file")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tokenizer", default=TOKENIZER, help=f"Hub id or folder; default: {TOKENIZER}")
    parser.add_argument("--text-heads", type=int, help="attention heads of the text encoder; default: width / 64")
    options = parser.parse_args(argv)
    if options.output.exists() and any(options.output.iterdir()):
        raise UserError(f"{options.output}: is not empty")
    options.output.mkdir(parents=True, exist_ok=True)
    model, layout, dropped = convert(options.source, options.text_heads)
    try:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    except (OSError, ValueError) as error:
        raise UserError(f"{options.tokenizer}: no tokenizer ({str(error).splitlines()[0]})") from None
    processor = processor_of(layout, model.config, tokenizer)
    model.save_pretrained(options.output)
    processor.save_pretrained(options.output)
    print(f"layout of {layout.name}: pictures and text are prepared as it does")
    for rule, names in dropped.items():
        print(f"dropped: {len(names)} tensors, {rule}")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
