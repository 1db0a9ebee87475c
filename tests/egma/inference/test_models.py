"""One loader for all programs: a whole model that fits its processor, or a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, CLIPConfig, CLIPModel, ViTMAEConfig

from dataset_scripts.schema import UserError
from egma.hub import export
from egma.hub.push import stage_model
from egma.inference.models import load_model, load_whole_model
from egma.inference.peers import load_peer
from egma.programs import app, demo
from egma.programs import evaluate as evaluate_egma
from egma.programs import train as train_egma
from egma.study.shortcut import finding_figures
from modeling_egma import EgmaConfig, EgmaForImageClassification, EgmaModel, EgmaProcessor, EgmaVisionModel


@pytest.fixture
def folder(tmp_path: Path, tiny_config: EgmaConfig, tokenizer: BertTokenizer) -> Path:
    EgmaModel(tiny_config).save_pretrained(tmp_path / "egma")
    EgmaProcessor.for_model(tiny_config, tokenizer).save_pretrained(tmp_path / "egma")
    return tmp_path / "egma"


def _rewritten(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def _edited(name: str, **fields: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def _image_settings(**fields: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "processor_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps(settings | {"image_processor": settings["image_processor"] | fields}))

    return spoil


def _classifier(folder: Path) -> None:
    EgmaForImageClassification.from_pretrained(folder, num_labels=2).save_pretrained(folder)


def _nameless_classifier(folder: Path) -> None:
    _classifier(folder)
    _edited("config.json", architectures=None)(folder)


def _half(folder: Path) -> None:
    EgmaVisionModel.from_pretrained(folder).save_pretrained(folder)


def _adapted(folder: Path) -> None:
    base = folder.with_name("base")
    shutil.copytree(folder, base)
    adapted = get_peft_model(EgmaModel.from_pretrained(base), LoraConfig(target_modules=["visual_projection"]))
    (folder / "model.safetensors").unlink()
    adapted.save_pretrained(folder)


def _cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _other_tokenizer(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(100))]
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)


def _masking(folder: Path) -> None:
    body = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = EgmaConfig.from_pretrained(folder)
    vision = ViTMAEConfig(**body, image_size=112, patch_size=16, mask_ratio=0.0)
    EgmaModel(EgmaConfig(vision_config=vision, text_config=config.text_config)).save_pretrained(folder)


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a tensor short": (_rewritten(lambda t: t.pop("text_projection.weight")), "they lack 1 tensors, such as text_proj"),
    "no scale": (_rewritten(lambda t: t.pop("logit_scale")), "they lack 1 tensors, such as logit_scale"),
    "one too many": (_rewritten(lambda t: t.update(extra=torch.ones(1))), "they hold unknown 1 tensors, such as extra"),
    "misshapen": (_rewritten(lambda t: t.update(logit_scale=torch.ones(2))), r"logit_scale of \(2,\), expected \(\)"),
    "other vocabulary size": (
        _rewritten(lambda t: t.update({n: v[:40].clone() for n, v in t.items() if "word_embeddings" in n})),
        r"word_embeddings.weight of \(40, 16\), expected \(64, 16\)",
    ),
    "classifier": (_classifier, "holds an EgmaForImageClassification; expected a whole EgmaModel"),
    "nameless classifier": (_nameless_classifier, "they lack .* they hold unknown 2 tensors, such as classifier"),
    "half": (_half, "a model of type 'egma_vision_model'; expected an EGMA model"),
    "adapter": (_adapted, "an adapter, which is no model without its base"),
    "cut off": (_cut_off, "no EGMA model can be loaded from it"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no EGMA model can be loaded from it"),
    "broken config": (_edited("config.json", projection_dim="many"), "no EGMA model can be loaded from it"),
    "tokenizer": (_other_tokenizer, "the tokenizer counts to 104, expected at most 63"),
    "processor's grid": (
        _edited("processor_config.json", grid_size=14),
        "a grid of 14, expected 112 x 112 px and 7",
    ),
    "one mean": (_image_settings(image_mean=[0.5]), "its image processor takes no picture: image_mean has 1 value"),
    "mean in words": (_image_settings(image_mean="x"), "its image processor takes no picture"),
    "unknown resampling": (_image_settings(resample=99), "its image processor takes no picture"),
    "no deviation": (
        _image_settings(image_std=[0, 0, 0]),
        "makes no numbers of a picture; expected an image_std above 0",
    ),
    "masking": (_masking, "gives other tokens at the second look"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_no_whole_model_is_refused_in_one_sentence(folder: Path, case: str) -> None:
    spoil, said = SPOILED[case]
    spoil(folder)
    with pytest.raises(UserError, match=said) as error:
        load_whole_model(folder)
    assert str(error.value).startswith(f"{folder}: ") and "\n" not in str(error.value)


def test_a_whole_model_comes_as_it_was_saved(folder: Path) -> None:
    model, processor = load_model(folder)
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(model.logit_scale.cpu(), weights["logit_scale"]) and not model.training
    assert processor.max_length == 16 and load_whole_model(folder, max_length=9)[1].max_length == 9
    changed, _ = load_whole_model(folder, {"gaze_weight": 0.25})
    assert changed.config.gaze_weight == 0.25
    with pytest.raises(UserError, match=r"text_projection.weight of \(12, 16\), expected \(64, 16\)"):
        load_whole_model(folder, {"projection_dim": 64})
    with pytest.raises(UserError, match="gaze_weight"):
        load_whole_model(folder, {"gaze_weight": "much"})


def _sentence(call: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        assert call() == 2
    except UserError as error:
        return str(error)
    return capsys.readouterr().err.strip().splitlines()[-1]


PROGRAMS: dict[str, Callable[[str, str, Path], Any]] = {
    "train": lambda model, data, out: train_egma.main(
        ["--model", model, "--data", data, "--output_dir", str(out), "--batch_size", "4", "--dry_run", "True"]
    ),
    "evaluate": lambda model, data, out: evaluate_egma.main([model, "--data", data]),
    "export": lambda model, data, out: export.main([model, "--output", str(out)]),
    "push": lambda model, data, out: stage_model(Path(model), "lab/egma", None, out),
    "page": lambda model, data, out: app.make_page(model, None),
    "demo": lambda model, data, out: demo._gallery(Path(model), Path(data)),
    "study": lambda model, data, out: finding_figures(Path(model), Path(data), "Pneumothorax"),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", ["a tensor short", "classifier", "adapter"])
def test_every_program_refuses_it(
    folder: Path, phantom_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str, case: str
) -> None:
    SPOILED[case][0](folder)
    sentence = _sentence(lambda: PROGRAMS[program](str(folder), str(phantom_data), tmp_path / "out"), capsys)
    assert f"{folder}: " in sentence and not (tmp_path / "out").exists()


def test_a_model_to_compare_with_is_checked_too(folder: Path, tmp_path: Path) -> None:
    body = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    CLIPModel(
        CLIPConfig(text_config=body | {"vocab_size": 60}, vision_config=body | {"image_size": 32})
    ).save_pretrained(tmp_path / "clip")
    _rewritten(lambda t: t.pop("text_projection.weight"))(tmp_path / "clip")
    with pytest.raises(UserError, match=r"they lack 1 tensors, such as text_projection\.weight"):
        load_peer(str(tmp_path / "clip"))


def test_nothing_that_is_pushed_names_a_place_of_this_machine(folder: Path, tmp_path: Path) -> None:
    staged = stage_model(folder, "lab/egma", None, tmp_path / "staged")
    for path in staged.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
