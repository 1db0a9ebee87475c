"""Other people's published weights: MedCLIP's (Swin or ResNet-50), the EGMA authors', MGCA's (ViT-B/16, to compare).

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
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedConfig, ResNetConfig, SwinConfig, ViTConfig
from transformers.image_utils import PILImageResampling

from dataset_scripts.command_line import Parser, program
from dataset_scripts.schema import UserError
from egma.hub import mgca
from egma.inference.mgca import MgcaConfig
from modeling_egma import EgmaConfig, EgmaProcessor
from modeling_egma.towers_egma import loading_faults

TOKENIZER = "emilyalsentzer/Bio_ClinicalBERT"
# of both, from their repositories (RyanWangZf/MedCLIP, MoMarky/EGMA): grey values, frame, and tokens of a text
IMAGE_MEAN, IMAGE_STD = 0.5862785803043838, 0.27950088968644304
MAX_LENGTH = 77
HEAD_WIDTH = 64  # of BERT's and a ViT's attention; no tensor's shape tells it
IMAGE_SIZE = 224


class Layout(NamedTuple):
    """Whose checkpoint it is: which hidden states of the text are averaged, and how pictures are resized."""

    name: str
    text_layers: int | list[int]
    resample: PILImageResampling


MEDCLIP = Layout("MedCLIP", [1, 2, -1], PILImageResampling.BICUBIC)
AUTHORS_EGMA = Layout("the authors' EGMA", 4, PILImageResampling.BILINEAR)
MGCA = Layout("MGCA", 1, PILImageResampling.BOX)
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
    "attention between words and regions, which no score uses": r"(.*\.)?(word|patch)_local_atten_layer\..*",
    "cross attention of a text encoder that reads text alone": r"text_encoder_q\.model\..*\.crossattention\..*",
    "prototypes, which only training compares with": r"prototype_layer\..*",
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


def convert(source: Path, text_heads: int | None = None) -> tuple[Any, Layout, dict[str, list[str]]]:
    """The model (of MGCA an `MgcaModel`), whose layout it had, and the dropped keys by rule.

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
    layout = MGCA if any(name.startswith(mgca.SIGN) for name in tensors) else layout
    is_resnet = f"{VISION}conv1.weight" in tensors
    if mgca.RESNET in tensors:
        raise UserError(f"{source}: an MGCA with a ResNet-50; expected the one with a ViT-B/16, which is known here")
    for name, value in tensors.items():
        rule = next((title for title, pattern in DROPPED.items() if re.fullmatch(pattern, name)), None)
        if rule is not None:
            dropped.setdefault(rule, []).append(name)
            continue
        found = mgca.renamed(name, value) if layout is MGCA else _renamed(name, value, is_resnet)
        if found and not found.keys() & kept.keys():
            kept |= {target: part.contiguous() for target, part in found.items()}
        else:
            unknown.append(name)
    lacking = set() if layout is MGCA else set(RENAMED.values()) - kept.keys()
    if unknown or lacking:
        raise UserError(
            f"{source}: no checkpoint of MedCLIP, EGMA or MGCA; "
            + (f"unknown or repeated keys {', '.join(unknown[:3])} ({len(unknown)} in all)" if unknown else "")
            + (f"{'; ' if unknown else ''}nothing for {', '.join(sorted(lacking))}" if lacking else "")
            + f"; expected {VISION}* of a Swin or a ResNet, {TEXT}* of a BERT, {', '.join(RENAMED)}, or MGCA's"
        )
    config = _config(source, kept, layout, is_resnet, text_heads)
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
            "by torch.save or safetensors: of a Lightning file that you trust, save its 'state_dict' alone"
        ) from None
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{source}: expected names with tensors, found {type(found).__name__}")
    return dict(found)


def _renamed(name: str, value: Tensor, is_resnet: bool) -> dict[str, Tensor]:
    if name in RENAMED:
        return {RENAMED[name]: value.reshape(()) if name == "logit_scale" else value}
    if name.startswith(TEXT):
        return {f"text_model.{name.removeprefix(TEXT)}": value}
    if not name.startswith(VISION):
        return {}
    inner = name.removeprefix(VISION)
    return {f"vision_model.{_resnet_name(inner) if is_resnet else inner}": value}


def _resnet_name(name: str) -> str:
    """torchvision's name of a ResNet's tensor -> transformers'."""
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", name)
    name = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", name)
    for pattern, replacement in RESNET_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _config(source: Path, tensors: Mapping[str, Tensor], layout: Layout, is_resnet: bool, heads: int | None) -> Any:
    """What the tensors' shapes say."""
    try:
        text = _bert_config(tensors, heads)
        if layout is MGCA:
            widths = [tensors[f"heads.img_global.{place}.weight"].shape[0] for place in (0, 3)]
            return MgcaConfig(vision_config=_vit_config(tensors), text_config=text, head_widths=widths)
        config = EgmaConfig(
            vision_config=_resnet_config(tensors) if is_resnet else _swin_config(tensors),
            text_config=text,
            projection_dim=tensors["visual_projection.weight"].shape[0],
        )
    except KeyError as error:
        raise UserError(f"{source}: lacks {error} of the encoders of {layout.name}") from None
    config.text_layers = layout.text_layers
    return config


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


def _vit_config(tensors: Mapping[str, Tensor]) -> ViTConfig:
    width, _, _, patch = tensors["vision_model.embeddings.patch_embeddings.projection.weight"].shape
    positions = tensors["vision_model.embeddings.position_embeddings"].shape[1]
    return ViTConfig(
        hidden_size=width, num_hidden_layers=_count(tensors, r"vision_model\.encoder\.layer\.(\d+)\."),
        num_attention_heads=max(1, width // HEAD_WIDTH), layer_norm_eps=1e-6,
        intermediate_size=tensors["vision_model.encoder.layer.0.intermediate.dense.weight"].shape[0],
        image_size=round((positions - 1) ** 0.5) * patch, patch_size=patch,
    )  # fmt: skip


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


def _loaded(source: Path, tensors: dict[str, Tensor], config: PreTrainedConfig) -> Any:
    """Through a folder, as transformers knows the names of its models on disk."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
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
    if layout is MGCA:
        parts = mgca.preparation(model, tokenizer, layout.resample)
    else:
        parts = [processor_of(layout, model.config, tokenizer)]
    for part in (model, *parts):
        part.save_pretrained(options.output)
    print(f"layout of {layout.name}: pictures and text are prepared as it does")
    for rule, names in dropped.items():
        print(f"dropped: {len(names)} tensors, {rule}")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
