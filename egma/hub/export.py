"""A model for other runtimes: ONNX, checked against the model with onnxruntime; int8 with what it costs.

    python -m egma.hub.export DIR --output DIR [--int8-on CORPUS]

`image.onnx` (pixel_values -> image_embeds, patch_embeds), `text.onnx` (input_ids, attention_mask -> text_embeds) and
`similarity.onnx` (all three -> maps); any number of images and sentences, any length of sentence.
"""

import copy
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dataset_scripts.command_line import Parser, program
from dataset_scripts.schema import UserError
from egma.evaluation.evaluate import evaluate_model
from egma.inference.models import load_whole_model
from modeling_egma import EgmaModel

TOLERANCE = 1e-4
# sizes of the export and, to see that they do not matter, of the check
TRACED, CHECKED = (2, 3, 12), (3, 5, 7)
MOST = 4096  # images or sentences at a time, or tokens of a text encoder without a limit


class Part(NamedTuple):
    """One graph: its module, its inputs and which of their axes vary, its outputs."""

    module: nn.Module
    inputs: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]


class _Image(nn.Module):
    def __init__(self, model: EgmaModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode_images(pixel_values)


class _Text(nn.Module):
    def __init__(self, model: EgmaModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.encode_text(input_ids, attention_mask)


class _Similarity(nn.Module):
    def __init__(self, model: EgmaModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.get_similarity_map(pixel_values, input_ids, attention_mask)


def parts(model: EgmaModel) -> dict[str, Part]:
    images = {"pixel_values": {0: "images"}}
    words = {"input_ids": {0: "sentences", 1: "length"}, "attention_mask": {0: "sentences", 1: "length"}}
    return {
        "image": Part(_Image(model), images, ("image_embeds", "patch_embeds")),
        "text": Part(_Text(model), words, ("text_embeds",)),
        "similarity": Part(_Similarity(model), images | words, ("maps",)),
    }


def example_inputs(model: EgmaModel, sizes: tuple[int, int, int]) -> dict[str, Tensor]:
    """Random inputs of (images, sentences, length); the last token of the first sentence is padding."""
    images, sentences, length = sizes
    config: Any = model.config
    side = config.image_side
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(sentences, length, dtype=torch.long)
    mask[0, -1] = 0
    return {
        "pixel_values": torch.randn(images, 3, side, side, generator=generator),
        "input_ids": torch.randint(5, config.text_config.vocab_size, (sentences, length), generator=generator),
        "attention_mask": mask,
    }


def export_onnx(model: EgmaModel, output: Path) -> dict[str, float]:
    """Write the three graphs; returns the largest difference of each from the model, at other sizes than traced.

    Raises:
        UserError: a graph differs by TOLERANCE or more.
    """
    # eager attention has no branch that depends on the sizes
    model = cast(EgmaModel, copy.deepcopy(model).eval().float().cpu())
    model.set_attn_implementation("eager")
    output.mkdir(parents=True, exist_ok=True)
    differences = {}
    for name, part in parts(model).items():
        traced = example_inputs(model, TRACED)
        path = output / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                part.module,
                tuple(traced[one] for one in part.inputs),
                path,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                dynamic_shapes=_dynamic(part, model.text_positions or MOST),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        differences[name] = _difference(part, path, example_inputs(model, CHECKED))
        if not differences[name] < TOLERANCE:
            raise UserError(
                f"{path}: differs from the model by {differences[name]:.2g}, expected less than {TOLERANCE:g}"
            )
    return differences


def _dynamic(part: Part, longest: int) -> dict[str, dict[int, Any]]:
    ranges = {"images": (1, MOST), "sentences": (1, MOST), "length": (2, longest)}
    names = {axis for axes in part.inputs.values() for axis in axes.values()}
    dims = {name: torch.export.Dim(name, min=ranges[name][0], max=ranges[name][1]) for name in sorted(names)}
    return {name: {place: dims[axis] for place, axis in axes.items()} for name, axes in part.inputs.items()}


def _difference(part: Part, path: Path, inputs: Mapping[str, Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {name: inputs[name] for name in part.inputs}
    found = session.run(list(part.outputs), {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        expected = part.module(**given)
    expected = expected if isinstance(expected, tuple) else (expected,)
    # not the built-in `max`, which can pass over NaN
    differences = [(torch.from_numpy(one) - other).abs().max() for one, other in zip(found, expected, strict=True)]
    return float(torch.stack(differences).max())


def int8(model: EgmaModel) -> EgmaModel:
    """A copy whose linear layers multiply in int8, for CPUs; activations are scaled as they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model).eval().cpu(), {nn.Linear}, torch.qint8)
    return cast(EgmaModel, quantised)


def int8_loss(model: EgmaModel, processor: Any, data: Path) -> dict[str, Any]:
    """Zero-shot AUROC of the model and of its int8 copy on a corpus, and their paired difference."""
    results = evaluate_model(
        cast(Any, model), processor, data, ["zero_shot"], others={"int8": (cast(Any, int8(model)), processor)}
    )
    beside = results["baselines"]["int8"]
    return {
        "float32": results["zero_shot_auroc"],
        "int8": beside["zero_shot_auroc"],
        "difference": beside["differences"].get("zero_shot_auroc"),
    }


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("folder", metavar="DIR", help="a trained EGMA model, or its Hub id")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--int8-on", type=Path, metavar="CORPUS", help="measure int8's loss of AUROC on its test split")
    options = parser.parse_args(argv)
    model, processor = load_whole_model(options.folder)
    for name, difference in export_onnx(model, options.output).items():
        print(f"{options.output / name}.onnx: {difference:.2g} from the model")
    if options.int8_on is not None:
        loss = int8_loss(model, processor, options.int8_on)
        low, high = loss["difference"]["interval"]
        print(
            f"int8: zero-shot AUROC {100 * loss['int8']:.1f}, float32 {100 * loss['float32']:.1f}; "
            f"lost {100 * loss['difference']['value']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        )


if __name__ == "__main__":
    sys.exit(main())
