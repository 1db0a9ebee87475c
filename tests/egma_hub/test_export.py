"""ONNX against the model at other sizes than it was traced with; torch.export; int8."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from egma_hub.export import CHECKED, TOLERANCE, Part, _difference, example_inputs, export_onnx, int8, main, parts
from modeling_egma import EgmaModel, EgmaProcessor


@pytest.mark.timeout(300)
def test_onnx_is_the_model_for_any_number_of_images_and_words(
    tiny_model: EgmaModel, processor: EgmaProcessor, tmp_path: Path, record_difference: Any, capsys: Any
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    before = tiny_model.config._attn_implementation
    differences = export_onnx(tiny_model, tmp_path / "onnx")
    assert differences.keys() == {"image", "text", "similarity"} and max(differences.values()) < TOLERANCE
    for name, difference in differences.items():
        record_difference(f"ONNX to the model, {name}", difference)
        assert (tmp_path / "onnx" / f"{name}.onnx").stat().st_size > 1000
    assert tiny_model.config._attn_implementation == before
    assert main([str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_torch_export_gives_the_same(tiny_model: EgmaModel) -> None:
    part = parts(tiny_model.eval())["similarity"]
    inputs = example_inputs(tiny_model, CHECKED)
    program = torch.export.export(part.module, tuple(inputs[name] for name in part.inputs))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*inputs.values()), part.module(**inputs))


def test_int8_is_near_and_leaves_the_model_alone(tiny_model: EgmaModel) -> None:
    inputs = example_inputs(tiny_model, CHECKED)
    expected = tiny_model(**inputs).logits_per_image
    small = int8(tiny_model)
    found = small(**inputs).logits_per_image
    assert not torch.equal(found, expected) and (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert torch.equal(tiny_model(**inputs).logits_per_image, expected)


def test_a_number_that_is_none_is_a_difference_whichever_output_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, path: Path, providers: list[str]) -> None: ...

        def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
            return [np.zeros(2, np.float32), np.array([0, np.nan], np.float32)]

    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    part = Part(Two(), {"x": {}}, ("one", "other"))
    assert np.isnan(_difference(part, Path("two.onnx"), {"x": torch.zeros(2)}))
